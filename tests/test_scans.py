"""Scans in every format: what is read, what is refused and what is said about them."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK

from custom.errors import DataError, MissingDataError
from custom.reading.scans import datalist, find_scans, read_scan, stem

SHAPE = (50, 60, 40)
VOXELS = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE) % 977
OBLIQUE = np.array([[-1.2, 0.1, 0, 30], [0.1, 1.2, 0, -35], [0, 0, 2, -40], [0, 0, 0, 1]])
PLAIN = np.diag([1.0, 1.0, 1.5, 1.0])


def save_nifti(path: Path, voxels: np.ndarray = VOXELS, affine: np.ndarray | None = PLAIN) -> Path:
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path


def save_dicom(
    folder: Path, voxels: np.ndarray = VOXELS, modality: str = "MR", series: str = "1.2.3", without: tuple = ()
) -> Path:
    """One file a slice, slices of 2 mm upwards from z = -30 mm, x to the left and y to the back."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in set(range(voxels.shape[2])) - set(without):
        image = SimpleITK.GetImageFromArray(voxels[:, :, k].T[None])
        image.SetSpacing((1.0, 1.0, 2.0))
        image.SetOrigin((-40.0, -50.0, -30.0 + 2 * k))
        tags = {"0008|0060": modality, "0020|000e": series, "0008|0018": f"{series}.{k + 1}", "0020|0013": str(k + 1)}
        tags |= {"0020|0032": f"-40\\-50\\{-30 + 2 * k}", "0020|0037": "1\\0\\0\\0\\1\\0", "0018|0050": "2"}
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer = SimpleITK.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{series}-{k:03d}.dcm"))
        writer.Execute(image)
    return folder


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mgz"])
def test_nibabels_formats(name: str, tmp_path: Path) -> None:
    kind = nibabel.MGHImage if name.endswith("mgz") else nibabel.Nifti1Image
    nibabel.save(kind(VOXELS, OBLIQUE), tmp_path / name)
    voxels, affine, warnings = read_scan(tmp_path / name)
    np.testing.assert_array_equal(voxels, VOXELS)
    assert voxels.dtype == np.float32
    np.testing.assert_allclose(affine, OBLIQUE, atol=1e-5)
    assert warnings == []
    assert stem(name) == "a"


def test_nrrd_is_left_posterior_and_comes_out_right_anterior(tmp_path: Path) -> None:
    image = SimpleITK.GetImageFromArray(VOXELS.T)
    image.SetSpacing((1.0, 1.0, 2.0))
    image.SetOrigin((10.0, 20.0, 30.0))
    SimpleITK.WriteImage(image, str(tmp_path / "a.nrrd"))
    voxels, affine, warnings = read_scan(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(voxels, VOXELS)
    np.testing.assert_allclose(affine, [[-1, 0, 0, -10], [0, -1, 0, -20], [0, 0, 2, 30], [0, 0, 0, 1]])
    assert warnings == []


def test_dicom_series(tmp_path: Path) -> None:
    voxels, affine, warnings = read_scan(save_dicom(tmp_path / "series"))
    np.testing.assert_array_equal(voxels, VOXELS)
    np.testing.assert_allclose(affine, [[-1, 0, 0, 40], [0, -1, 0, 50], [0, 0, 2, -30], [0, 0, 0, 1]])
    assert warnings == []


def two_series(folder: Path) -> Path:
    save_dicom(folder)
    return save_dicom(folder, series="1.2.4")


def cut(path: Path, size: int) -> Path:
    path.write_bytes(path.read_bytes()[:size])
    return path


def huge_header(path: Path) -> Path:
    header = nibabel.Nifti1Header()
    header.set_data_shape((20000, 20000, 20000))
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    with gzip.open(path, "wb") as file:
        file.write(header.binaryblock + b"\0" * 2000)
    return path


def colour_nrrd(path: Path) -> Path:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.zeros((40, 40, 40, 3), np.uint8), isVector=True), str(path))
    return path


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "4D": (
        lambda p: save_nifti(p / "a.nii.gz", np.stack([VOXELS] * 2, -1)),
        r"series of volumes \(50x60x40x2\)\. Save",
    ),
    "2D": (lambda p: save_nifti(p / "a.nii.gz", VOXELS[..., :1]), r"is a slice, not a volume \(50x60x1\)\. Give"),
    "colour": (
        lambda p: save_nifti(p / "a.nii.gz", np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])),
        r"a\.nii\.gz is a colour image\. Give the scan",
    ),
    "CT by its values": (
        lambda p: save_nifti(p / "a.nii.gz", np.where(VOXELS % 2, -1000, VOXELS).astype(np.int16)),
        r"looks like CT \(air at -1000 HU\)\. This network works on MR scans only",
    ),
    "CT by its header": (
        lambda p: save_dicom(p / "ct", modality="CT"),
        r"ct is CT, not MR\. This network works on MR scans only",
    ),
    "two series": (
        lambda p: two_series(p / "two"),
        r"holds 2 DICOM series \(.*-000\.dcm and 39 more, .*\)\. Give each a",
    ),
    "colour NRRD": (lambda p: colour_nrrd(p / "a.nrrd"), r"a\.nrrd has 3 values a voxel, as colour and diffusion"),
    "no DICOM": (
        lambda p: (p / "x.dcm").write_text("no") and p / "x.dcm",
        r"x\.dcm is a text \('no'\.\.\.\) and no scan\. Download or copy",
    ),
    "constant": (lambda p: save_nifti(p / "a.nii.gz", np.full(SHAPE, 7, np.int16)), r"holds the value 7 everywhere"),
    "empty": (lambda p: save_nifti(p / "a.nii.gz", np.zeros(SHAPE, np.int16)), r"holds the value 0 everywhere"),
    "no extent": (
        lambda p: save_nifti(p / "a.nii.gz", affine=np.diag([0.001, 0.001, 0.001, 1])),
        r"spans 0\.05 x 0\.06 x 0\.04 mm, which no scan of a head does\. Correct the voxel sizes",
    ),
    "enormous": (
        lambda p: save_nifti(p / "a.nii.gz", affine=np.diag([20.0, 20, 20, 1])),
        r"spans 1000 x 1200 x 800 mm",
    ),
    "cut short": (lambda p: cut(save_nifti(p / "a.nii"), 9000), r"a\.nii is cut short \(9000 of 240352 bytes\)"),
    "cut short, packed": (lambda p: cut(save_nifti(p / "a.nii.gz"), 900), r"a\.nii\.gz can't be read to its end"),
    "huge header": (
        lambda p: huge_header(p / "a.nii.gz"),
        r"a\.nii\.gz is cut short \(\d+ of \d{14} bytes\)\. Copy it",
    ),
    "no scan": (
        lambda p: (p / "a.nii").write_text("x" * 500) and p / "a.nii",
        r"a\.nii is a text \('x{40}'\.\.\.\) and no scan\. Download",
    ),
    "nothing": (lambda p: p / "a.nii.gz", r"a\.nii\.gz does not exist"),
}


@pytest.mark.parametrize(("make", "sentence"), BAD.values(), ids=BAD)
def test_refused(make: Callable[[Path], Path], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=sentence) as refused:
        read_scan(make(tmp_path))
    assert "\n" not in str(refused.value)


def sheared(path: Path) -> Path:
    affine = PLAIN.copy()
    affine[0, 1] = 0.3
    return save_nifti(path / "a.nii.gz", affine=affine)


def without_orientation(path: Path) -> Path:
    image = nibabel.Nifti1Image(VOXELS, None)
    image.header.set_zooms((1, 1, 1.5))
    nibabel.save(image, path / "a.nii.gz")
    return path / "a.nii.gz"


def with_nan(path: Path) -> Path:
    voxels = VOXELS.astype(np.float32)
    voxels[0, 0, :3] = np.nan
    return save_nifti(path / "a.nii.gz", voxels)


ODD = {
    "no orientation": (
        without_orientation,
        "its header has no orientation: x is taken as right to left, y as back to front, z as bottom to top",
    ),
    "shear": (sheared, "its axes aren't at right angles"),
    "thick slices": (
        lambda p: save_nifti(p / "a.nii.gz", affine=np.diag([1.0, 1, 5, 1])),
        "its voxels are up to 5 mm long",
    ),
    "NaN": (with_nan, "3 voxels are NaN or infinite: they count as 0"),
    "missing slices": (lambda p: save_dicom(p / "gap", without=(20, 21)), "its slices are unevenly spaced"),
}


@pytest.mark.parametrize(("make", "sentence"), ODD.values(), ids=ODD)
def test_read_with_a_warning(make: Callable[[Path], Path], sentence: str, tmp_path: Path) -> None:
    voxels, _, warnings = read_scan(make(tmp_path))
    assert np.isfinite(voxels).all()
    assert len(warnings) == 1
    assert warnings[0].startswith(sentence)


def test_a_last_axis_of_one_is_no_series(tmp_path: Path) -> None:
    assert read_scan(save_nifti(tmp_path / "a.nii.gz", VOXELS[..., None]))[0].shape == SHAPE


def test_what_a_folder_holds(tmp_path: Path) -> None:
    """Scans in natural order; no segmentations, functional series, derivatives, hidden files or earlier results."""
    names = ["sub-10/anat/sub-10_T1w.nii.gz", "sub-2/anat/sub-2_FLAIR.nii.gz", "sub-2/anat/sub-2_T1w.nii.gz", "x.mgz"]
    others = ["sub-2/func/sub-2_task-rest_bold.nii.gz", "sub-2/anat/sub-2_dseg.nii.gz", "x_seg.nii.gz", "._x.mgz"]
    others += ["derivatives/sub-2_T1w.nii.gz", "results/x.nii.gz", "notes.pdf"]
    for name in names + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    save_dicom(tmp_path / "series", VOXELS[..., :2])
    shutil.copy(next((tmp_path / "series").iterdir()), tmp_path / "DICOMDIR")
    found = find_scans(tmp_path, without=tmp_path / "results")
    assert [str(inside) for _, inside in found] == ["x.mgz", "series", names[2 - 1], names[2], names[0]]
    assert all(path == tmp_path / inside for path, inside in found)


def test_a_list_and_a_scan_twice(tmp_path: Path) -> None:
    save_nifti(tmp_path / "a.nii.gz")
    save_nifti(tmp_path / "b.nii.gz")
    (tmp_path / "list.txt").write_text("b.nii.gz\n\na.nii.gz\n")
    found = find_scans(tmp_path / "list.txt", tmp_path / "a.nii.gz")
    assert [path.name for path, _ in found] == ["b.nii.gz", "a.nii.gz"]
    assert datalist(tmp_path / "a.nii.gz") == [{"image": str(tmp_path / "a.nii.gz")}]


def test_no_scan_there(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"There is no scan or folder .*nowhere\. Correct the path"):
        find_scans(tmp_path / "nowhere")
    with pytest.raises(MissingDataError, match=r"has no scan\. Give a NIfTI, \.mgz or NRRD file, or a folder of DICOM"):
        find_scans(tmp_path)


def test_a_list_names_the_line_that_is_wrong(tmp_path: Path) -> None:
    save_nifti(tmp_path / "a.nii.gz")
    (tmp_path / "list.txt").write_text("a.nii.gz\n\ngone.nii.gz\n")
    sentence = r"list\.txt, line 3: There is no scan or folder .*gone\.nii\.gz\. Correct the path\."
    with pytest.raises(MissingDataError, match=sentence):
        find_scans(tmp_path / "list.txt")
