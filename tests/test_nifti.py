"""The one writer of NIfTI files."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from custom.reading.nifti import save_nifti

AFFINE = np.array([[0, -2.0, 0, 5], [2, 0, 0, 6], [0, 0, 2.5, 7], [0, 0, 0, 1]])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
@pytest.mark.parametrize("name", ["a.nii", "new/a.nii.gz"])
def test_what_is_written_is_read(name: str, dtype: type, tmp_path: Path) -> None:
    voxels = np.arange(24).reshape(2, 3, 4).astype(dtype)
    path = save_nifti(voxels, AFFINE, tmp_path / name)
    image = nibabel.load(path)
    np.testing.assert_array_equal(np.asarray(image.dataobj), voxels)
    np.testing.assert_allclose(image.affine, AFFINE)
    assert image.get_data_dtype() == dtype
    assert image.header.get_xyzt_units()[0] == "mm"
    assert bytes(image.header["descrip"]).startswith(b"Research use only, not a medical device.")
    assert [entry.name for entry in path.parent.iterdir()] == ["a.nii.gz" if "gz" in name else "a.nii"]


def test_a_slope(tmp_path: Path) -> None:
    image = nibabel.load(save_nifti(np.full((2, 2, 2), 3, np.int16), AFFINE, tmp_path / "a.nii", slope=0.5))
    assert image.get_fdata().tolist() == np.full((2, 2, 2), 1.5).tolist()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(b"old")
    with pytest.raises(Exception, match="data dtype"):
        save_nifti(np.array([[["text"]]]), AFFINE, tmp_path / "a.nii")
    assert (tmp_path / "a.nii").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1
