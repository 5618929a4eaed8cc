"""A small simulated HCP data set: T1w scans, and a table with targets that can be seen, and one that can't.

The anatomy is that of custom.samples.iseg in adult contrast. Of the table's columns, Ventricles (large or small) widens
the lateral ventricles, Gender scales the brain (men's are larger by 4% along each axis), Strength_Unadj follows Gender
with noise, Family_ID joins every two of the first subjects, and Coin and Age_in_Yrs are drawn by chance.
"""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pandas

from custom.datasets.hcp import SPACES
from custom.errors import ConfigError
from custom.files import sample_written_whole
from custom.samples.iseg import TISSUE_MEANS, deform, resample, simulate, tissue_maps
from custom.samples.whole_numbers import is_whole_number

FIRST = 100_001  # a subject's number
VENTRICLES = ((-12.0, -15.0, 18.0), (12.0, -15.0, 18.0))  # MNI mm
REACH_MM = 20.0
WIDENED = {"small": 0.0, "large": 0.8}  # share by which voxels near a ventricle's middle look inwards
SIZE = {"F": 0.98, "M": 1.02}


def write(folder: str | Path, subjects: int = 40, spacing: int = 4, seed: int = 0) -> Path:
    """Writes subjects in HCP's layout, SUBJECT/T1w/..., and subjects.csv.

    Args:
        folder: a folder that doesn't exist yet, is empty, or holds this very sample (then nothing is done).
        subjects: 10 or more.
        spacing: voxel size in mm, 2, 3 or 4; 4 gives 50x59x48 voxels.
        seed: of all the random draws.

    Returns:
        The folder.

    Raises:
        ConfigError: another number of subjects or spacing.
        DataError: the folder holds something else.
    """
    if not is_whole_number(subjects, 10):
        raise ConfigError(f"subjects must be a whole number of 10 or more, got {subjects!r}.")
    if spacing not in (2, 3, 4):
        raise ConfigError(f"spacing must be 2, 3 or 4 mm, got {spacing!r}.")
    recipe = {"sample": "hcp", "subjects": subjects, "spacing": spacing, "seed": seed}
    with sample_written_whole(folder, recipe) as partial:
        if partial:
            table = _table(subjects, np.random.default_rng([seed, 0]))
            table.to_csv(partial / "subjects.csv", index=False)
            maps, voxel_size = tissue_maps(spacing)
            affine = _affine(spacing)
            for number, row in enumerate(table.itertuples(), start=1):
                rng = np.random.default_rng([seed, number])
                shaped = _shape(maps, affine, SIZE[row.Gender], WIDENED[row.Ventricles])
                fractions = deform(shaped, voxel_size, rng)
                scan = simulate(fractions, TISSUE_MEANS["adult"]["T1"], voxel_size, rng)
                path = partial / str(row.Subject) / SPACES["native"]
                path.parent.mkdir(parents=True)
                nibabel.save(nibabel.Nifti1Image(scan, affine), path)
    return Path(folder).expanduser()


def _table(subjects: int, rng: np.random.Generator) -> pandas.DataFrame:
    """Each two-valued column has as many of one value as of the other; none tells of another."""

    def halves(values: tuple[str, str]) -> np.ndarray:
        return rng.permutation(np.resize(values, subjects))

    gender = halves(("F", "M"))
    numbers = np.arange(subjects)
    return pandas.DataFrame(
        {
            "Subject": FIRST + numbers,
            "Gender": gender,
            "Age_in_Yrs": rng.integers(22, 37, subjects),
            "Strength_Unadj": np.round(rng.normal(np.where(gender == "M", 130, 100), 12), 1),
            "Ventricles": halves(("large", "small")),
            "Coin": halves(("heads", "tails")),
            "Family_ID": np.where(numbers < subjects // 4 * 2, 5000 + numbers // 2, 5000 + numbers),
        }
    )


def _shape(maps: np.ndarray, affine: np.ndarray, size: float, widened: float) -> np.ndarray:
    """The maps, (C, x, y, z), scaled about their middle, with ventricles widened about theirs."""
    shape = maps.shape[1:]
    grid = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float64) for n in shape), indexing="ij"))
    middle = (np.array(shape).reshape(3, 1, 1, 1) - 1) / 2
    points = middle + (grid - middle) / size
    voxel = np.abs(affine[0, 0])
    for centre in VENTRICLES:
        place = (np.linalg.inv(affine) @ (*centre, 1.0))[:3].reshape(3, 1, 1, 1)
        away = points - place
        near = np.exp(-((away**2).sum(axis=0) * voxel**2) / (2 * REACH_MM**2))
        points = place + away * (1 - widened * near)
    return resample(maps, points)


def _affine(spacing: int) -> np.ndarray:
    from nilearn import datasets

    return np.asarray(datasets.load_mni152_brain_mask(resolution=spacing).affine)
