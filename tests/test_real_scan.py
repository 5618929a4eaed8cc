"""The shipped weights on a real scan, which comes with the tests: tests/data/epi_slab/README.md says whence."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from tests.conftest import Brainmri

SCAN = Path(__file__).parent / "data" / "epi_slab" / "epi_slab.nii.gz"


def test_a_slab_of_echo_planar_imaging(brainmri: Brainmri, tmp_path: Path) -> None:
    """Without reference labels: the scan is 0 outside the brain, and grey matter is brighter than white matter."""
    result = brainmri("segment", SCAN, "--output_dir", "out", "--figure", "False", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "it is a slab of 52.8 mm" in result.stdout
    image = nibabel.load(SCAN).get_fdata()
    written = nibabel.load(tmp_path / "out/epi_slab_seg.nii.gz")
    labels = np.asarray(written.dataobj)
    np.testing.assert_allclose(written.affine, nibabel.load(SCAN).affine, atol=1e-4)
    assert np.unique(labels).tolist() == [0, 1, 2, 3]
    brain, segmented = image > 0, labels > 0
    assert 2 * (brain & segmented).sum() / (brain.sum() + segmented.sum()) > 0.9
    assert image[labels == 2].mean() > 1.1 * image[labels == 3].mean()  # 533 and 442
