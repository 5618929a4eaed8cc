"""One skull-stripped T1w brain with tissue labels: the MNI152 template, real data that comes with nilearn.

ICBM 2009a nonlinear symmetric (Fonov et al. 2011): an average of 152 young adults. The labels are GM and WM where the
template's own maps are above a half, CSF in the rest of its brain mask: no expert drew them.
"""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from custom.errors import ConfigError
from custom.files import sample_written_whole
from custom.samples.iseg import tissue_maps

LABELS = {0: "background", 1: "CSF", 2: "GM", 3: "WM"}
T1, TRUTH = "sub-mni152_T1w.nii.gz", "sub-mni152_dseg.nii.gz"


def write(folder: str | Path, spacing: int = 1) -> Path:
    """Writes sub-mni152_T1w.nii.gz and sub-mni152_dseg.nii.gz (0 background, 1 CSF, 2 GM, 3 WM).

    Args:
        folder: one that doesn't exist yet, is empty, or holds this very sample (then nothing is done).
        spacing: voxel size in mm, 1 to 4; 1 gives 197x233x189 voxels.

    Returns:
        The folder.

    Raises:
        ConfigError: an unknown spacing.
        DataError: the folder holds something else.
    """
    from nilearn import datasets

    if spacing not in (1, 2, 3, 4):
        raise ConfigError(f"spacing must be 1, 2, 3 or 4 mm, got {spacing!r}.")
    with sample_written_whole(folder, {"sample": "mni152", "spacing": spacing}) as partial:
        if partial:
            template = datasets.load_mni152_template(resolution=spacing)
            scan = np.rint(1000 * template.get_fdata(dtype=np.float32)).astype(np.int16)
            fractions, _ = tissue_maps(spacing)
            label = np.where(fractions[0] >= 0.5, 0, 1 + fractions[1:].argmax(axis=0)).astype(np.uint8)
            for name, voxels in ((T1, scan), (TRUTH, label)):
                nibabel.save(nibabel.Nifti1Image(voxels, template.affine), partial / name)
    return Path(folder).expanduser()
