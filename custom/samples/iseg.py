"""A small simulated iSeg data set: real anatomy, simulated contrast.

The anatomy is the MNI152 template (ICBM 2009a nonlinear symmetric, Fonov et al. 2011) with its grey and white
matter maps as nilearn carries them, varied by a smooth random deformation per subject. The contrast is simulated:
mixed tissue means, a slow variation inside each tissue, a bias field and Rician noise. All subjects share one
template's anatomy, so results on this set say that a pipeline works, nothing about infants.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
from scipy import interpolate, ndimage

from custom.datasets.iseg import CODES
from custom.errors import ConfigError
from custom.files import sample_written_whole

# Mean intensities of CSF, GM and WM, relative to the brightest tissue of a scan. At six months grey and white
# matter are nearly isointense (Wang et al. 2019): here they differ by less than two deviations of the noise.
TISSUE_MEANS = {
    "infant": {"T1": (0.40, 1.00, 0.925), "T2": (1.00, 0.62, 0.695)},
    "adult": {"T1": (0.30, 0.70, 1.00), "T2": (1.00, 0.60, 0.45)},
}
NOISE = (0.04, 0.06)  # deviation of the noise, a fraction of the brightest tissue
BIAS = (0.10, 0.30)  # greatest deviation of the bias field from 1
DEFORMATION_MM = 3.0  # deviation of the displacement along each axis
DEFORMATION_SCALE_MM = 30.0
LABELLED, UNLABELLED = 10, 3


def write(folder: str | Path, spacing: int = 2, contrast: str = "infant", seed: int = 0) -> Path:
    """Writes thirteen subjects in iSeg-2017's layout, ten of them with labels.

    Args:
        folder: a folder that doesn't exist yet, is empty, or holds this very sample (then nothing is done).
        spacing: voxel size in mm; 2 gives 99x117x95 voxels, 1 gives 197x233x189.
        contrast: "infant" (six months) or "adult".
        seed: of all the random draws.

    Returns:
        The folder.

    Raises:
        ConfigError: an unknown contrast or spacing.
        DataError: the folder holds something else.
    """
    if contrast not in TISSUE_MEANS:
        raise ConfigError(f"contrast must be one of {list(TISSUE_MEANS)}, got {contrast!r}.")
    if spacing not in (1, 2, 3, 4):
        raise ConfigError(f"spacing must be 1, 2, 3 or 4 mm, got {spacing!r}.")
    recipe = {"sample": "iseg", "spacing": spacing, "contrast": contrast, "seed": seed}
    with sample_written_whole(folder, recipe) as partial:
        if partial:
            maps, voxel_size = tissue_maps(spacing)
            for number in range(1, LABELLED + UNLABELLED + 1):
                files = subject(maps, voxel_size, contrast, np.random.default_rng([seed, number]))
                if number > LABELLED:
                    del files["label"]
                for role, voxels in files.items():
                    image = nibabel.AnalyzeImage(voxels[..., None], affine=None)
                    image.header.set_zooms((*voxel_size, 1.0))
                    nibabel.save(image, partial / f"subject-{number}-{role}.hdr")
    return Path(folder).expanduser()


def tissue_maps(spacing: int) -> tuple[np.ndarray, tuple[float, ...]]:
    """Fractions of background, CSF, GM and WM, (4, x, y, z), and the voxel size in mm."""
    from nilearn import datasets

    brain = datasets.load_mni152_brain_mask(resolution=spacing)
    grey, white = (
        np.clip(load(resolution=spacing).get_fdata(dtype=np.float32), 0, 1)
        for load in (datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    )
    mask = np.asarray(brain.dataobj, dtype=np.float32)
    grey, white = grey * mask, white * mask
    fluid = np.clip(mask - grey - white, 0, 1)
    fractions = np.stack([1 - mask, fluid, grey, white])
    return fractions / fractions.sum(axis=0), tuple(float(size) for size in brain.header.get_zooms())


def subject(
    maps: np.ndarray, voxel_size: tuple[float, ...], contrast: str, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """One simulated participant: {"T1": int16, "T2": int16, "label": uint8 codes}, each (x, y, z)."""
    fractions = deform(maps, voxel_size, rng)
    label = fractions.argmax(axis=0)
    files = {name: simulate(fractions, means, voxel_size, rng) for name, means in TISSUE_MEANS[contrast].items()}
    return files | {"label": np.asarray(CODES, dtype=np.uint8)[label]}


def deform(maps: np.ndarray, voxel_size: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    """The maps, (C, x, y, z), moved by a smooth random field of some mm."""
    shape = maps.shape[1:]
    grid = np.meshgrid(*(np.arange(size, dtype=np.float32) for size in shape), indexing="ij")
    points = [
        axis + DEFORMATION_MM / size * smooth_noise(shape, voxel_size, DEFORMATION_SCALE_MM, rng)
        for axis, size in zip(grid, voxel_size, strict=True)
    ]
    return resample(maps, points)


def resample(maps: np.ndarray, points: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """The maps, (C, x, y, z), read at three arrays of voxel coordinates; fractions that sum to 1 again."""
    moved = np.stack([ndimage.map_coordinates(fractions, points, order=1, mode="nearest") for fractions in maps])
    return np.asarray(moved / moved.sum(axis=0))


def simulate(
    fractions: np.ndarray, means: tuple[float, ...], voxel_size: tuple[float, ...], rng: np.random.Generator
) -> np.ndarray:
    """One contrast, int16 (x, y, z), of fractions (C, x, y, z), the background's first, and the others' means."""
    shape = fractions.shape[1:]
    signal = np.zeros(shape, dtype=np.float32)
    for fraction, mean in zip(fractions[1:], means, strict=True):
        signal += fraction * mean * (1 + 0.02 * smooth_noise(shape, voxel_size, 20.0, rng))
    field = smooth_noise(shape, voxel_size, 60.0, rng)
    signal *= 1 + rng.uniform(*BIAS) * field / np.abs(field).max()
    std = rng.uniform(*NOISE) * max(means)
    real, imaginary = std * rng.standard_normal((2, *shape), dtype=np.float32)
    scan = np.hypot(signal + real, imaginary) * (fractions.argmax(axis=0) > 0)  # skull-stripped, as iSeg's are
    return np.asarray(np.rint(1000 * scan), dtype=np.int16)


def smooth_noise(
    shape: tuple[int, ...], voxel_size: tuple[float, ...], scale_mm: float, rng: np.random.Generator
) -> np.ndarray:
    """A random field of mean 0 and standard deviation 1 that varies over about `scale_mm`."""
    field = rng.standard_normal(
        [int(np.ceil(n * size / scale_mm)) + 3 for n, size in zip(shape, voxel_size, strict=True)]
    )
    for axis, (n, size) in enumerate(zip(shape, voxel_size, strict=True)):
        spline = interpolate.CubicSpline(np.arange(field.shape[axis]), field, axis=axis)
        field = spline(1 + np.arange(n) * size / scale_mm).astype(np.float32)
    return np.asarray((field - field.mean()) / field.std())
