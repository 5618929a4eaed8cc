"""Slices in HDF5, their prepared form, and broken ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose, ResizeWithPadOrCrop

from custom.datasets import brain_tumors, brats_slices
from custom.errors import ConfigError, DataError, MissingDataError
from custom.running.bundles import config_files
from custom.transforms import LoadSliced
from tests.conftest import Brainmri
from tests.test_bundles import run


@pytest.fixture
def copy(brats_slices_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(brats_slices_dir, tmp_path / "slices"))


def test_split_is_by_patient(brats_slices_dir: Path) -> None:
    parts = {name: brats_slices.datalist(brats_slices_dir, name) for name in ("training", "validation", "test")}
    assert {name: {item["subject"] for item in items} for name, items in parts.items()} == {
        "test": {"volume_1"},
        "validation": {"volume_2"},
        "training": {"volume_3"},
    }
    assert [item["slice"] for item in parts["test"]] == list(range(48))  # 2 before 10
    middle = brats_slices.datalist(brats_slices_dir, "test", middle=5)
    assert [item["slice"] for item in middle] == [21, 22, 23, 24, 25]
    (stack,) = brats_slices.datalist(brats_slices_dir, "test", middle=5, stacked=True)
    assert stack["image"] == [item["image"] for item in middle]
    with pytest.raises(ConfigError, match=r"middle must be 1 or more, got 0"):
        brats_slices.datalist(brats_slices_dir, "test", middle=0)


def load(**changes: object) -> LoadSliced:
    order = {"channel_order": brats_slices.CHANNEL_ORDER, "channels": brats_slices.CHANNELS} | changes
    return LoadSliced(["image", "label"], brats_slices.read_slice, **order)


def test_channels_come_in_the_projects_order(brats_slices_dir: Path) -> None:
    item = brats_slices.datalist(brats_slices_dir, "test")[24]
    one = load()(item)
    with h5py.File(item["image"][0]) as file:
        raw, mask = file["image"][()], file["mask"][()]
    assert one["image"].shape == (4, 64, 64)
    assert one["image"].dtype == torch.float32
    np.testing.assert_allclose(one["image"][0], raw[..., 3], rtol=1e-6)  # FLAIR lies last in the file
    np.testing.assert_allclose(one["image"][2], raw[..., 1], rtol=1e-6)  # T1ce second
    np.testing.assert_array_equal(one["label"][1], mask[..., 1])
    (stack,) = brats_slices.datalist(brats_slices_dir, "test", stacked=True)
    whole = load()(stack)
    assert whole["image"].shape == (4, 64, 64, 48)
    assert torch.equal(whole["image"][..., 24].as_tensor(), one["image"])
    with pytest.raises(ConfigError, match=r"channel_order must be .* in some order, got"):
        load(channel_order=["T1", "T1", "T2", "FLAIR"])


def test_prepared_slices_are_the_same(copy: Path, tmp_path: Path, brainmri: Brainmri) -> None:
    prepared = tmp_path / "prepared"
    result = brainmri("prepare", "brats_slices", copy, "--output_dir", prepared, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for split in ("training", "validation", "test"):
        pairs = zip(brats_slices.datalist(copy, split), brats_slices.datalist(prepared, split), strict=True)
        for source, ours in pairs:
            assert (source["subject"], source["slice"]) == (ours["subject"], ours["slice"])
            first, second = load()(source), load()(ours)
            torch.testing.assert_close(first["image"], second["image"], rtol=1e-3, atol=1e-6)  # float16
            assert torch.equal(first["label"], second["label"])
    assert brats_slices.verify(prepared) == []
    with pytest.raises(DataError, match=r"is prepared already"):
        brats_slices.prepare(prepared, tmp_path / "again")


def test_preparing_goes_on_where_it_was_stopped(copy: Path, tmp_path: Path) -> None:
    prepared = tmp_path / "prepared"
    broken = copy / "volume_3_slice_7.h5"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:500])
    with pytest.raises(DataError, match=r"volume_3_slice_7.h5 can't be read"):
        brats_slices.prepare(copy, prepared)
    assert not [path for path in prepared.iterdir() if "partial" in path.name or "volume_3_image" in path.name]
    with pytest.raises(DataError, match=r"prepared in part only\. Run `brainmri prepare` again"):
        brats_slices.datalist(prepared, "test")
    times = {path: path.stat().st_mtime_ns for path in prepared.glob("volume_1*")}
    broken.write_bytes(whole)
    brats_slices.prepare(copy, prepared)
    assert times == {path: path.stat().st_mtime_ns for path in prepared.glob("volume_1*")}
    assert len(brats_slices.datalist(prepared, "test")) == 48
    (prepared / "volume_2_mask.npy").unlink()
    with pytest.raises(MissingDataError, match=r"volume_2_mask.npy does not exist"):
        brats_slices.datalist(prepared, "test")
    other = tmp_path / "full"
    other.mkdir()
    (other / "mine.txt").write_text("x")
    with pytest.raises(DataError, match=r"holds other files\. Use a new folder"):
        brats_slices.prepare(copy, other)


def replace(path: Path, **datasets: np.ndarray) -> None:
    path.unlink()
    with h5py.File(path, "w") as file:
        for name, voxels in datasets.items():
            file[name] = voxels


IMAGE, MASK = np.ones((64, 64, 4)), np.zeros((64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: replace(path, image=IMAGE), "slice_3.h5 has no 'mask' in it"),
        (lambda path: path.write_bytes(path.read_bytes()[:900]), "slice_3.h5 can't be read"),
        (lambda path: path.write_bytes(b"nothing"), "slice_3.h5 can't be read"),
        (
            lambda path: replace(path, image=IMAGE[..., :3], mask=MASK),
            r"slice_3.h5 has a image .*\(3, 64, 64\), not \(4,",
        ),
        (lambda path: replace(path, image=IMAGE[1:], mask=MASK[1:]), "slice_3.h5 has another shape"),
        (lambda path: replace(path, image=IMAGE * np.nan, mask=MASK), "slice_3.h5 holds NaN or infinite values"),
        (
            lambda path: replace(path, image=IMAGE, mask=MASK + 2),
            r"slice_3.h5 holds mask values \[2\], not 0 and 1 only",
        ),
    ],
)
def test_a_broken_file(copy: Path, spoil: object, message: str) -> None:
    spoil(copy / "volume_1_slice_3.h5")  # type: ignore[operator]
    problems = brats_slices.verify(copy)
    assert problems
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(problems[0])


def test_a_missing_slice_is_named(copy: Path) -> None:
    (copy / "volume_2_slice_20.h5").unlink()
    message = r"has no volume_2_slice_20.h5 \(1 of 48 missing\)\. Copy them again, or leave the volume out"
    with pytest.raises(MissingDataError, match=message):
        brats_slices.datalist(copy, "training")
    assert len(brats_slices.verify(copy)) == 1


def test_wrong_masks_and_channels_stop_a_training(copy: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    words = ("--dataset_dir", copy, "--output_dir", "run", "--roi_size", "[64,64]", "--network_def#n_filters", 4)
    for broken, message in (
        ({"image": IMAGE, "mask": MASK + 255}, "volume_3_slice_5.h5 holds mask values [255], not 0 and 1 only"),
        (
            {"image": IMAGE[..., :3], "mask": MASK},
            "volume_3_slice_5.h5 has a image whose channels and sizes are (3, 64, 64)",
        ),
    ):
        replace(copy / "volume_3_slice_5.h5", **broken)
        result = brainmri("train", "brats_mri_slice", *words, "--max_epochs", 1, cwd=tmp_path)
        assert result.returncode == 1
        assert message in result.stderr.splitlines()[-1]
        assert "Traceback" not in result.stderr


def test_slices_and_volumes_come_out_alike(brats_slices_dir: Path, brain_tumors_dir: Path) -> None:
    """The same simulated patient, as HDF5 z-scores and as raw NIfTI, through each chain of the slice bundle."""
    parsers = {}
    for file, folder in (("train.json", brats_slices_dir), ("inference.json", brain_tumors_dir)):
        parsers[file] = ConfigParser(ConfigParser.load_config_files(config_files("brats_mri_slice", file)))
        parsers[file].update({"dataset_dir": str(folder)})
    (stack,) = brats_slices.datalist(brats_slices_dir, "test", stacked=True)
    (case,) = brain_tumors.datalist(brain_tumors_dir, "test")
    first = Compose(parsers["train.json"].get_parsed_content("train#deterministic_transforms"))(stack)["image"]
    second = parsers["inference.json"].get_parsed_content("preprocessing")(case)["image"]
    second = ResizeWithPadOrCrop(first.shape[1:])(second)
    assert first.abs().max() > 2
    torch.testing.assert_close(first.as_tensor(), second.as_tensor(), rtol=1e-3, atol=1e-3)


def test_inference_on_volumes_scores_as_evaluation_on_slices(
    brats_slices_dir: Path, brain_tumors_dir: Path, tmp_path: Path
) -> None:
    small = {"roi_size": [64, 64], "network_def#n_filters": 8, "output_dir": str(tmp_path)}
    train = config_files("brats_mri_slice", "train.json", "networks/improved.json")
    few = {"max_epochs": 15, "val_interval": 15, "batch_size": 8, "learning_rate": 0.003}
    run("training", train, dataset_dir=str(brats_slices_dir), **small, **few)
    evaluate = [*train, *config_files("brats_mri_slice", "evaluate.json")]
    evaluation = run("evaluating", evaluate, dataset_dir=str(brats_slices_dir), **small)
    infer = config_files("brats_mri_slice", "inference.json", "networks/improved.json")
    run("inferring", infer, dataset_dir=str(brain_tumors_dir), **small)
    output = evaluation.parser.get_parsed_content("validate#evaluator").state.output[0]
    (case,) = brain_tumors.datalist(brain_tumors_dir, "test")
    (path,) = (tmp_path / "segmentations").glob("*.nii.gz")
    of_slices = [np.asarray(output[key])[0] == 0 for key in ("label", "pred")]  # all that isn't background
    of_volumes = [np.asarray(nibabel.load(one).dataobj) > 0 for one in (case["label"], path)]
    first, second = (
        2 * (truth & found).sum() / (truth.sum() + found.sum()) for truth, found in (of_slices, of_volumes)
    )
    assert first > 0.2  # it has learned something
    assert second == pytest.approx(first, abs=0.05)


def test_what_is_not_a_data_set(tmp_path: Path, brats_slices_dir: Path) -> None:
    (tmp_path / "readme").write_text("x")
    with pytest.raises(MissingDataError, match=r"no file like volume_1_slice_0.h5\. Get it with Kaggle's own client"):
        brats_slices.datalist(tmp_path, "test")
    copy = Path(shutil.copytree(brats_slices_dir, tmp_path / "slices"))
    (copy / "twice").mkdir()
    shutil.copy(copy / "volume_1_slice_3.h5", copy / "twice")
    assert "has a slice of volume_1 twice" in brats_slices.verify(copy)[0]
