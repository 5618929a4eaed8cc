"""Uploaded label maps that are damaged are refused with a sentence. No server is needed."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from custom.errors import DataError
from custom.serving.grids import read_values

SHAPE = (20, 24, 28)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
LABELS = np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint8)


def write(file: Path, voxels: np.ndarray = LABELS) -> Path:
    """A label map on the image's grid, by nibabel or, for .nrrd, by SimpleITK; x-packed.nrrd is compressed."""
    if file.suffix == ".nrrd":
        image = SimpleITK.GetImageFromArray(voxels.T)
        image.SetSpacing((2, 2, 2))
        image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
        SimpleITK.WriteImage(image, str(file), file.stem.endswith("packed"))
    else:
        nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), file)
    return file


@pytest.fixture
def image(tmp_path: Path) -> Path:
    nibabel.save(nibabel.Nifti1Image(np.ones(SHAPE, np.float32), AFFINE), tmp_path / "image.nii.gz")
    return tmp_path / "image.nii.gz"


FORMATS = ("label.nii", "label.nii.gz", "label.nrrd", "label-packed.nrrd", "label.bin")


@pytest.mark.parametrize("name", FORMATS)
def test_a_whole_label_map_is_read(name: str, image: Path, tmp_path: Path) -> None:
    file = tmp_path / name
    if name.endswith(".bin"):
        file.write_bytes(LABELS.tobytes(order="F"))
    else:
        write(file)
    values, affine = read_values(file, image)
    np.testing.assert_array_equal(values, LABELS)
    np.testing.assert_array_equal(affine, AFFINE)


@pytest.mark.parametrize("quarter", [1, 2, 3])
@pytest.mark.parametrize("name", FORMATS)
def test_a_label_map_cut_at_each_quarter(name: str, quarter: int, image: Path, tmp_path: Path) -> None:
    file = tmp_path / name
    content = LABELS.tobytes(order="F") if name.endswith(".bin") else write(file).read_bytes()
    file.write_bytes(content[: len(content) * quarter // 4])
    with pytest.raises(DataError, match=r"cut short|can't be read to its end|has \d+ voxels, but"):
        read_values(file, image)


def with_offset(offset: float) -> Callable[[Path], None]:
    """Writes another vox_offset into a header."""

    def spoil(file: Path) -> None:
        content = bytearray(write(file).read_bytes())
        content[108:112] = struct.pack("<f", offset)
        file.write_bytes(content)

    return spoil


def with_values(values: np.ndarray) -> Callable[[Path], None]:
    return lambda file: void(write(file, values))


def void(_: object) -> None:
    """Nothing of a value."""


WRONG = {
    "NaN": (with_values(np.where(LABELS == 3, np.nan, LABELS).astype(np.float32)), "NaN or infinite"),
    "infinite": (with_values(np.where(LABELS == 3, np.inf, LABELS).astype(np.float32)), "NaN or infinite"),
    "a fraction": (with_values(LABELS.astype(np.float32) + 0.5), "no whole number"),
    "complex": (with_values(LABELS.astype(np.complex64)), "values of the type complex64"),
    "an offset too large": (with_offset(368), "cut short"),
    "an offset behind the end": (with_offset(10**6), "cut short"),
    "an offset in the header": (with_offset(100), "cannot be read"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_label_map_of_no_labels(what: str, image: Path, tmp_path: Path) -> None:
    spoil, sentence = WRONG[what]
    spoil(tmp_path / "label.nii")
    with pytest.raises(DataError, match=sentence):
        read_values(tmp_path / "label.nii", image)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_an_offset_too_small(pack: Callable[[bytes], bytes], image: Path, tmp_path: Path) -> None:
    """The voxels begin 16 bytes later than the header says."""
    content = write(tmp_path / "label.nii").read_bytes()
    name = tmp_path / ("label.nii" if pack is bytes else "label.nii.gz")
    name.write_bytes(pack(content[:352] + bytes(16) + content[352:]))
    with pytest.raises(DataError, match="holds more than its header says"):
        read_values(name, image)
