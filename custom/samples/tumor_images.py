"""A small simulated set in the layout of Kaggle's Brain Tumor MRI Dataset (custom.datasets.tumor_images).

Axial slices of custom.samples.tumor's anatomy after contrast agent, inside a skull and a scalp. A glioma is the ball of
core, rim and edema of the other samples, a meningioma an evenly bright ball at the brain's surface, a pituitary tumor a
small bright ball in the midline below the brain. Each patient gives several slices, and of every second patient in
Testing a slice lies in Training too, saved again. Results on it say that a pipeline works, nothing about patients.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from custom.datasets.tumor_images import LABELS
from custom.errors import ConfigError
from custom.files import sample_written_whole
from custom.samples.iseg import deform, simulate, tissue_maps
from custom.samples.tumor import TISSUE_MEANS, glioma
from custom.samples.whole_numbers import is_whole_number

SPACING = 3  # mm
SLICES = 4  # of each patient
SIZES = ((128, 128), (225, 225), (256, 256), (200, 240), (236, 180))  # width, height
MENINGIOMA_MM, PITUITARY_MM = (9.0, 15.0), (7.0, 10.0)  # radius
SELLA_MM = (0.0, 4.0, -28.0)  # in MNI space
SKULL_MM, SCALP_MM = 6.0, 11.0  # their outer sides, from the brain


def write(folder: str | Path, images: int = 160, seed: int = 0) -> Path:
    """Writes JPEG files of mixed sizes and qualities, grey and RGB, a fifth of the patients in Testing.

    Args:
        folder: a folder that doesn't exist yet, is empty, or holds this very sample (then nothing is done).
        images: about how many, 80 or more: as many patients of each class as make so many, four slices each.
        seed: of all the random draws.

    Returns:
        The folder.

    Raises:
        ConfigError: less than 80 images.
        DataError: the folder holds something else.
    """
    if not is_whole_number(images, 80):
        raise ConfigError(f"images must be a whole number of 80 or more, got {images!r}.")
    with sample_written_whole(folder, {"sample": "tumor_images", "images": images, "seed": seed}) as partial:
        if partial:
            maps, voxel_size = tissue_maps(SPACING)
            patients = round(images / SLICES / len(LABELS))
            for code, name in LABELS.items():
                for number in range(patients):
                    rng = np.random.default_rng([seed, code, number])
                    part = "Training" if number % 5 else "Testing"
                    for index, picture in enumerate(_patient(maps, voxel_size, name, rng)):
                        _save(picture, partial, part, name, SLICES * number + index, rng)
                    if number % 10 == 0:  # the last slice, in Training too
                        _save(picture, partial, "Training", name, SLICES * number, rng)
    return Path(folder).expanduser()


def _save(picture: np.ndarray, folder: Path, part: str, name: str, number: int, rng: np.random.Generator) -> None:
    path = folder / part / name / f"{part[:2]}-{name[:2]}_{number:04d}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(picture).resize(SIZES[rng.integers(len(SIZES))], Image.Resampling.BICUBIC)
    image.convert(rng.choice(["L", "RGB"])).save(path, quality=int(rng.integers(75, 96)))


def _patient(maps: np.ndarray, voxel_size: tuple[float, ...], name: str, rng: np.random.Generator) -> list[np.ndarray]:
    """Some axial slices where the tumor is largest, or anywhere in the brain's middle; uint8, front up, square."""
    fractions = deform(maps, voxel_size, rng)
    label = _tumor(fractions, voxel_size, name, rng)
    tissues = np.concatenate([fractions * (label == 0), [label == code for code in (1, 2, 3)]])
    scan = simulate(tissues, TISSUE_MEANS["T1ce"], voxel_size, rng)
    area = (label > 0).sum(axis=(0, 1)) if label.any() else (fractions[2:].sum(axis=0) > 0.5).sum(axis=(0, 1))
    rows = np.flatnonzero(area > 0.5 * area.max())
    chosen = rows[np.linspace(0, len(rows) - 1, SLICES).round().astype(int)]
    brain = ndimage.binary_fill_holes(fractions[0] < 0.5)
    return [_picture(scan[..., z], brain[..., z] | (label[..., z] > 0), voxel_size[0], rng) for z in chosen]


def _tumor(fractions: np.ndarray, voxel_size: tuple[float, ...], name: str, rng: np.random.Generator) -> np.ndarray:
    """Labels of custom.samples.tumor: 3 is what takes up contrast agent."""
    label = np.zeros(fractions.shape[1:], dtype=np.uint8)
    if name == "notumor":
        return label
    if name == "glioma":
        return glioma(fractions, voxel_size, rng)
    brain = fractions[0] < 0.5
    if name == "meningioma":
        surface = np.argwhere(brain & ~ndimage.binary_erosion(brain))
        upper = surface[surface[:, 2] > np.quantile(surface[:, 2], 0.5)]
        centre, radius = upper[rng.integers(len(upper))], rng.uniform(*MENINGIOMA_MM)
    else:
        from nilearn import datasets

        affine = datasets.load_mni152_brain_mask(resolution=SPACING).affine
        centre = (np.linalg.inv(affine) @ (*SELLA_MM, 1.0))[:3] + rng.normal(0, 0.5, 3)
        radius = rng.uniform(*PITUITARY_MM)
    grid = np.indices(label.shape, dtype=np.float32)
    offset = (grid - np.asarray(centre)[:, None, None, None]) * np.asarray(voxel_size)[:, None, None, None]
    label[np.linalg.norm(offset, axis=0) < radius] = 3
    return label


def _picture(scan: np.ndarray, head: np.ndarray, voxel: float, rng: np.random.Generator) -> np.ndarray:
    margin = int(SCALP_MM / voxel) + int(rng.integers(3, 10))
    size = max(scan.shape) + 2 * margin
    pads = [((size - n) // 2, size - n - (size - n) // 2) for n in scan.shape]
    scan, head = np.pad(scan, pads).astype(np.float32) / 1000, np.pad(head, pads)
    away = ndimage.distance_transform_edt(~head) * voxel
    around = np.where((away > SKULL_MM) & (away <= SCALP_MM), 0.7, 0.12 * (away <= SCALP_MM))
    noisy = np.abs(around + rng.normal(0, 0.02, scan.shape))
    values = np.where(head, scan, noisy)
    return (255 * np.clip(values / 1.2, 0, 1)).astype(np.uint8).T[::-1, ::-1]
