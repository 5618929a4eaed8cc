"""Numbers that describe a tumor's size, shape and place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage
from skimage.measure import marching_cubes, mesh_surface_area

REGIONS: Mapping[str, tuple[int, ...]] = {"whole": (1, 2, 3), "core": (1, 3), "enhancing": (3,), "edema": (2,)}


def tumor_features(label: np.ndarray, brain: np.ndarray, spacing: Sequence[float]) -> dict[str, float]:
    """Volumes of regions, and the shape and place of the whole tumor.

    Args:
        label: (x, y, z), 0 background, 1 NCR, 2 ED, 3 ET; axes to the right, front and top (RAS).
        brain: (x, y, z), nonzero inside the brain.
        spacing: voxel size in mm.

    Returns:
        <region>_ml of whole, core, enhancing and edema; brain_ml; surface_cm2; sphericity (1 for a ball, less for other
        shapes); extent_x_mm, extent_y_mm and extent_z_mm; elongation, 0 for a ball and 1 for a line; offset_x_mm,
        offset_y_mm and offset_z_mm of the tumor's centre from the brain's. Without a tumor all but brain_ml are 0.
    """
    size = np.asarray(spacing, dtype=float)
    ml = float(np.prod(size)) / 1000
    features = {f"{name}_ml": np.isin(label, codes).sum() * ml for name, codes in REGIONS.items()}
    features["brain_ml"] = np.count_nonzero(brain) * ml
    tumor = label > 0
    names = ["surface_cm2", "sphericity", *(f"extent_{axis}_mm" for axis in "xyz"), "elongation"]
    names += [f"offset_{axis}_mm" for axis in "xyz"]
    values = np.zeros(len(names))
    if tumor.any():
        surface = _surface_mm2(tumor, size)
        places = np.argwhere(tumor) * size
        centre = np.array(ndimage.center_of_mass(brain != 0)) * size
        extent = np.ptp(places, axis=0) + size
        sphericity = np.pi ** (1 / 3) * (6000 * features["whole_ml"]) ** (2 / 3) / surface
        values = np.array([surface / 100, sphericity, *extent, _elongation(places), *(places.mean(axis=0) - centre)])
    return features | dict(zip(names, values.tolist(), strict=True))


def _surface_mm2(tumor: np.ndarray, size: np.ndarray) -> float:
    vertices, faces, *_ = marching_cubes(np.pad(tumor, 1).astype(np.float32), 0.5, spacing=tuple(size))
    return float(mesh_surface_area(vertices, faces))


def _elongation(places: np.ndarray) -> float:
    """1 minus the shortest axis over the longest, of the ellipsoid with the places' covariance."""
    if len(places) < 2:
        return 0.0
    variances = np.linalg.eigvalsh(np.cov(places.T))
    return float(1 - np.sqrt(max(variances[0], 0) / variances[-1])) if variances[-1] > 0 else 0.0
