"""A small simulated BraTS data set, as NIfTI files: real anatomy, simulated tumors (custom.samples.tumor).

A table of survival comes with it. Its survival in days falls with the tumor's volume, and a further column,
Chance_days, is drawn by chance; so is the age.
"""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pandas

from custom.datasets.brats import CODES
from custom.errors import ConfigError
from custom.files import sample_written_whole
from custom.samples.iseg import tissue_maps
from custom.samples.tumor import patient

LABELLED, UNLABELLED = 15, 2
NAMES = {2018: "Brats18_Sample_{}_1", 2019: "BraTS19_Sample_{}_1", 2020: "BraTS20_Training_{:03d}"}
SURVIVAL = {  # the file and its columns of case, survival in days, and resection
    2018: ("survival_data.csv", "Brats18ID", "Survival", "ResectionStatus"),
    2019: ("survival_data.csv", "BraTS19ID", "Survival", "ResectionStatus"),
    2020: ("survival_info.csv", "Brats20ID", "Survival_days", "Extent_of_Resection"),
}
LOW_GRADE = 3  # every third case of 2018 and 2019
DAYS = (800.0, 13.0, 20.0)  # survival without a tumor, days lost with each ml, standard deviation of the rest


def write(folder: str | Path, spacing: int = 3, labelled: int = LABELLED, edition: int = 2020, seed: int = 0) -> Path:
    """Writes patients in the layout of one year's BraTS, two more of them without a segmentation.

    Args:
        folder: a folder that doesn't exist yet, is empty, or holds this very sample (then nothing is done).
        spacing: voxel size in mm; 3 gives 67x79x64 voxels, 1 gives 197x233x189.
        labelled: patients with a segmentation; every fifth tests.
        edition: 2018, 2019 or 2020.
        seed: of all the random draws.

    Returns:
        The folder.

    Raises:
        ConfigError: an unknown spacing or edition, or too few patients.
        DataError: the folder holds something else.
    """
    check(spacing, labelled)
    if edition not in NAMES:
        raise ConfigError(f"edition must be one of {list(NAMES)}, got {edition!r}.")
    recipe = {"sample": "brats", "spacing": spacing, "labelled": labelled, "edition": edition, "seed": seed}
    with sample_written_whole(folder, recipe) as partial:
        if partial:
            maps, voxel_size = tissue_maps(spacing)
            affine = np.diag([*voxel_size, 1.0]) @ np.diag([-1, -1, 1, 1])  # as BraTS's: x to the left, y to the back
            volumes = {}
            for number in range(1, labelled + UNLABELLED + 1):
                files = patient(maps, voxel_size, np.random.default_rng([seed, number]))
                tumor = files.pop("label")
                roles = {name.lower(): scan for name, scan in files.items()}
                name = NAMES[edition].format(number)
                if number <= labelled:
                    roles["seg"] = np.asarray(CODES, dtype=np.uint8)[tumor]
                    volumes[name] = float(np.count_nonzero(tumor) * np.prod(voxel_size) / 1000)
                case = partial / _part(edition, number, labelled) / name
                case.mkdir(parents=True)
                for role, voxels in roles.items():
                    image = nibabel.Nifti1Image(voxels[::-1, ::-1], affine)
                    nibabel.save(image, case / f"{name}_{role}.nii.gz")
            table = survival_table(volumes, edition, np.random.default_rng([seed, 0]))
            table.to_csv(partial / SURVIVAL[edition][0], index=False)
    return Path(folder).expanduser()


def _part(edition: int, number: int, labelled: int) -> str:
    """The folder of a case: of its grade, in 2018 and 2019."""
    if edition == 2020 or number > labelled:
        return ""
    return "HGG" if number % LOW_GRADE else "LGG"


def survival_table(volumes: dict[str, float], edition: int, rng: np.random.Generator) -> pandas.DataFrame:
    """A row for each case, of its tumor's volume in ml: survival falls with it, and Chance_days does not."""
    _, case, days, resection = SURVIVAL[edition]
    whole, lost, rest = DAYS
    survival = np.maximum(whole - lost * np.array([*volumes.values()]) + rng.normal(0, rest, len(volumes)), 10)
    return pandas.DataFrame(
        {
            case: [*volumes],
            "Age": np.round(rng.uniform(30, 80, len(volumes)), 3),
            days: np.rint(survival).astype(int),
            resection: "GTR",
            "Chance_days": rng.permutation(np.rint(survival).astype(int)),
        }
    )


def check(spacing: int, labelled: int) -> None:
    """Raises ConfigError for what no tumor sample can be written with."""
    if spacing not in (1, 2, 3, 4):
        raise ConfigError(f"spacing must be 1, 2, 3 or 4 mm, got {spacing!r}.")
    if labelled < 3:
        raise ConfigError(f"labelled must be 3 or more, so that some train, validate and test; got {labelled!r}.")
