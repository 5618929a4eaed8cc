"""Masks of the brain and of the inside of the skull, from labels of structures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from custom.transforms.grids import spacing_of

CLOSING_MM = 3.0
FINEST_MM = 0.7  # the closing works on voxels of this size or larger


def closed_and_filled(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The mask, with what a closing by about a ball of 3 mm adds, and without holes.

    Args:
        mask: (x, y, z), bool.
        affine: (4, 4), voxels to mm.

    Returns:
        (x, y, z), bool; at least the mask.
    """
    bounds = ndimage.find_objects(mask.astype(np.uint8))
    if not bounds:
        return mask.copy()
    box = bounds[0]
    spacing = spacing_of(affine)
    steps = [max(1, int(FINEST_MM // size)) for size in spacing]
    coarse = mask[box][tuple(slice(None, None, step) for step in steps)]
    reach = [round(CLOSING_MM / (size * step)) for size, step in zip(spacing, steps, strict=True)]
    around = [n + 1 for n in reach]
    padded = np.pad(coarse, [(n, n) for n in around])
    closed = padded | ~_grown(~_grown(padded, reach), reach)
    outside, _ = ndimage.label(~closed)
    filled = outside != outside[0, 0, 0]
    filled = filled[tuple(slice(n, -n) for n in around)]
    for axis, step in enumerate(steps):
        filled = filled.repeat(step, axis=axis).take(np.arange(mask[box].shape[axis]), axis=axis)
    result = mask.copy()
    result[box] |= filled
    return result


def _grown(mask: np.ndarray, reach: Sequence[int]) -> np.ndarray:
    """Dilation by some voxels along each axis: steps to the face neighbours, and every second one to all neighbours."""
    for step in range(max(reach)):
        grown = mask.copy()
        for axis in (axis for axis in range(3) if step < reach[axis]):
            source = np.moveaxis(grown.copy() if step % 2 else mask, axis, 0)
            target = np.moveaxis(grown, axis, 0)
            target[1:] |= source[:-1]
            target[:-1] |= source[1:]
        mask = grown
    return mask


def brain_masks(codes: np.ndarray, affine: np.ndarray, around_brain: int) -> tuple[np.ndarray, np.ndarray]:
    """The brain (grey and white matter, ventricles) and the intracranial space (fluid around the brain too).

    Args:
        codes: FreeSurfer's, (x, y, z), integers; 0 is the background.
        affine: (4, 4), voxels to mm.
        around_brain: the code of fluid around the brain.

    Returns:
        Two masks (x, y, z), bool; the second holds the first.
    """
    brain = np.ones(256, dtype=bool)
    brain[[0, around_brain]] = False
    of_brain = closed_and_filled(brain[codes], affine)
    return of_brain, closed_and_filled((codes > 0) | of_brain, affine)
