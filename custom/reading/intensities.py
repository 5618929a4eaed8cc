"""The background of a scan: always its lowest value, as the networks expect it."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

BORDER_SHARE = 0.5  # of the voxels on the volume's six faces, which have one value where a background was set
INSIDE = 0.1  # of the range of the other values: a background higher than this above the lowest is inside it
SPECK = 64  # voxels: smaller groups of the background's value that no face touches are tissue of that value


def with_low_background(voxels: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Replaces NaN and infinite voxels, and a background whose value lies among or above those of the tissue.

    Programs that z-score a skull-stripped brain leave 0 or NaN around it, which is then as bright as average tissue.

    Args:
        voxels: (x, y, z), float32, with at least one finite value.

    Returns:
        The voxels, changed in a copy; warnings, a sentence each.
    """
    voxels, warnings = without_nan(voxels)
    background = _border_value(voxels)
    if background is None:
        return voxels, warnings
    tissue = voxels[voxels != background]
    if not tissue.size:
        return voxels, warnings
    low, high = np.percentile(tissue[:: max(1, tissue.size // 1_000_000)], [2, 98])
    if high <= low or background - low <= INSIDE * (high - low):
        return voxels, warnings
    least = float(tissue.min())
    where = "inside" if background <= tissue.max() else "above"
    warnings.append(
        f"its background ({background:.4g}) lies {where} the range of the tissue ({least:.4g} to {tissue.max():.4g}): "
        f"it counts as {least:.4g}"
    )
    return np.where(_background_mask(voxels, background), np.float32(least), voxels), warnings


def without_nan(voxels: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Replaces NaN and infinite voxels, which programs write around a brain, by the background.

    Args:
        voxels: any shape, float32, with at least one finite value.

    Returns:
        The voxels, changed in a copy: 0, or the lowest value where that is negative; warnings, a sentence each.
    """
    finite = np.isfinite(voxels)
    if finite.all():
        return voxels, []
    value = min(float(voxels[finite].min()), 0.0)
    as_what = "0" if value == 0 else f"background ({value:.4g})"
    warning = f"{int((~finite).sum())} voxels are NaN or infinite: they count as {as_what}"
    return np.where(finite, voxels, np.float32(value)), [warning]


def _border_value(voxels: np.ndarray) -> float | None:
    """The value that most voxels on the faces share; None where no value is that common."""
    faces = [np.take(voxels, side, axis=axis).ravel() for axis in range(3) for side in (0, -1)]
    values, counts = np.unique(np.concatenate(faces), return_counts=True)
    return float(values[counts.argmax()]) if counts.max() > BORDER_SHARE * counts.sum() else None


def _background_mask(voxels: np.ndarray, value: float) -> np.ndarray:
    """Groups of voxels of a value that touch a face of the volume or are large."""
    groups, number = ndimage.label(voxels == value)
    keep = np.bincount(groups.ravel(), minlength=number + 1) >= SPECK
    for axis in range(3):
        for side in (0, -1):
            keep[np.unique(np.take(groups, side, axis=axis))] = True
    keep[0] = False
    mask: np.ndarray = keep[groups]
    return mask
