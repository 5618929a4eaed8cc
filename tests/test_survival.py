"""Survival from tumor labels: features and measures by hand, and a sample in which one column can be learned."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pandas
import pytest

from custom.baselines.survival import SurvivalOptions, classes_of, survival
from custom.baselines.tumor_shape import tumor_features
from custom.baselines.volume_regressor import VolumeRegressor
from custom.datasets import brats_survival
from custom.errors import ConfigError, DataError
from custom.metrics.concordance import concordance_index
from custom.samples.brats import survival_table
from tests.conftest import Brainmri

PATIENTS = 40


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty balls of several radii in one ball of a brain, and the sample's table of survival. Read only."""
    folder = tmp_path_factory.mktemp("survival") / "brats"
    rng = np.random.default_rng(0)
    axes = np.stack(np.meshgrid(*[np.arange(40)] * 3, indexing="ij"))
    brain = (np.linalg.norm(axes - 19.5, axis=0) < 19).astype(np.int16)
    volumes = {}
    for number in range(1, PATIENTS + 1):
        name = f"BraTS20_Training_{number:03d}"
        distance = np.linalg.norm(axes - rng.uniform(14, 25, (3, 1, 1, 1)), axis=0)
        radius = rng.uniform(2, 6)  # of 4 mm voxels
        label = np.select([distance < radius - 1.5, distance < radius - 0.7, distance < radius], [1, 4, 2], 0)
        volumes[name] = np.count_nonzero(label) * 0.064
        (folder / name).mkdir(parents=True)
        for role, voxels in (("flair", brain), ("seg", label.astype(np.uint8))):
            nibabel.save(nibabel.Nifti1Image(voxels, np.diag([4, 4, 4, 1])), folder / name / f"{name}_{role}.nii.gz")
    survival_table(volumes, 2020, rng).to_csv(folder / "survival_info.csv", index=False)
    return folder


def test_the_volume_is_found_and_chance_is_not(dataset: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    """Survival falls with the volume; Chance_days has the same numbers in random order. Age tells of neither."""
    found = {}
    for target in ("Survival_days", "Chance_days"):
        words = ("survival", dataset, "--target", target, "--output_dir", target, "--epochs", 20)
        result = brainmri(*words, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert "not a medical device" in result.stdout
        found[target] = pandas.read_csv(tmp_path / target / "scores.csv").set_index("model")
    for model in ("age and features, ridge", "network on the labels"):
        assert found["Survival_days"].loc[model, "concordance_low"] > 0.7
        assert found["Survival_days"].loc[model, "mae_days"] < found["Survival_days"].loc["age alone", "mae_days"] / 2
        assert found["Chance_days"].loc[model, "concordance"] < 0.7
        assert found["Chance_days"].loc[model, "concordance_low"] < 0.5
    assert found["Survival_days"].loc["age alone", "concordance"] < 0.7
    assert (found["Survival_days"]["n"] == PATIENTS).all()
    predictions = pandas.read_csv(tmp_path / "Survival_days/predictions.csv", index_col="case")
    ridge = predictions["age and features, ridge"]
    best = found["Survival_days"].loc["age and features, ridge"]
    assert np.mean(classes_of(predictions["days"].to_numpy()) == classes_of(ridge.to_numpy())) == pytest.approx(
        best["accuracy"], abs=1e-4
    )
    features = pandas.read_csv(tmp_path / "Survival_days/features.csv", index_col="case")
    assert list(features.index) == list(predictions.index)
    assert len(features) == PATIENTS


def test_predicted_labels(dataset: Path, tmp_path: Path) -> None:
    """Labels 0 to 3 of a prediction give what BraTS's codes give; a patient without a prediction is named."""
    folder = tmp_path / "segmentations"
    folder.mkdir()
    for path in dataset.glob("*/*_seg.nii.gz"):
        image = nibabel.load(path)
        voxels = np.asarray(image.dataobj)
        name = path.name.replace("_seg", "_flair_seg")
        nibabel.save(
            nibabel.Nifti1Image(np.where(voxels == 4, 3, voxels).astype(np.uint8), image.affine), folder / name
        )
    options = {"dataset_dir": str(dataset), "folds": 2, "epochs": 0}
    tables = [
        survival(SurvivalOptions(output_dir=str(tmp_path / str(number)), labels_dir=labels, **options))
        for number, labels in enumerate((None, str(folder)))
    ]
    pandas.testing.assert_frame_equal(*tables)
    assert "network on the labels" not in tables[0]["model"].tolist()
    (folder / "BraTS20_Training_007_flair_seg.nii.gz").unlink()
    with pytest.raises(DataError, match="The table of survival names BraTS20_Training_007, which has no label map"):
        survival(SurvivalOptions(output_dir=str(tmp_path / "new"), labels_dir=str(folder), **options))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("Brats20ID,Age,Survival_days,Extent_of_Resection\na,60.5,289,GTR\nb,52,ALIVE (361 days later),NA\n", [289]),
        ("BraTS19ID,Age,Survival,ResectionStatus\na,60.5,289,\nc,40,12,STR\n", [289, 12]),
    ],
)
def test_the_tables_of_brats(text: str, days: list[float], tmp_path: Path) -> None:
    (tmp_path / "survival_info.csv").write_text(text)
    found = brats_survival.table(tmp_path)
    assert found["days"].tolist() == days
    assert found.loc["a", "age"] == 60.5


@pytest.mark.parametrize(
    ("text", "target", "error", "message"),
    [
        (
            "Brats20ID,Age,Survival_days\na,1,2\n",
            "Days",
            ConfigError,
            "has no column 'Days'. Use one of: Brats20ID, Age",
        ),
        ("Brats20ID,Age,Survival_days\na,1,2\na,1,2\n", None, DataError, "has two rows of a"),
        (
            "Brats20ID,Age,Survival_days\na,1,ALIVE\n",
            None,
            DataError,
            "has no row with numbers for Age and Survival_days",
        ),
        ("case,days\na,1\n", None, DataError, "needs columns for the case"),
        (None, None, DataError, "holds no survival_info.csv or survival_data.csv"),
    ],
)
def test_tables_that_cannot_be_used(
    text: str | None, target: str | None, error: type, message: str, tmp_path: Path
) -> None:
    (tmp_path / "other.csv").touch()
    if text is not None:
        (tmp_path / "survival_info.csv").write_text(text)
    with pytest.raises(error, match=message):
        brats_survival.table(tmp_path, target)


def test_too_few_patients_and_wrong_options(dataset: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(dataset, tmp_path / "few"))
    rows = pandas.read_csv(folder / "survival_info.csv")
    rows.head(7).to_csv(folder / "survival_info.csv", index=False)
    with pytest.raises(DataError, match=r"7 .* are too few for 5 outer and 5 inner folds"):
        survival(SurvivalOptions(dataset_dir=str(folder), output_dir=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="folds must be a whole number of 2 or more, got 1"):
        SurvivalOptions(folds=1)


def test_concordance_by_hand() -> None:
    time = np.array([1.0, 2.0, 3.0, 3.0])
    assert concordance_index(time, time) == 1
    assert concordance_index(time, -time) == 0
    assert concordance_index(time, np.zeros(4)) == 0.5
    # pairs (2, 1), (3, 1), (3, 2), (3, 1), (3, 2): right, right, tie, right, wrong
    assert concordance_index(time, np.array([0.0, 2.0, 2.0, 1.0])) == pytest.approx(3.5 / 5)
    assert np.isnan(concordance_index(np.ones(3), np.arange(3)))


def test_classes_of_the_challenge() -> None:
    assert classes_of(np.array([0.0, 299.9, 300.0, 450.0, 450.1])).tolist() == [0, 0, 1, 1, 2]


def test_features_by_hand() -> None:
    """A box of 10x10x20 mm, its middle 10 mm to the right of the brain's."""
    brain, label = np.ones((40, 20, 20)), np.zeros((40, 20, 20), int)
    label[20:30, 5:15, 5:15] = 2  # voxels of 1x1x2 mm
    label[22:24, 6, 6] = 3
    found = tumor_features(label, brain, (1, 1, 2))
    expected = {"whole_ml": 2, "core_ml": 0.004, "enhancing_ml": 0.004, "edema_ml": 1.996, "brain_ml": 32}
    expected |= {"extent_x_mm": 10, "extent_y_mm": 10, "extent_z_mm": 20}
    expected |= {"offset_x_mm": 5, "offset_y_mm": 0, "offset_z_mm": 0}
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["elongation"] == pytest.approx(1 - np.sqrt((10**2 - 1) / (20**2 - 4)), abs=1e-3)
    assert found["surface_cm2"] == pytest.approx(10, rel=0.1)  # 2x1 + 4x2 cm2, less the edges
    ball = np.linalg.norm(np.indices((41, 41, 41)) - 20, axis=0) < 15
    assert tumor_features(ball.astype(int), ball, (1, 1, 1))["sphericity"] == pytest.approx(1, abs=0.1)
    nothing = tumor_features(np.zeros((5, 5, 5), int), np.ones((5, 5, 5)), (1, 1, 1))
    assert nothing.pop("brain_ml") == 0.125
    assert set(nothing.values()) == {0.0}


def test_the_network_learns_a_volume_and_repeats_itself() -> None:
    rng = np.random.default_rng(0)
    shares = rng.uniform(0, 1, 24)
    volumes = np.ones((24, 1, 8, 8, 8)) * shares.reshape(-1, 1, 1, 1, 1)
    first, second = (VolumeRegressor(epochs=40).fit(volumes, 100 * shares).predict(volumes) for _ in range(2))
    assert np.array_equal(first, second)
    assert np.abs(first - 100 * shares).mean() < 10
