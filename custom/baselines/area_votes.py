"""Areas of the cortex from a few segmented people: their label maps are registered to another one, and they vote.

No intensities are used, so it works for any contrast, and for label maps without an image. The registration makes
groups of structures overlap: an affine start from the centres of structures, then a field of displacements on a grid
of knots, optimised with Adam at two resolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import ndimage
from torch.nn.functional import avg_pool3d, grid_sample, interpolate

from custom.datasets import cortical_areas

LEFT, RIGHT = cortical_areas.SIDES  # FreeSurfer's codes of the cortex
# Codes of FreeSurfer that are made to overlap, group by group: cortex, white matter, lateral ventricles, deep grey
# matter, hippocampus and amygdala of each side; cerebellum, brain stem and fourth ventricle; third ventricle.
GROUPS = (
    (3,), (42,), (2,), (41,), (4, 5), (43, 44), (10, 11, 12, 13, 26, 28), (49, 50, 51, 52, 58, 60), (17, 18), (53, 54),
    (7, 8, 46, 47, 16, 15), (14,),
)  # fmt: skip
LANDMARKS = (3, 42, 2, 41, 4, 43, 10, 49, 11, 50, 12, 51, 13, 52, 17, 53, 18, 54, 16, 8, 47)
LEAST_VOXELS = 20  # of a structure whose centre counts
MARGIN = 6  # voxels around the brain
# voxels a cell, voxels between knots, iterations, learning rate
LEVELS = ((4, 8, 60, 0.6), (2, 5, 45, 0.5))
SMOOTHNESS = 0.02  # weight of the displacements' squared differences
SMOOTH_VOTES = 1.5  # standard deviation, voxels


@dataclass(frozen=True)
class Person:
    """A segmented head, cut to the brain.

    Args:
        codes: FreeSurfer's codes (x, y, z), voxels of 1 mm, RAS; 3 and 42 for the cortex.
        areas: numbers of the areas (x, y, z), 0 outside the cortex; None if they are to be found.
        corner: where the cut starts in the whole map.
    """

    codes: np.ndarray
    areas: np.ndarray | None
    corner: tuple[int, int, int]

    @cached_property
    def nearest(self) -> dict[int, np.ndarray]:
        """For each side's cortex, the nearest area on that side, everywhere (x, y, z)."""
        assert self.areas is not None
        result = {}
        for side in (LEFT, RIGHT):
            elsewhere = ~((self.codes == side) & (self.areas > 0))
            places = ndimage.distance_transform_edt(elsewhere, return_distances=False, return_indices=True)
            result[side] = self.areas[tuple(places)]
        return result


def person_of(codes: np.ndarray) -> Person:
    """A person of a whole label map (x, y, z), FreeSurfer's codes with or without those of areas."""
    codes = np.asarray(codes).astype(np.int32)
    areas = np.zeros(codes.shape, dtype=np.uint8)
    for side, first in cortical_areas.SIDES.items():
        of_side = np.isin(codes, [first + number for number in cortical_areas.NUMBERS])
        areas[of_side] = codes[of_side] - first
        codes = np.where((codes >= first) & (codes < first + 36), side, codes)
    codes = np.where(np.isin(codes, (251, 252, 253, 254, 255, 77, 78, 79)), 2, codes)  # corpus callosum, lesions
    where = np.argwhere(np.isin(codes, [code for group in GROUPS for code in group]))
    low = np.maximum(where.min(axis=0) - MARGIN, 0)
    high = np.minimum(where.max(axis=0) + MARGIN + 1, codes.shape)
    cut = tuple(slice(start, stop) for start, stop in zip(low, high, strict=True))
    x, y, z = (int(n) for n in low)
    return Person(codes[cut], areas[cut] if areas.any() else None, (x, y, z))


class Registration:
    """Where the voxels of one person lie in another one.

    Args:
        affine: (3, 4), voxels to voxels.
        knots: displacements (1, 3, kx, ky, kz) in voxels of the other person, added; None for none.
        shape: of the first person's map.
        loss: 1 - the mean Dice of the groups.
    """

    def __init__(
        self, affine: torch.Tensor, knots: torch.Tensor | None, shape: Sequence[int], loss: float = 1.0
    ) -> None:
        self.affine, self.knots, self.shape, self.loss = affine, knots, tuple(shape), loss

    def __call__(self, voxels: np.ndarray) -> np.ndarray:
        """(n, 3) voxels of the first person to (n, 3) places in the other one's voxels."""
        points = torch.as_tensor(voxels, dtype=torch.float32)
        places = points @ self.affine[:, :3].T + self.affine[:, 3]
        if self.knots is not None:
            grid = _normalised(points, self.shape)[None, None, None]
            places += grid_sample(self.knots, grid, align_corners=True, padding_mode="border")[0, :, 0, 0].T
        moved: np.ndarray = places.numpy()
        return moved


def affine_registration(target: Person, source: Person) -> Registration:
    """The affine map that brings the centres of structures nearest to each other (least squares)."""
    centres = [_centres(person.codes) for person in (target, source)]
    both = [code for code in LANDMARKS if all(code in found for found in centres)]
    points = np.array([[*centres[0][code], 1] for code in both])
    affine = np.linalg.lstsq(points, np.array([centres[1][code] for code in both]), rcond=None)[0].T
    return Registration(torch.as_tensor(affine, dtype=torch.float32), None, target.codes.shape)


def register(target: Person, source: Person) -> Registration:
    """An affine map and displacements that make the groups of structures overlap."""
    start = affine_registration(target, source)
    here, there = (_channels(person.codes) for person in (target, source))
    knots = torch.zeros(1, 3, *[int(np.ceil(n / LEVELS[0][1])) + 1 for n in start.shape])
    loss = 1.0
    for cell, step, iterations, rate in LEVELS:
        knots, loss = _refined(start, here, there, knots, (cell, step, iterations, rate))
    return Registration(start.affine, knots, start.shape, loss)


def _refined(
    start: Registration,
    here: torch.Tensor,
    there: torch.Tensor,
    knots: torch.Tensor,
    level: tuple[int, int, int, float],
) -> tuple[torch.Tensor, float]:
    cell, step, iterations, rate = level
    fixed, moving = (avg_pool3d(groups, cell, ceil_mode=True) for groups in (here, there))
    size, other = fixed.shape[2:], moving.shape[2:]
    axes = [torch.arange(n, dtype=torch.float32) * cell + (cell - 1) / 2 for n in size]
    base = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1) @ start.affine[:, :3].T + start.affine[:, 3]
    coarse = [int(np.ceil(n / step)) + 1 for n in start.shape]
    knots = interpolate(knots, size=coarse, mode="trilinear", align_corners=True).requires_grad_()
    optimizer = torch.optim.Adam([knots], lr=rate)
    value = 1.0
    for _ in range(iterations):
        moved = interpolate(knots, size=size, mode="trilinear", align_corners=True)[0].permute(1, 2, 3, 0)
        places = (base + moved - (cell - 1) / 2) / cell
        warped = grid_sample(moving, _normalised(places, other)[None], align_corners=True)
        overlap = (warped * fixed).sum((2, 3, 4))
        total = (warped**2).sum((2, 3, 4)) + (fixed**2).sum((2, 3, 4))
        loss = (1 - 2 * overlap / total.clamp_min(1)).mean()
        rough = sum((knots.diff(dim=axis) ** 2).mean() for axis in (2, 3, 4))
        optimizer.zero_grad()
        (loss + SMOOTHNESS * rough).backward()
        optimizer.step()
        value = float(loss.detach())
    return knots.detach(), value


def carried(registration: Registration, target: Person, source: Person) -> np.ndarray:
    """The source's areas at the target's cortex, (x, y, z), 0 elsewhere."""
    result = np.zeros(target.codes.shape, dtype=np.uint8)
    for side in (LEFT, RIGHT):
        voxels = np.argwhere(target.codes == side)
        places = np.rint(registration(voxels)).astype(int)
        places = np.clip(places, 0, np.array(source.codes.shape) - 1)
        result[tuple(voxels.T)] = source.nearest[side][tuple(places.T)]
    return result


def votes(
    target: Person, ballots: Sequence[np.ndarray], weights: Sequence[float | np.ndarray] | None = None
) -> np.ndarray:
    """The area with most votes at each voxel of the cortex, after smoothing the votes inside each side's cortex.

    Args:
        target: whose cortex it is.
        ballots: the areas that each source gives it (carried).
        weights: of the sources, numbers or (x, y, z); equal by default.
    """
    result = np.zeros(target.codes.shape, dtype=np.uint8)
    shares = weights or [1.0] * len(ballots)
    for side in (LEFT, RIGHT):
        cortex = target.codes == side
        around = np.zeros(target.codes.shape, dtype=np.float32)
        around[cortex] = 1
        norm = ndimage.gaussian_filter(around, SMOOTH_VOTES)[cortex]
        best = np.full(len(norm), -1.0)
        winner = np.zeros(len(norm), dtype=np.uint8)
        for number in cortical_areas.NUMBERS:
            shared = np.zeros(target.codes.shape, dtype=np.float32)
            for ballot, weight in zip(ballots, shares, strict=True):
                shared += weight * ((ballot == number) & cortex)
            if shared.any():
                share = ndimage.gaussian_filter(shared, SMOOTH_VOTES)[cortex] / norm
                winner[share > best] = number
                best = np.maximum(best, share)
        result[cortex] = winner
    return result


def dice_of_areas(found: np.ndarray, reference: np.ndarray, least: int) -> dict[int, float]:
    """Dice of each code (1001, ...) that the reference has at least `least` voxels of."""
    codes = cortical_areas.names_and_colours()
    top = max(codes) + 1
    predicted, true = np.asarray(found).ravel(), reference.ravel()
    sizes = np.bincount(true, minlength=top) + np.bincount(predicted, minlength=top)
    overlap = np.bincount(true[true == predicted], minlength=top)
    counts = np.bincount(true, minlength=top)
    return {code: float(2 * overlap[code] / sizes[code]) for code in codes if counts[code] >= least}


def _centres(codes: np.ndarray) -> dict[int, np.ndarray]:
    found = {code: np.argwhere(codes == code) for code in LANDMARKS}
    return {code: voxels.mean(axis=0) for code, voxels in found.items() if len(voxels) > LEAST_VOXELS}


def _channels(codes: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.isin(codes, group) for group in GROUPS]).astype(np.float32))[None]


def _normalised(points: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Voxels (..., 3) as torch's grid_sample counts them: -1 to 1 from the first to the last, the last axis first."""
    return torch.stack([points[..., axis] / (shape[axis] - 1) * 2 - 1 for axis in (2, 1, 0)], dim=-1)
