"""A small simulated MRBrainS data set: the anatomy of custom.samples.iseg in three contrasts, with its codes.

Cortex and basal ganglia, and CSF outside the brain and ventricles, are told apart by their distance from the brain's
surface; cerebellum and brain stem are what lies low and to the back. Unlike MRBrainS's scans, these are skull-stripped.
"""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

from custom.errors import ConfigError
from custom.files import sample_written_whole
from custom.samples.iseg import TISSUE_MEANS, deform, simulate, tissue_maps

# Mean intensities of CSF, GM and WM, relative to the brightest.
MEANS = {
    "T1": TISSUE_MEANS["adult"]["T1"],
    "T1-IR": (0.10, 0.45, 1.00),
    "FLAIR": (0.15, 1.00, 0.80),
}
FILES = {
    "2013": {"T1": "T1.nii", "T1-IR": "T1_IR.nii", "FLAIR": "T2_FLAIR.nii", "label": "LabelsForTraining.nii"},
    "2018": {
        "T1": "pre/reg_T1.nii.gz",
        "T1-IR": "pre/reg_IR.nii.gz",
        "FLAIR": "pre/FLAIR.nii.gz",
        "label": "segm.nii.gz",
    },
}
LABELLED = {"2013": ("1", "2", "3", "4", "5"), "2018": ("1", "4", "5", "7", "14", "070", "148")}
UNLABELLED = {"2013": ("6", "7"), "2018": ("2", "3")}
PARTS = {"2013": ("TrainingData", "TestData"), "2018": ("training", "test")}
DEEP_MM = 22.0  # from the brain's surface


def write(folder: str | Path, edition: int = 2018, spacing: int = 3, seed: int = 0) -> Path:
    """Writes the labelled subjects of one edition, and two without labels, in its layout.

    Args:
        folder: a folder that doesn't exist yet, is empty, or holds this very sample (then nothing is done).
        edition: 2013 or 2018.
        spacing: voxel size in mm, 1 to 4; 3 gives 66x78x63 voxels.
        seed: of all the random draws.

    Returns:
        The folder.

    Raises:
        ConfigError: an unknown edition or spacing.
        DataError: the folder holds something else.
    """
    if edition not in (2013, 2018):
        raise ConfigError(f"edition must be 2013 or 2018, got {edition!r}.")
    if spacing not in (1, 2, 3, 4):
        raise ConfigError(f"spacing must be 1, 2, 3 or 4 mm, got {spacing!r}.")
    year = str(edition)
    recipe = {"sample": "mrbrains", "edition": edition, "spacing": spacing, "seed": seed}
    with sample_written_whole(folder, recipe) as partial:
        if partial:
            maps, voxel_size = tissue_maps(spacing)
            affine = np.diag([*voxel_size, 1.0])
            subjects = [(PARTS[year][0], name) for name in LABELLED[year]]
            subjects += [(PARTS[year][1], name) for name in UNLABELLED[year]]
            for number, (part, name) in enumerate(subjects, start=1):
                rng = np.random.default_rng([seed, number])
                fractions = deform(maps, voxel_size, rng)
                files = {role: simulate(fractions, means, voxel_size, rng) for role, means in MEANS.items()}
                if part == PARTS[year][0]:
                    files["label"] = _codes(fractions, voxel_size)
                for role, voxels in files.items():
                    path = partial / part / name / FILES[year][role]
                    path.parent.mkdir(parents=True, exist_ok=True)
                    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return Path(folder).expanduser()


def _codes(fractions: np.ndarray, voxel_size: tuple[float, ...]) -> np.ndarray:
    """MRBrainS's codes 0 to 8, uint8 (x, y, z), of fractions of background, CSF, GM and WM (4, x, y, z)."""
    tissue = fractions.argmax(axis=0)
    depth = ndimage.distance_transform_edt(tissue > 0, sampling=voxel_size)
    codes = np.select([tissue == 1, tissue == 2, tissue == 3], [5, 1, 3]).astype(np.uint8)
    codes[(tissue == 1) & (depth > DEEP_MM)] = 6
    codes[(tissue == 2) & (depth > DEEP_MM)] = 2
    y, z = (np.linspace(0, 1, size) for size in tissue.shape[1:])
    low = (y < 0.45)[:, None] & (z < 0.3)[None, :]
    codes[low & (tissue > 1)] = 7
    codes[((y > 0.45) & (y < 0.52))[:, None] & (z < 0.3)[None, :] & (tissue == 3)] = 8
    return codes
