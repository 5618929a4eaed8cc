"""The HCP bundle: crops and sizes, covariates, a number as the target, pictures, and that it finds what is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pandas
import pytest
import torch

from custom import cli
from custom.networks import HCPNet
from custom.running.bundles import config_files, mixins
from custom.running.workflow import StrictWorkflow
from tests.conftest import Brainmri


@pytest.fixture(scope="module")
def scan_256(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan of 256 cubed, stored LAS as HCP's are; a box from back 70 to front 219 and low 40 to high 209, 0 outside.

    Its values are 1 + the distance from its back.
    """
    voxels = np.zeros((256, 256, 256), dtype=np.int16)
    voxels[60:190, 70:220, 40:210] = 1 + np.arange(150)[None, :, None]
    path = tmp_path_factory.mktemp("scan") / "1.nii.gz"
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1.0, 1, 1, 1])), path)
    return path


@pytest.mark.parametrize(
    ("recipe", "size", "axis", "first", "last"),
    [
        (None, (50, 50, 50), 1, 0, 49),  # the box fills the whole
        ("resolution_full", (155, 165, 195), 2, 40, 189),  # LIA: front is the third axis, 70 to 219 of 30 to 224
        ("crop_talk", (50, 50, 50), 2, 10, 48),  # 40 / 3.9 and 189 / 3.9
        ("crop_200", (50, 50, 50), 1, 10, 48),  # 28 to 227 is kept: 42 / 4, 191 / 4
        ("crop_200,resolution_100", (100, 100, 100), 1, 21, 95),
    ],
)
def test_crops_and_sizes(
    recipe: str | None, size: tuple[int, ...], axis: int, first: int, last: int, scan_256: Path, tmp_path: Path
) -> None:
    settings = {"cache_dir": str(tmp_path), "workflow_type": "train"}
    parser = StrictWorkflow(config_files("hcp", "train.json", *mixins("hcp", None, recipe)), **settings).parser
    found = parser.get_parsed_content("preprocessing")({"image": str(scan_256)})
    image = found["image"][0].numpy()
    assert image.shape == size
    inside = np.flatnonzero(np.moveaxis(image, axis, 0).any(axis=(1, 2)))
    assert abs(inside[0] - first) <= 1
    assert abs(inside[-1] - last) <= 1
    middle = np.moveaxis(image, axis, 0)[inside[2:-2], size[0] // 2, 2 * size[1] // 3]
    assert (np.diff(middle) > 0).all()  # it rises from back to front
    assert image[image != 0].mean() == pytest.approx(0, abs=1e-3)
    assert float(found["brain_ml"]) == pytest.approx(130 * 150 * 170 / 1000)


def test_the_talks_crop_is_written_alike() -> None:
    files = [config_files("hcp", f"recipes/{name}.json")[0] for name in ("crop_talk", "resolution_full")]
    crop, full = (json.loads(Path(file).read_text()) for file in files)
    assert crop["crop"] == full["crop"]
    assert crop["orientation"] == full["orientation"]


def test_the_talks_crop_is_of_one_shape(hcp_dir: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    result = brainmri("train", "hcp", "--dataset_dir", hcp_dir, "--recipe", "crop_talk", cwd=tmp_path)
    assert result.returncode == 1
    assert re.search(
        r"brainmri: .*\.nii\.gz has the shape \(50, 48, 59\), but this crop is by indices of \(256, 256, 256\)\. Res",
        result.stderr,
    )


def test_n4_evens_the_bias_out(hcp_dir: Path, tmp_path: Path) -> None:
    """White matter that a field made uneven gets as even again as it was, within a third."""
    path = hcp_dir / "100001/T1w/T1w_acpc_dc_restore_brain.nii.gz"
    scan = nibabel.load(path)
    voxels = scan.get_fdata(dtype=np.float32)
    field = np.exp(np.linspace(-0.5, 0.5, voxels.shape[1], dtype=np.float32))[None, :, None]
    nibabel.save(nibabel.Nifti1Image(voxels * field, scan.affine), tmp_path / "uneven.nii.gz")
    files = config_files("hcp", "train.json", "recipes/n4.json")
    correct = StrictWorkflow(files, workflow_type="train").parser.get_parsed_content("bias_correction")
    load = StrictWorkflow(files, workflow_type="train").parser.get_parsed_content("preprocessing").transforms
    item = {"image": str(tmp_path / "uneven.nii.gz")}
    for step in load.transforms[:3]:
        item = step(item)
    uneven, even = item["image"][0].numpy(), correct(item)["image"][0].numpy()
    white = voxels > np.quantile(voxels[voxels > 0], 0.7)

    def spread(values: np.ndarray) -> float:
        return values[white].std() / values[white].mean()

    assert spread(uneven) > 2 * spread(voxels)
    assert spread(even) < 1.33 * spread(voxels)
    assert ((even == 0) == (uneven == 0)).all()


def test_mistakes(hcp_dir: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    where = ("--dataset_dir", hcp_dir, "--output_dir", tmp_path / "out")
    for words, sentence in (
        (("--target", "Gnder"), r"no column 'Gnder'\. The nearest names are \['Gender'\]"),
        (
            ("--target", "Age_in_Yrs"),
            r"The target has 15 classes \(.*\), but the network 2 outputs\. Set out_channels 15",
        ),
        (("--covariates", "['Gender']"), r"Gender is the target\. Leave it out of the covariates"),
        (("--covariates", "['Age_in_Yrs']", "--network", "densenet121"), r"DenseNet121 takes no covariates: leave"),
        (("--target", "Age_in_Yrs", "--kind", "regression"), r"as a number\. Add the recipe regression"),
        (("--roi_size", "[40,40,40]"), r"HCPNet pools by 48: img_size must be three sizes of 48 or more"),
    ):
        result = brainmri("train", "hcp", *where, *words, cwd=tmp_path)
        assert result.returncode == 1
        assert re.search(sentence, result.stderr), result.stderr
    assert not (tmp_path / "out").exists()


def test_a_bad_scan_is_named_by_another_process(hcp_dir: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    scans = []
    for number in range(3):
        path = tmp_path / f"{number}.nii.gz"
        voxels = np.arange(512, dtype=np.float32).reshape(8, 8, 8) * (np.nan if number == 1 else 1)
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
        scans.append({"subject": str(number), "image": str(path)})
    torch.save(HCPNet(1, 2, (50, 50, 50)).state_dict(), tmp_path / "model.pt")
    words = ("--data", str(scans), "--ckpt_path", tmp_path / "model.pt", "--num_workers", 1)
    result = brainmri("infer", "hcp", *words, cwd=tmp_path)
    assert result.returncode == 1
    assert re.search(r"^brainmri: .*1\.nii\.gz holds NaN everywhere", result.stderr, re.MULTILINE), result.stderr


def test_a_spoilt_cache_is_made_again(scan_256: Path, tmp_path: Path) -> None:
    settings = {"cache_dir": str(tmp_path), "workflow_type": "train"}
    parser = StrictWorkflow(config_files("hcp", "train.json"), **settings).parser
    step = parser.get_parsed_content("preprocessing")
    first = step({"image": str(scan_256)})["image"]
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:1000])
    assert torch.equal(step({"image": str(scan_256)})["image"], first)
    assert kept.stat().st_size > 1000


@pytest.mark.slow
def test_the_network_finds_what_is_there(hcp_dir: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    """Ventricles are found (AUC 0.9 or more); for a coin the interval holds one half. n = 8 of 40, seed 0."""
    found = {}
    for target, epochs in (("Ventricles", 30), ("Coin", 8)):
        words = ("--dataset_dir", hcp_dir, "--target", target, "--output_dir", target, "--roi_size", "[48,48,48]")
        trained = brainmri("train", "hcp", *words, "--max_epochs", epochs, "--num_workers", 0, cwd=tmp_path)
        assert trained.returncode == 0, trained.stderr
        evaluated = brainmri("evaluate", "hcp", *words, cwd=tmp_path)
        assert evaluated.returncode == 0, evaluated.stderr
        assert "not a medical device" in evaluated.stdout + evaluated.stderr
        found[target] = pandas.read_csv(tmp_path / target / "evaluation/scores.csv").set_index("label").loc["all"]
    assert found["Ventricles"]["auc"] >= 0.9
    assert found["Coin"]["auc_low"] < 0.5 < found["Coin"]["auc_high"]
    assert len(list((tmp_path / "cache/hcp").iterdir())) == 40  # the second target read the first one's

    words = ("--dataset_dir", hcp_dir, "--target", "Ventricles", "--output_dir", "Ventricles", *words[6:])
    report = brainmri("report", "hcp", *words, cwd=tmp_path)
    assert report.returncode == 0, report.stderr
    drawn = {path.stem for path in (tmp_path / "Ventricles/report").glob("*.png")}
    assert drawn == {"curves", "confusion", "roc", "reliability", "grad_cam", "layers"}


def test_a_number_and_covariates(hcp_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grip strength from a scan, age and sex: the predictions are in its unit, before and after."""
    monkeypatch.chdir(tmp_path)
    settings = {
        "dataset_dir": str(hcp_dir),
        "output_dir": "out",
        "target": "Strength_Unadj",
        "covariates": ["Gender", "Age_in_Yrs"],
        "roi_size": [48, 48, 48],
    }
    cli.train("hcp", recipe="regression", max_epochs=3, **settings)
    cli.evaluate("hcp", recipe="regression", **settings)
    kept = json.loads(Path("out/calibration.json").read_text())
    assert kept["classes"] == ["Strength_Unadj"]
    assert kept["mean"] == pytest.approx(115, abs=10)
    scores = pandas.read_csv("out/evaluation/scores.csv").set_index("label").loc["Strength_Unadj"]
    evaluated = pandas.read_csv("out/evaluation/predictions.csv", dtype={"subject": str}).set_index("subject")
    table = pandas.read_csv(hcp_dir / "subjects.csv", dtype={"Subject": str}).set_index("Subject")
    np.testing.assert_allclose(evaluated["label"], table.loc[evaluated.index, "Strength_Unadj"], rtol=1e-6)
    assert scores["mae"] == pytest.approx((evaluated["label"] - evaluated["prediction"]).abs().mean(), abs=1e-4)
    assert evaluated["prediction"].between(60, 180).all()
    cli.infer("hcp", recipe="regression", split="test", **{key: settings[key] for key in settings})
    inferred = pandas.read_csv("out/predictions.csv", dtype={"subject": str}).set_index("subject")
    np.testing.assert_allclose(inferred["prediction"], evaluated["prediction"], rtol=0.02)
