"""The one place that writes NIfTI files from arrays."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt

import custom
from custom.files import written_whole


def save_nifti(
    voxels: npt.NDArray[np.generic], affine: npt.NDArray[np.floating], path: str | Path, slope: float | None = None
) -> Path:
    """Writes a volume as NIfTI, whole or not at all. Its header says mm, and that it is for research use only.

    Args:
        voxels: (x, y, z) or (x, y, z, C), of a type that NIfTI has; stored as they are.
        affine: (4, 4), voxels to mm, RAS+.
        path: ends in .nii or .nii.gz. Several processes may write one path.
        slope: a stored value times this is the value that readers get; None for 1.

    Returns:
        The path.
    """
    image = nibabel.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = custom.RESEARCH_USE_ONLY.encode()
    if slope is not None:
        image.header.set_slope_inter(slope, 0)
    with written_whole(path) as partial:
        nibabel.save(image, partial)
    return Path(path)
