"""The tumor classification bundle: comparing networks, new images, the baseline, pictures, and real slices."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas
import pytest
from PIL import Image

from custom.baselines.pooled_intensities import pooled, pooled_intensities
from custom.datasets import tumor_images
from custom.running.bundles import config_files
from tests.conftest import Brainmri

SMALL = ("--roi_size", "[80,80]", "--max_epochs", 2, "--batch_size", 16, "--learning_rate", 0.001)


@pytest.fixture(scope="module")
def compared(tumor_images_dir: Path, brainmri: Brainmri, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two networks trained on the sample. Read only."""
    folder = tmp_path_factory.mktemp("compared")
    words = ("--networks", "custom_cnn,alexnet", "--dataset_dir", tumor_images_dir, "--output_dir", "out", *SMALL)
    result = brainmri("compare", "tumor_class", *words, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "not a medical device" in result.stdout
    return folder / "out"


def test_two_networks(compared: Path) -> None:
    table = pandas.read_csv(compared / "comparison.csv").set_index("network")
    assert list(table.index) == ["custom_cnn", "alexnet"]
    assert (table[["seconds_an_epoch", "gflops", "peak_memory_mb", "parameters"]] > 0).all(axis=None)
    scores = pandas.read_csv(compared / "alexnet-seed0/evaluation/scores.csv").set_index("label")
    assert table.loc["alexnet", "n"] == scores.loc["all", "n"]
    for measure in ("accuracy", "balanced_accuracy", "calibration_error", "recall", "f1"):
        assert table.loc["alexnet", measure] == pytest.approx(scores.loc["all", measure], abs=1e-4)
    assert table.loc["alexnet", "recall"] == table.loc["alexnet", "balanced_accuracy"]
    labels = pandas.read_csv(compared / "by_label.csv")
    assert labels["label"].tolist() == [*tumor_images.LABELS.values(), "all"] * 2
    assert (compared / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_images_that_are_new(compared: Path, tumor_images_dir: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    """A folder of any images, and one image, to a table; a second run keeps the first one's."""
    folder = tmp_path / "mine"
    folder.mkdir()
    first, second = sorted((tumor_images_dir / "Testing/glioma").iterdir())[:2]
    shutil.copy(first, folder / "a.jpg")
    shutil.copy(second, folder / "b.jpg")
    words = ("--ckpt_path", compared / "custom_cnn-seed0/model.pt", "--output_dir", "out", "--roi_size", "[80,80]")
    tables = []
    for place in (folder, folder / "b.jpg"):
        result = brainmri("infer", "tumor_class", "--dataset_dir", place, *words, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert "not a medical device" in result.stdout
        tables.append(pandas.read_csv(tmp_path / "out/predictions.csv").set_index("subject"))
    assert [list(table.index) for table in tables] == [["a.jpg", "b.jpg"], ["b.jpg"]]
    columns = [f"p_{name}" for name in tumor_images.LABELS.values()]
    assert list(tables[0]) == ["prediction", "probability", *columns]
    np.testing.assert_allclose(
        tables[0].loc["b.jpg", columns].astype(float), tables[1].loc["b.jpg", columns].astype(float), atol=0.02
    )
    assert tables[0].loc["a.jpg", "prediction"] == tables[0].loc["a.jpg", columns].astype(float).idxmax()[2:]
    assert len(list((tmp_path / "out/earlier").glob("*/predictions.csv"))) == 1


def broken(path: Path) -> None:
    path.write_bytes(b"\xff\xd8 no picture")


def sixteen_bits(path: Path) -> None:
    Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 100).save(path.with_suffix(".png"))


def cmyk(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20, 4), dtype=np.uint8), mode="CMYK").save(path)


def one_pixel(path: Path) -> None:
    Image.new("L", (1, 1)).save(path)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (broken, r"bad\.jpg can't be read to its end .*\. Copy the file again"),
        (sixteen_bits, r"bad\.png has 16 bits a channel\. Window it to 8 bits"),
        (cmyk, r"bad\.jpg is a CMYK image, neither grey nor RGB\. Save it again as RGB"),
        (one_pixel, r"bad\.jpg is 1x1 pixels, less than 16 along an axis\. Export it again"),
    ],
)
def test_images_that_cannot_be_used(
    spoil, sentence: str, compared: Path, tumor_images_dir: Path, brainmri: Brainmri, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    shutil.copy(next((tumor_images_dir / "Testing/glioma").iterdir()), folder / "a.jpg")
    spoil(folder / "bad.jpg")
    words = ("--dataset_dir", folder, "--ckpt_path", compared / "custom_cnn-seed0/model.pt", "--output_dir", "out")
    result = brainmri("infer", "tumor_class", *words, cwd=tmp_path)
    assert result.returncode == 1
    assert re.search(f"brainmri: .*{sentence}", result.stderr)
    assert not (tmp_path / "out/predictions.csv").exists()  # no half result


def test_a_report(compared: Path, tumor_images_dir: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    run = shutil.copytree(compared / "custom_cnn-seed0", tmp_path / "run")
    words = ("--dataset_dir", tumor_images_dir, "--output_dir", run, *SMALL[:2], "--network", "custom_cnn")
    result = brainmri("report", "tumor_class", *words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    drawn = {path.stem for path in (run / "report").glob("*.png")}
    assert drawn >= {"curves", "confusion", "roc", "reliability", "grad_cam", "layers"}
    predicted = pandas.read_csv(run / "evaluation/predictions.csv")
    assert ("mistakes" in drawn) == (predicted["label"] != predicted["prediction"]).any()


def test_pooled_by_hand() -> None:
    image = np.zeros((3, 16, 16), dtype=np.float32)
    image[:, :2, :2] = [[[1, 2], [3, 4]]] * 3
    image[0, 14:, 14:] = 3  # one channel of three
    (row,) = pooled([image])
    assert row[0] == 2.5
    assert row[-1] == 1
    assert np.count_nonzero(row) == 2


def test_folds_test_everyone_once(tumor_images_dir: Path) -> None:
    """Of the partition folds: five test splits make the whole, groups stay together, and nobody is in two splits."""
    seen: list[str] = []
    for fold in range(5):
        splits = [
            tumor_images.datalist(tumor_images_dir, name, fold, "folds", cache_dir=None)
            for name in ("training", "validation", "test")
        ]
        groups = [{item["group"] for item in items} for items in splits]
        assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
        seen += [item["subject"] for item in splits[2]]
    everyone = [path.relative_to(tumor_images_dir).as_posix() for path in tumor_images_dir.glob("*/*/*.jpg")]
    assert sorted(seen) == sorted(everyone)


def test_the_baseline_on_real_slices(cheng_dir: Path, tmp_path: Path) -> None:
    """Logistic regression on 8x8 means beats chance on three classes of real tumors, and not by much."""
    settings = {
        "class_names": ["glioma", "meningioma", "pituitary"],
        "out_channels": 3,
        "partition": "folds",
    }
    where = {"dataset_dir": str(cheng_dir), "output_dir": str(tmp_path), "cache_dir": str(tmp_path / "cache")}
    found = pooled_intensities(config_files("tumor_class", "train.json"), **settings, **where, fold=3)
    assert 0.4 < found.set_index("label").loc["all", "balanced_accuracy"] < 0.75
    assert len(pandas.read_csv(tmp_path / "baseline/predictions.csv")) == found["n"].iloc[-1]


@pytest.mark.slow
@pytest.mark.thorough
def test_real_slices_are_told_apart(cheng_dir: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    """A few epochs of CustomCNN, on patients that it hasn't seen, do better than chance, with a temperature beside."""
    words = ("--dataset_dir", cheng_dir, "--class_names", "['glioma','meningioma','pituitary']", "--output_dir", "run")
    words = (*words, "--out_channels", 3, "--partition", "folds", "--fold", 3)
    trained = brainmri("train", "tumor_class", *words, "--max_epochs", 8, cwd=tmp_path, timeout=600)
    assert trained.returncode == 0, trained.stderr
    assert 0.05 < json.loads((tmp_path / "run/calibration.json").read_text())["temperature"] < 20
    assert brainmri("evaluate", "tumor_class", *words, cwd=tmp_path).returncode == 0
    scores = pandas.read_csv(tmp_path / "run/evaluation/scores.csv").set_index("label")
    assert scores.loc["all", "balanced_accuracy"] > 0.45
    assert scores.loc["all", "auc"] > 0.6
