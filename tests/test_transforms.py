"""The transforms, on files as they come."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import EnsureChannelFirstd, SaveImage

from custom.datasets import iseg
from custom.errors import DataError
from custom.transforms import AtomicNibabelWriter, EncodeLabelsd, LoadVolumesd, PadToSized
from tests.test_iseg import BAD_DATA, voxels


def test_two_analyze_files_become_two_channels(iseg_dir: Path) -> None:
    item = iseg.datalist(iseg_dir, "test")[0]
    loaded = EnsureChannelFirstd(["image", "label"])(LoadVolumesd(["image", "label"])(item))
    for channel, path in enumerate(item["image"]):
        np.testing.assert_array_equal(loaded["image"][channel], voxels(path)[..., 0])
    assert loaded["label"].shape == (1, 50, 59, 48)
    np.testing.assert_array_equal(loaded["image"].affine, nibabel.load(item["image"][0]).affine)


def saved(path: Path, values: np.ndarray, affine: np.ndarray, unit: str = "mm") -> str:
    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)
    return str(path)


def moved(mm: float) -> np.ndarray:
    """Voxels of 2 mm, the first at (0, 0, 0) but for a shift along y."""
    affine = np.diag([2.0, 2, 2, 1])
    affine[1, 3] = mm
    return affine


@pytest.mark.parametrize("shift", [0, 2e-6, -2e-6, 0.05])
def test_affines_that_differ_by_rounding_load_as_channels(shift: float, tmp_path: Path) -> None:
    t1, t2 = (np.full((30, 31, 32), value, np.float32) for value in (1, 2))
    t1[0, 0, 0] = t2[0, 0, 0] = 0  # a constant scan is an error
    paths = [saved(tmp_path / "t1.nii", t1, moved(0)), saved(tmp_path / "t2.nii", t2, moved(shift))]
    loaded = EnsureChannelFirstd("image")(LoadVolumesd("image")({"image": paths}))["image"]
    assert loaded.shape == (2, 30, 31, 32)
    assert [channel.unique().tolist() for channel in loaded] == [[0, 1], [0, 2]]
    np.testing.assert_array_equal(loaded.affine, moved(0))  # the first one's


def test_affines_that_differ_by_more_are_refused(tmp_path: Path) -> None:
    values = np.indices((30, 31, 32), np.float32)[0]
    paths = [saved(tmp_path / "t1.nii", values, moved(0)), saved(tmp_path / "t2.nii", values, moved(0.2))]
    with pytest.raises(DataError, match=r"t2\.nii and .*t1\.nii lie differently in space"):
        LoadVolumesd("image")({"image": paths})


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(("unit", "per_mm"), [("micron", 1000), ("mm", 1), ("meter", 0.001)])
def test_every_unit_gives_an_affine_in_mm(unit: str, per_mm: float, count: int, tmp_path: Path) -> None:
    values, stored = np.indices((30, 31, 32), np.float32)[0], np.diag([per_mm, per_mm, per_mm, 1]) @ moved(-7)
    paths = [saved(tmp_path / f"{number}.nii", values, stored, unit) for number in range(count)]
    loaded = LoadVolumesd("image")({"image": paths if count > 1 else paths[0]})["image"]
    np.testing.assert_allclose(loaded.affine, moved(-7), atol=1e-5)


LOADS = {
    name: BAD_DATA[name] for name in BAD_DATA if name not in ("no T2", "unknown code", "duplicate subject", "no header")
}


@pytest.mark.parametrize(("spoil", "sentence"), LOADS.values(), ids=LOADS)
def test_loading_names_the_bad_file(spoil: Callable[[Path], object], sentence: str, iseg_copy: Path) -> None:
    item = iseg.datalist(iseg_copy, "validation")[0]
    spoil(iseg_copy)
    item["image"] = [str(next(Path(path).parent.glob(f"{Path(path).stem}.[hn]*"))) for path in item["image"]]
    with pytest.raises(DataError, match=sentence):
        LoadVolumesd(["image", "label"])(item)


def test_codes_become_labels() -> None:
    codes = torch.tensor([[[0.0, 250.0], [10.0, 150.0]]])
    encoded = EncodeLabelsd("label", (0, 10, 150, 250))({"label": codes})["label"]
    assert encoded.dtype == torch.uint8
    assert encoded.tolist() == [[[0, 3], [1, 2]]]
    wrong = MetaTensor(torch.tensor([0.0, 7.0]), meta={"filename_or_obj": "subject-9-label.hdr"})
    with pytest.raises(
        DataError, match=r"subject-9-label\.hdr holds the label codes \[7\], but only \[0, 10, 150, 250\]"
    ):
        EncodeLabelsd("label", (0, 10, 150, 250))({"label": wrong})


def test_padding_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    pad = PadToSized("image", (8, 4, 4))
    with caplog.at_level(logging.WARNING):
        shapes = [pad({"image": torch.ones(1, 5, 5, 5)})["image"].shape for _ in range(2)]
    assert shapes == [(1, 8, 5, 5)] * 2
    assert [record.getMessage() for record in caplog.records] == [
        "A volume of (5, 5, 5) is smaller than the roi (8, 4, 4): it is padded with zeros."
    ]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = MetaTensor(torch.ones(1, 4, 4, 4), affine=torch.eye(4), meta={"filename_or_obj": "scan.nii.gz"})
    save = SaveImage(tmp_path, output_postfix="seg", separate_folder=False, writer=AtomicNibabelWriter)
    save(image)
    before = (tmp_path / "scan_seg.nii.gz").read_bytes()

    def disk_full(self: object, target: Path) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nibabel, "save", lambda image, target: disk_full(image, target))
    with pytest.raises(Exception, match="No space left"):
        save(image * 2)
    (kept,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert kept.name == "scan_seg.nii.gz"
    assert kept.read_bytes() == before


def test_an_existing_result_is_kept(tmp_path: Path) -> None:
    save = SaveImage(tmp_path, output_postfix="seg", separate_folder=False, writer=AtomicNibabelWriter)
    for value in (1, 2, 3):
        image = torch.full((1, 4, 4, 4), float(value))
        save(MetaTensor(image, affine=torch.eye(4), meta={"filename_or_obj": "scan.nii.gz"}))
    assert np.asarray(nibabel.load(tmp_path / "scan_seg.nii.gz").dataobj).max() == 3
    earlier = sorted(tmp_path.glob("earlier/*/scan_seg.nii.gz"))
    assert sorted(np.asarray(nibabel.load(path).dataobj).max() for path in earlier) == [1, 2]


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PSR", "AIR", "RSP"])
def test_labels_are_saved_on_scans_of_any_axis_order(axes: str, tmp_path: Path) -> None:
    """MONAI 1.6.1's writer alone fails on sagittal scans (PSR, AIR), by a resampling in two dimensions."""
    directions = nibabel.orientations.inv_ornt_aff(nibabel.orientations.axcodes2ornt(axes), (5, 6, 7))
    affine = np.diag([2.0, 3.0, 4.0, 1.0]) @ directions
    voxels = np.arange(5 * 6 * 7).reshape(1, 5, 6, 7) % 4
    labels = MetaTensor(torch.as_tensor(voxels), affine=affine, meta={"filename_or_obj": "scan.nii.gz"})
    save = SaveImage(
        tmp_path, "", ".nii.gz", np.uint8, resample=False, separate_folder=False, writer=AtomicNibabelWriter
    )
    save(labels)
    saved = nibabel.load(tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(np.asarray(saved.dataobj), voxels[0])
    np.testing.assert_allclose(saved.affine, affine)
    assert saved.get_data_dtype() == np.uint8
