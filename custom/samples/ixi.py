"""A small simulated IXI data set: the anatomy of custom.samples.iseg in three contrasts, T1 on a grid of its own.

Unlike IXI's scans, these are skull-stripped. The last subject lacks its PD scan, as some of IXI's do.
"""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from custom.errors import ConfigError
from custom.files import sample_written_whole
from custom.samples.iseg import TISSUE_MEANS, deform, simulate, tissue_maps
from custom.samples.whole_numbers import is_whole_number

MEANS = TISSUE_MEANS["adult"] | {"PD": (1.00, 0.90, 0.75)}  # of CSF, GM and WM, relative to the brightest
HOSPITALS = ("Guys", "HH", "IOP")


def write(folder: str | Path, subjects: int = 10, spacing: int = 4, seed: int = 0) -> Path:
    """Writes subjects in IXI's layout: IXI-T1/IXI001-Guys-0101-T1.nii.gz, IXI-T2/..., IXI-PD/...

    Args:
        folder: a folder that doesn't exist yet, is empty, or holds this very sample (then nothing is done).
        subjects: 3 or more.
        spacing: voxel size in mm, 1 to 4; 4 gives 50x59x48 voxels.
        seed: of all the random draws.

    Returns:
        The folder.

    Raises:
        ConfigError: another number of subjects or spacing.
        DataError: the folder holds something else.
    """
    if not is_whole_number(subjects, 3):
        raise ConfigError(f"subjects must be a whole number of 3 or more, got {subjects!r}.")
    if spacing not in (1, 2, 3, 4):
        raise ConfigError(f"spacing must be 1, 2, 3 or 4 mm, got {spacing!r}.")
    with sample_written_whole(
        folder, {"sample": "ixi", "subjects": subjects, "spacing": spacing, "seed": seed}
    ) as partial:
        if partial:
            maps, voxel_size = tissue_maps(spacing)
            affine = np.diag([*voxel_size, 1.0])
            sagittal = affine[:, [1, 2, 0, 3]]  # of the axes y, z, x
            for number in range(1, subjects + 1):
                rng = np.random.default_rng([seed, number])
                fractions = deform(maps, voxel_size, rng)
                name = f"IXI{number:03d}-{HOSPITALS[number % 3]}-{100 + number:04d}"
                for contrast, means in MEANS.items():
                    scan = simulate(fractions, means, voxel_size, rng)
                    if contrast == "PD" and number == subjects:
                        continue
                    image = (scan.transpose(1, 2, 0), sagittal) if contrast == "T1" else (scan, affine)
                    (partial / f"IXI-{contrast}").mkdir(exist_ok=True)
                    nibabel.save(nibabel.Nifti1Image(*image), partial / f"IXI-{contrast}" / f"{name}-{contrast}.nii.gz")
    return Path(folder).expanduser()
