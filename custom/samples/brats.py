"""A small simulated BraTS data set, as NIfTI files: real anatomy, simulated tumors (custom.samples.tumor)."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from custom.datasets.brats import CODES
from custom.errors import ConfigError
from custom.files import sample_written_whole
from custom.samples.iseg import tissue_maps
from custom.samples.tumor import patient

LABELLED, UNLABELLED = 15, 2


def write(folder: str | Path, spacing: int = 3, labelled: int = LABELLED, seed: int = 0) -> Path:
    """Writes patients in BraTS 2020's layout, two more of them without a segmentation.

    Args:
        folder: a folder that doesn't exist yet, is empty, or holds this very sample (then nothing is done).
        spacing: voxel size in mm; 3 gives 67x79x64 voxels, 1 gives 197x233x189.
        labelled: patients with a segmentation; every fifth tests.
        seed: of all the random draws.

    Returns:
        The folder.

    Raises:
        ConfigError: an unknown spacing, or too few patients.
        DataError: the folder holds something else.
    """
    check(spacing, labelled)
    recipe = {"sample": "brats", "spacing": spacing, "labelled": labelled, "seed": seed}
    with sample_written_whole(folder, recipe) as partial:
        if partial:
            maps, voxel_size = tissue_maps(spacing)
            affine = np.diag([*voxel_size, 1.0]) @ np.diag([-1, -1, 1, 1])  # as BraTS's: x to the left, y to the back
            for number in range(1, labelled + UNLABELLED + 1):
                files = patient(maps, voxel_size, np.random.default_rng([seed, number]))
                label = np.asarray(CODES, dtype=np.uint8)[files.pop("label")]
                roles = {name.lower(): scan for name, scan in files.items()}
                roles |= {"seg": label} if number <= labelled else {}
                name = f"BraTS20_Training_{number:03d}"
                (partial / name).mkdir()
                for role, voxels in roles.items():
                    image = nibabel.Nifti1Image(voxels[::-1, ::-1], affine)
                    nibabel.save(image, partial / name / f"{name}_{role}.nii.gz")
    return Path(folder).expanduser()


def check(spacing: int, labelled: int) -> None:
    """Raises ConfigError for what no tumor sample can be written with."""
    if spacing not in (1, 2, 3, 4):
        raise ConfigError(f"spacing must be 1, 2, 3 or 4 mm, got {spacing!r}.")
    if labelled < 3:
        raise ConfigError(f"labelled must be 3 or more, so that some train, validate and test; got {labelled!r}.")
