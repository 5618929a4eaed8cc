"""HCP's data set: files, table, targets, families, and the baselines from the command line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas
import pytest

from custom.baselines.hcp import HCPOptions, hcp_baselines
from custom.baselines.volumes_to_rows import volumes_to_rows
from custom.datasets import hcp
from custom.errors import ConfigError, DataError, MissingDataError
from custom.reports.populations import projections_figure, volumes_figure
from custom.running.bundles import config_files
from custom.running.workflow import StrictWorkflow
from custom.samples import hcp as sample
from tests.conftest import Brainmri


@pytest.fixture
def hcp_copy(hcp_dir: Path, tmp_path: Path) -> Path:
    """A copy of ten subjects that a test may spoil."""
    folder = tmp_path / "hcp"
    folder.mkdir()
    people = pandas.read_csv(hcp_dir / "subjects.csv").head(10)
    people.to_csv(folder / "subjects.csv", index=False)
    for subject in people["Subject"]:
        shutil.copytree(hcp_dir / str(subject), folder / str(subject))
    return folder


def test_sample_is_as_it_says(hcp_dir: Path) -> None:
    assert hcp.verify(hcp_dir) == []
    people = hcp.table(hcp_dir)
    assert people["Gender"].value_counts().to_dict() == {"F": 20, "M": 20}
    assert people["Family_ID"].value_counts().value_counts().to_dict() == {2: 10, 1: 20}
    paths = hcp.scans(hcp_dir)
    volumes = {subject: int((np.asarray(nibabel.load(path).dataobj) != 0).sum()) for subject, path in paths.items()}
    by_gender = pandas.Series(volumes).groupby(people["Gender"]).mean()
    assert 1.05 < by_gender["M"] / by_gender["F"] < 1.2  # 1.04 along each axis is 1.13 in volume
    assert sample.write(hcp_dir) == hcp_dir  # the very sample: nothing is done


def test_splits_divide_families(hcp_dir: Path) -> None:
    family = hcp.families(hcp.table(hcp_dir))
    splits = {name: hcp.datalist(hcp_dir, name) for name in ("training", "validation", "test")}
    of_split = [{family[item["subject"]] for item in items} for items in splits.values()]
    assert sum(map(len, of_split)) == len(set().union(*of_split)) == 30
    assert sum(map(len, splits.values())) == 40
    assert [len(names) for names in of_split] == [19, 5, 6]
    unlabelled = hcp.datalist(hcp_dir, "unlabelled")
    assert len(unlabelled) == 40
    assert "label" not in unlabelled[0]


def people(**columns: list[Any]) -> pandas.DataFrame:
    return pandas.DataFrame(columns, index=[str(number) for number in range(len(next(iter(columns.values()))))])


@pytest.mark.parametrize(
    ("values", "kind", "band", "expected"),
    [
        (["M", "F", "M"], "classes", 0.0, {"0": 1, "1": 0, "2": 1}),
        (["M", None, "F"], "classes", 0.0, {"0": 1, "2": 0}),
        ([1.0, 5.0, 2.0, 9.0], "median", 0.0, {"0": 0, "1": 1, "2": 0, "3": 1}),
        ([1.0, 2.0, 3.0, 4.0, 5.0], "median", 0.5, {"0": 0, "4": 1}),  # 2 to 4 are left out
        ([1.5, None, 3.0], "regression", 0.0, {"0": 1.5, "2": 3.0}),
        ([False, True, False, True], "median", 0.0, {"0": 0, "1": 1, "2": 0, "3": 1}),
        ([2, "x", None], "classes", 0.0, {"0": 0, "1": 1}),
    ],
)
def test_targets(values: list, kind: str, band: float, expected: dict) -> None:
    assert hcp.target_of(people(Column=values), "Column", kind, band).to_dict() == expected


@pytest.mark.parametrize(
    ("target", "kind", "band", "error", "sentence"),
    [
        ("Gendr", "classes", 0.0, ConfigError, r"no column 'Gendr'\. The nearest names are \['Gender'\]"),
        ("Same", "classes", 0.0, DataError, r"Same is 1 for all participants"),
        ("Empty", "classes", 0.0, DataError, r"Empty is empty for all participants"),
        ("Gender", "median", 0.0, DataError, r"Gender holds 'M', which is no number"),
        ("Many", "classes", 0.0, DataError, r"Many has 21 different values\. Use kind median"),
        ("Gender", "rank", 0.0, ConfigError, r"kind must be one of .*, got 'rank'"),
        ("Most", "median", 0.0, DataError, r"No value of Most lies above its median 1"),
        ("Many", "median", 1.0, ConfigError, r"band must be 0 to below 1, got 1.0"),
    ],
)
def test_targets_that_make_no_sense(target: str, kind: str, band: float, error: type, sentence: str) -> None:
    table = people(
        Gender=["M", "F"] * 10 + ["F"], Same=[1] * 21, Empty=[None] * 21, Many=list(range(21)), Most=[0, *[1] * 20]
    )
    with pytest.raises(error, match=sentence):
        hcp.target_of(table, target, kind, band)


def test_names_of_classes(hcp_dir: Path) -> None:
    assert hcp.classes(hcp_dir) == hcp.LABELS
    assert hcp.classes(hcp_dir, "Strength_Unadj", "median") == {0: "low Strength_Unadj", 1: "high Strength_Unadj"}
    assert hcp.classes(hcp_dir, "Age_in_Yrs", "regression") == {0: "Age_in_Yrs"}


def test_covariates(hcp_copy: Path) -> None:
    rows = hcp.persons(hcp_copy, "Ventricles", covariates=("Age_in_Yrs", "Gender"))
    table = pandas.read_csv(hcp_copy / "subjects.csv")
    assert rows["Age_in_Yrs"].tolist() == table["Age_in_Yrs"].tolist()
    assert rows["Gender"].tolist() == (table["Gender"] == "M").astype(float).tolist()
    item = hcp.datalist(hcp_copy, "test", options=hcp.Options("Ventricles", covariates=("Age_in_Yrs",)))[0]
    assert item["covariates"].tolist() == [float(table["Age_in_Yrs"][0])]
    assert item["covariates"].dtype == np.float32
    unlabelled = hcp.datalist(hcp_copy, "unlabelled", options=hcp.Options(covariates=("Gender",)))
    assert [one["covariates"][0] for one in unlabelled] == (table["Gender"] == "M").astype(float).tolist()
    assert set(unlabelled[0]) == {"subject", "image", "covariates"}


def test_numbers_as_labels(hcp_copy: Path) -> None:
    items = [{"label": np.array([value], dtype=np.float32)} for value in (1, 2, 3, 6)]
    assert hcp.scale(items) == pytest.approx((3.0, 3.5**0.5))
    with pytest.raises(DataError, match=r"All 2 training participants have the target 4\. There is nothing to learn"):
        hcp.scale([{"label": np.array([4.0])}] * 2)
    item = hcp.datalist(hcp_copy, "training", options=hcp.Options("Age_in_Yrs", "regression"))[0]
    age = pandas.read_csv(hcp_copy / "subjects.csv").set_index("Subject").loc[int(item["subject"]), "Age_in_Yrs"]
    assert item["label"].shape == (1,)
    assert item["label"][0] == age


def test_flat_folder_and_two_tables(hcp_copy: Path) -> None:
    """Scans as SUBJECT.nii.gz; the restricted table beside the other one."""
    for subject, path in hcp.scans(hcp_copy).items():
        path.rename(hcp_copy / f"{subject}.nii.gz")
        shutil.rmtree(hcp_copy / subject)
    table = pandas.read_csv(hcp_copy / "subjects.csv")
    table[["Subject", "Family_ID"]].to_csv(hcp_copy / "restricted.csv", index=False)
    table.drop(columns="Family_ID").to_csv(hcp_copy / "subjects.csv", index=False)
    assert hcp.verify(hcp_copy) == []
    rows = hcp.persons(hcp_copy, "Coin", space="mni")
    together = rows.groupby("family").groups.values()
    assert sorted(map(sorted, together)) == sorted(
        sorted(map(str, group["Subject"])) for _, group in table.groupby("Family_ID")
    )


@pytest.mark.parametrize(
    ("columns", "together"),
    [
        ({"Family_ID": [1, 1, 2, 3]}, [{"0", "1"}, {"2"}, {"3"}]),
        ({"Family_ID": [1, 2, 3, 4], "Mother_ID": [7, 8, 7, 9], "Father_ID": [5, 6, 4, 6]}, [{"0", "2"}, {"1", "3"}]),
        ({"Family_ID": [None, None, 3, 3]}, [{"0"}, {"1"}, {"2", "3"}]),
        ({"Age": [1, 1, 1, 1]}, [{"0"}, {"1"}, {"2"}, {"3"}]),
    ],
)
def test_relatives(columns: dict, together: list[set]) -> None:
    """Half-siblings share a parent only; a gap joins nobody."""
    found: dict[str, set] = {}
    for subject, family in hcp.families(people(**columns)).items():
        found.setdefault(family, set()).add(subject)
    assert list(found.values()) == together
    assert hcp.knows_families(people(**columns)) == ("Family_ID" in columns)


def test_a_person_stays_in_one_split(hcp_dir: Path) -> None:
    """Whatever the target, and whoever is left out for it."""
    by_target = [
        {name: {item["subject"] for item in hcp.datalist(hcp_dir, name, 0, options)} for name in ("training", "test")}
        for options in (None, hcp.Options("Strength_Unadj", "median", band=0.4))
    ]
    assert by_target[1]["test"] < by_target[0]["test"]
    assert by_target[1]["training"] < by_target[0]["training"]


def test_tables_as_they_are_exported(hcp_copy: Path) -> None:
    """Blanks for gaps, subjects as 100001.0, an empty last row; a file beside a scan is no scan."""
    table = pandas.read_csv(hcp_copy / "subjects.csv", dtype=str)
    table["Subject"] += ".0"
    table.loc[0, "Family_ID"] = " "
    text = table.to_csv(index=False) + "," * (len(table.columns) - 1) + "\n"
    (hcp_copy / "subjects.csv").write_text(text)
    (hcp_copy / "100001.nii.gz.md5").write_text("0")
    assert hcp.verify(hcp_copy) == []
    rows = hcp.persons(hcp_copy)
    assert len(rows) == 10
    assert rows["family"].nunique() == 6  # four pairs, and two who are no pair any more


def remove_scan(folder: Path) -> None:
    shutil.rmtree(folder / "100003")


def remove_row(folder: Path) -> None:
    table = pandas.read_csv(folder / "subjects.csv")
    table[table["Subject"] != 100004].to_csv(folder / "subjects.csv", index=False)


def double_row(folder: Path) -> None:
    table = pandas.read_csv(folder / "subjects.csv")
    pandas.concat([table, table.tail(1)]).to_csv(folder / "subjects.csv", index=False)


def spoil_scan(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "100002" / hcp.SPACES["native"]
        image = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(change(image.get_fdata(dtype=np.float32)), image.affine), path)

    return spoil


BAD = {
    "no scan": (remove_scan, r"1 subject of the table without a scan: 100003\."),
    "no row": (remove_row, r"1 subject with a scan but no row: 100004\."),
    "two rows": (double_row, r"subjects\.csv lists 100010 twice"),
    "no table": (lambda folder: (folder / "subjects.csv").unlink(), r"holds no \.csv table"),
    "no Subject": (lambda folder: (folder / "subjects.csv").write_text("a,b\n1,2\n"), r"has no column Subject"),
    "NaN": (
        spoil_scan(lambda voxels: voxels * np.nan),
        r"T1w_acpc_dc_restore_brain\.nii\.gz holds NaN everywhere",
    ),
    "shape": (spoil_scan(lambda voxels: voxels[1:]), r"has the shape \(49, 59, 48\) but .* has \(50, 59, 48\)"),
}


@pytest.mark.parametrize(("spoil", "sentence"), BAD.values(), ids=BAD)
def test_bad_data_is_named(spoil: Callable[[Path], object], sentence: str, hcp_copy: Path) -> None:
    spoil(hcp_copy)
    assert re.search(sentence, "\n".join(hcp.verify(hcp_copy)))


def test_subjects_may_be_skipped(hcp_copy: Path) -> None:
    remove_scan(hcp_copy)
    remove_row(hcp_copy)
    with pytest.raises(DataError, match=r"without a scan: 100003\. .*no row: 100004\. Complete them, or set missing"):
        hcp.persons(hcp_copy, "Coin")
    assert len(hcp.persons(hcp_copy, "Coin", missing="skip")) == 8
    with pytest.raises(MissingDataError, match=r"There is no folder"):
        hcp.datalist(hcp_copy / "nowhere", "training")


def preprocessing(cache: Path, size: tuple[int, ...] = (16, 16, 16)) -> Callable[[dict], dict]:
    settings = {"cache_dir": str(cache), "roi_size": list(size)}
    parser = StrictWorkflow(config_files("hcp", "train.json"), workflow_type="train", **settings).parser
    return parser.get_parsed_content("preprocessing")


def test_rows_are_computed_once(hcp_copy: Path, tmp_path: Path) -> None:
    """A second run reads the cache; another size makes new files; a brain's volume is in ml."""
    paths = [str(path) for path in hcp.scans(hcp_copy).values()][:3]
    first, brain_ml = volumes_to_rows(paths, preprocessing(tmp_path / "cache"))
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert len(made) == 3
    inside = np.asarray(nibabel.load(paths[0]).dataobj) != 0
    assert brain_ml[0] == pytest.approx(inside.sum() * 4**3 / 1000)
    brain = first[0][first[0] != 0]
    assert brain.mean() == pytest.approx(0, abs=1e-4)
    assert brain.std() == pytest.approx(1, abs=1e-4)
    again, _ = volumes_to_rows(paths, preprocessing(tmp_path / "cache"), workers=2)
    np.testing.assert_array_equal(again, first)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == made
    mapped, _ = volumes_to_rows(paths, preprocessing(tmp_path / "cache"), folder=tmp_path / "rows", most=0.0)
    assert isinstance(mapped, np.memmap)  # more than the memory takes: in a file that has no name
    np.testing.assert_array_equal(mapped, first)
    assert not any((tmp_path / "rows").iterdir())
    smaller, _ = volumes_to_rows(paths, preprocessing(tmp_path / "cache", (8, 16, 16)))
    assert smaller.shape == (3, 8 * 16 * 16)
    assert len(list((tmp_path / "cache").iterdir())) == 6
    spoil_scan(lambda voxels: 2 * voxels[:, ::-1])(hcp_copy)  # the second one's file
    changed, _ = volumes_to_rows(paths, preprocessing(tmp_path / "cache"))
    assert np.array_equal(changed[0], first[0])
    assert not np.array_equal(changed[1], first[1])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_scan_is_named_from_any_process(workers: int, hcp_copy: Path, tmp_path: Path) -> None:
    spoil_scan(lambda voxels: voxels * np.nan)(hcp_copy)
    paths = [str(path) for path in hcp.scans(hcp_copy).values()][:3]
    with pytest.raises(DataError, match=r"100002.*holds NaN everywhere"):
        volumes_to_rows(paths, preprocessing(tmp_path / "cache"), workers)


@pytest.mark.slow
def test_baselines_find_what_is_there(hcp_dir: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    """Ventricles and sex are found, and a coin isn't: its interval holds one half (n = 40, seed 0)."""
    words = ("--dataset_dir", hcp_dir, "--roi_size", "[24,24,24]", "--n_components", 30)
    result = brainmri("baseline", "hcp", *words, "--target", "Ventricles", "--output_dir", "found", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "40 persons of 30 families, 5 folds, seed 0" in result.stdout
    assert "not a medical device" in result.stdout
    found = pandas.read_csv(tmp_path / "found/baselines.csv").set_index("model")
    assert found.loc["PCA, logistic regression", "auc"] >= 0.9
    assert found.loc["PCA, linear SVM", "auc"] >= 0.9
    assert json.loads((tmp_path / "found/settings.json").read_text())["target"] == "Ventricles"
    assert len(pandas.read_csv(tmp_path / "found/predictions.csv")) == 5 * 40
    figures = {"explained_variance", "eigenbrains", "class_means", "reconstructions", "projections", "penalty"}
    assert {path.stem for path in (tmp_path / "found").glob("*.png")} == figures | {"learning_curve"}

    where = {"output_dir": tmp_path / "chance", "cache_dir": tmp_path / "cache/hcp"}
    settings = {"target": "Coin", "roi_size": [24, 24, 24], "n_components": 30}
    chance = hcp_baselines(config_files("hcp", "train.json"), HCPOptions(hcp_dir, **where, **settings)).set_index(
        "model"
    )
    assert (chance["auc_low"] < 0.5).all()
    assert (chance["auc_high"] > 0.5).all()
    assert len(list((tmp_path / "cache/hcp").iterdir())) == 40  # the second target read the first one's


def test_baseline_of_a_number(hcp_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    settings: dict[str, Any] = {"kind": "regression", "roi_size": [16, 16, 16], "n_components": 0.9, "folds": 2}
    table = pandas.read_csv(hcp_copy / "subjects.csv").drop(columns="Family_ID")
    table.to_csv(hcp_copy / "subjects.csv", index=False)
    where = {"output_dir": tmp_path / "out", "cache_dir": tmp_path / "cache"}
    for _ in range(2):
        options = HCPOptions(hcp_copy, **where, target="Strength_Unadj", **settings)
        found = hcp_baselines(config_files("hcp", "train.json"), options)
    assert {"n", "r2", "r2_std", "mae", "training_mae"} <= set(found.columns)
    assert "The table has no Family_ID, so relatives may be" in capsys.readouterr().out
    assert not (tmp_path / "out/class_means.png").exists()
    assert len(list((tmp_path / "out/earlier").glob("*/baselines.csv"))) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--roi_size", "50"), r"roi_size must be a list, as its default \[50, 50, 50\] is; got 50"),
        (("--roi_size", "[4,50,50]"), r"roi_size must be three whole numbers of 8 voxels or more, got \[4, 50, 50\]"),
        (("--folds", "1"), r"folds must be a whole number of 2 or more, got 1"),
        (("--traget", "Gender"), r"The baselines of hcp have no option 'traget'\. Use some of: dataset_dir, "),
        (("--n_components", "1.5"), r"n_components must be a whole number, or a fraction above 0 and below 1, got 1.5"),
        (("--target", "Gander"), r"no column 'Gander'\. The nearest names are \['Gender'\]"),
        (("--recipe", "talk"), r"recipes has no file talk\.json\. Use one of: crop_200, crop_talk"),
        (("--recipe", "regression"), r"take a regression by --kind regression"),
    ],
)
def test_baseline_mistakes(
    words: tuple[str, ...], sentence: str, hcp_copy: Path, brainmri: Brainmri, tmp_path: Path
) -> None:
    result = brainmri("baseline", "hcp", "--dataset_dir", hcp_copy, *words, cwd=tmp_path)
    assert result.returncode == 1
    assert re.search(sentence, result.stderr)
    assert not (tmp_path / "runs/hcp_baselines/baselines.csv").exists()


def test_figures_of_many_persons() -> None:
    figure = volumes_figure({"mean": np.ones((4, 5, 6)), "difference": np.zeros((4, 5, 6))}, "two", ["difference"])
    assert len(figure.axes) == 6
    assert [ax.get_ylabel() for ax in figure.axes[::3]] == ["mean", "difference"]
    scores = np.arange(20.0).reshape(5, 4)
    figure = projections_figure(scores, np.array([0, 1, 0, 1, 1]), {0: "F", 1: "M"})
    assert [len(points.get_offsets()) for points in figure.axes[0].collections] == [2, 3]
