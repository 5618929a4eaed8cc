"""One simulated patient: the MNI152 anatomy with a tumor of nested edema, enhancing rim and core, in four contrasts.

The anatomy and its variation are those of custom.samples.iseg. The tumor is a ball whose radius varies smoothly with
direction, inside white and grey matter; edema keeps to white matter, as it does in life. Contrasts are simulated from
tissue means after the textbook order of brightness. Results on it say that a pipeline works, nothing about patients.
"""

from __future__ import annotations

import numpy as np

from custom.datasets.brats import CHANNELS
from custom.samples.iseg import deform, simulate, smooth_noise

# Mean intensities of CSF, GM, WM, NCR, ED and ET, relative to the brightest.
TISSUE_MEANS = {
    "FLAIR": (0.15, 0.60, 0.50, 0.55, 1.00, 0.80),
    "T1": (0.25, 0.65, 1.00, 0.40, 0.60, 0.60),
    "T1ce": (0.25, 0.60, 0.80, 0.35, 0.55, 1.00),
    "T2": (1.00, 0.60, 0.45, 0.85, 0.85, 0.65),
}
CORE_MM = (9.0, 16.0)  # radius of core and rim together
RIM_MM = (3.0, 5.0)
EDEMA_MM = (6.0, 14.0)  # how far edema reaches beyond
WOBBLE = 0.15  # deviation of the radius, a fraction


def patient(maps: np.ndarray, voxel_size: tuple[float, ...], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Four contrasts and the labels of custom.datasets.brats, all (x, y, z).

    Args:
        maps: fractions of background, CSF, GM and WM (4, x, y, z), of custom.samples.iseg.tissue_maps.
        voxel_size: in mm.
        rng: all the random draws.

    Returns:
        {"FLAIR": int16, "T1": int16, "T1ce": int16, "T2": int16, "label": uint8 0 to 3}
    """
    fractions = deform(maps, voxel_size, rng)
    label = glioma(fractions, voxel_size, rng)
    healthy = fractions[1:] * (label == 0)
    tissues = np.concatenate([fractions[:1] * (label == 0), healthy, [label == code for code in (1, 2, 3)]])
    scans = {name: simulate(tissues, TISSUE_MEANS[name], voxel_size, rng) for name in CHANNELS}
    return scans | {"label": label}


def glioma(fractions: np.ndarray, voxel_size: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    """Labels of one tumor, uint8 0 to 3 (x, y, z): core 1 inside a rim 3 inside edema 2."""
    brain = fractions[2:].sum(axis=0) > 0.5
    places = np.argwhere(brain)
    middle = places.mean(axis=0)
    half = np.abs(places - middle).max(axis=0)
    inner = places[(np.abs(places - middle) < 0.6 * half).all(axis=1)]
    centre = inner[rng.integers(len(inner))]
    grid = np.indices(brain.shape, dtype=np.float32)
    offset = (grid - centre[:, None, None, None]) * np.asarray(voxel_size, dtype=np.float32)[:, None, None, None]
    distance = np.linalg.norm(offset, axis=0) / (1 + WOBBLE * smooth_noise(brain.shape, voxel_size, 15.0, rng))
    core, rim, edema = rng.uniform(*CORE_MM), rng.uniform(*RIM_MM), rng.uniform(*EDEMA_MM)
    white = fractions[3] > 0.4
    label = np.zeros(brain.shape, dtype=np.uint8)
    label[(distance < core + edema) & white] = 2
    label[(distance < core) & brain] = 3
    label[(distance < core - rim) & brain] = 1
    return label
