"""`custom.segment`, for users of Python."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

import custom
from custom.errors import ConfigError, DataError
from custom.samples import mni152


def test_a_scan_is_a_file_an_image_or_an_array(mni152_dir: Path) -> None:
    path = mni152_dir / mni152.T1
    image = nibabel.load(path)
    of_file = custom.segment(path, device="cpu", probabilities=True)
    assert of_file.labels.shape == of_file.codes.shape == image.shape
    assert of_file.probabilities.shape == (3, *image.shape)
    assert of_file.probabilities.dtype == np.float16
    sure = of_file.probabilities.max(axis=0) > 0.9  # there, the refinement by intensities changes no label
    assert (of_file.probabilities.argmax(axis=0)[sure] + 1 == of_file.labels[sure]).mean() > 0.95
    assert set(np.unique(of_file.labels)) == {0, 1, 2, 3}
    ml = abs(np.linalg.det(image.affine[:3, :3])) / 1000
    assert of_file.volumes["GM"] == pytest.approx((of_file.labels == 2).sum() * ml, abs=0.01)
    assert 0 < of_file.confidence["scan"] < 1
    for same in (image, (np.asarray(image.dataobj), image.affine)):
        result = custom.segment(same, device="cpu")
        assert (result.labels == of_file.labels).mean() > 0.9999
        np.testing.assert_allclose(result.affine, image.affine, atol=1e-4)


def test_a_list_is_segmented_when_it_is_asked_for(mni152_dir: Path) -> None:
    results = custom.segment([mni152_dir / mni152.T1, "no_such.nii.gz"], device="cpu")
    assert next(results).volumes["GM"] > 0
    with pytest.raises(DataError, match=r"no_such\.nii\.gz"):
        next(results)


def test_what_is_no_scan() -> None:
    with pytest.raises(TypeError, match=r"A scan is a path, a nibabel image, or a tuple of an array .* got ndarray"):
        custom.segment(np.zeros((4, 4, 4)))  # type: ignore[call-overload]
    with pytest.raises(DataError, match=r"An array needs its affine \(4, 4\), voxels to mm, got \(3, 3\)"):
        custom.segment((np.zeros((4, 4, 4)), np.eye(3)), device="cpu")
    with pytest.raises(ConfigError, match="no_such_setting"):
        custom.segment("scan.nii.gz", no_such_setting=1)
