"""Grids of voxels whose axes run along each other: resampling axis by axis, in little memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import nibabel
import numpy as np
import torch

BLOCK_VOXELS = 400_000  # of a scan at a time: the memory for them doesn't depend on the scan's size


@dataclass(frozen=True)
class Alignment:
    """How the axes of one grid run along those of another one.

    Args:
        axes: for each axis of the first grid, the axis of the second that runs along it.
        scale, offset: index in the second = scale * index in the first + offset, for each axis of the first.
    """

    axes: tuple[int, int, int]
    scale: tuple[float, ...]
    offset: tuple[float, ...]

    def positions(self, axis: int, indices: np.ndarray) -> np.ndarray:
        """Where indices along one axis of the first grid lie on the second one."""
        return indices * self.scale[axis] + self.offset[axis]


def spacing_of(affine: np.ndarray) -> np.ndarray:
    """Distance of neighbouring voxels along each axis, mm."""
    spacing: np.ndarray = np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)
    return spacing


def upright(shape: Sequence[int], affine: np.ndarray, spacing: float) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine of the grid with the axes of another one, in the order nearest to RAS, and a new spacing.

    Both grids have their centre in one place.
    """
    orientation = nibabel.io_orientation(affine)  # for each axis: which of R, A, S it is nearest to, and its direction
    order = np.argsort(orientation[:, 0])
    signs = orientation[order, 1]
    old = spacing_of(affine)[order]
    columns = np.asarray(affine)[:3, :3][:, order] * signs / old
    new_shape = tuple(max(1, round(n * mm / spacing)) for n, mm in zip(np.asarray(shape)[order], old, strict=True))
    centre = np.asarray(affine) @ [*((np.asarray(shape) - 1) / 2), 1]
    result = np.eye(4)
    result[:3, :3] = columns * spacing
    result[:3, 3] = centre[:3] - result[:3, :3] @ ((np.asarray(new_shape) - 1) / 2)
    return new_shape, result


def align(first: np.ndarray, second: np.ndarray) -> Alignment:
    """How two grids, given by their affines (4, 4), lie to each other.

    Raises:
        ValueError: their axes don't run along each other.
    """
    matrix = np.linalg.inv(second) @ first
    axes = np.abs(matrix[:3, :3]).argmax(axis=0)
    scale = matrix[axes, range(3)]
    if sorted(axes) != [0, 1, 2] or np.abs(matrix[:3, :3]).sum() > 1.001 * np.abs(scale).sum():
        raise ValueError("The axes of two grids don't run along each other.")
    return Alignment(tuple(int(axis) for axis in axes), tuple(scale), tuple(matrix[axes, 3]))  # type: ignore[arg-type]


def interpolated(volumes: torch.Tensor, positions: Sequence[np.ndarray]) -> torch.Tensor:
    """Linear interpolation at every combination of positions along three axes; edges go on outside.

    Args:
        volumes: (C, x, y, z).
        positions: in voxels, one array for each axis.

    Returns:
        (C, len of each).
    """
    ratios = [len(at) / n for at, n in zip(positions, volumes.shape[1:], strict=True)]
    for axis in map(int, np.argsort(ratios)):  # the one that leaves the least to do comes first
        at = np.clip(positions[axis], 0, volumes.shape[1 + axis] - 1)
        first, last = int(np.floor(at.min())), int(np.ceil(at.max()))
        weights = _triangles(at - first, last - first + 1, 1.0).to(volumes.device)
        part = volumes.narrow(1 + axis, first, last - first + 1)
        if axis == 2:
            volumes = part @ weights.T
            continue
        matrices = part.flatten(0, axis).flatten(2)  # the axis, and what lies after it; no copy turns the axes
        shape = *part.shape[: 1 + axis], -1, *part.shape[2 + axis :]
        volumes = weights.expand(len(matrices), -1, -1).bmm(matrices).view(shape)
    return volumes


def resampled(scan: torch.Tensor, affine: np.ndarray, shape: Sequence[int], target: np.ndarray) -> torch.Tensor:
    """A scan on another grid with axes along its own, float32, slab by slab.

    Linear interpolation; where the scan's voxels are much smaller than the new ones, a triangle of half a new voxel to
    each side, so that noise is averaged and nothing is missed. 0 outside the scan.

    Args:
        scan: (x, y, z), any type.
        affine: the scan's.
        shape: of the new grid.
        target: the affine of the new grid.
    """
    alignment = align(target, affine)
    weights = [
        _triangles(alignment.positions(axis, np.arange(n)), scan.shape[other], abs(alignment.scale[axis]) / 2)
        for axis, (n, other) in enumerate(zip(shape, alignment.axes, strict=True))
    ]
    turned = scan.permute(alignment.axes)
    slow = max(range(3), key=lambda axis: turned.stride(axis))
    fast = [axis for axis in range(3) if axis != slow]
    result = torch.zeros([shape[axis] for axis in (slow, *fast)])
    step = max(1, BLOCK_VOXELS * 4 * turned.shape[slow] // max(1, scan.numel()))
    for start in range(0, turned.shape[slow], step):
        block = turned.narrow(slow, start, min(step, turned.shape[slow] - start)).movedim(slow, 0).float()
        block = torch.einsum("sab,ia,jb->sij", block, weights[fast[0]], weights[fast[1]])
        result += torch.einsum("ks,sij->kij", weights[slow][:, start : start + len(block)], block)
    return result.movedim(0, slow).contiguous()


def _triangles(positions: np.ndarray, n: int, width: float) -> torch.Tensor:
    """(len(positions), n): the weight of each voxel at each position, rows that sum to 1, or to 0 outside."""
    width = max(1.0, width)
    distance = np.abs(positions[:, None] - np.arange(n)[None, :])
    weights = np.clip(1 - distance / width, 0, None)
    inside = (positions > -0.5 - 1e-6) & (positions < n - 0.5 + 1e-6)
    return torch.as_tensor(weights / weights.sum(axis=1, keepdims=True).clip(1e-6) * inside[:, None]).float()


def slabs(shape: Sequence[int]) -> Iterator[slice]:
    """Slices along the last axis, each of at most about BLOCK_VOXELS voxels."""
    step = max(1, BLOCK_VOXELS // max(1, int(np.prod(shape[:2]))))
    for start in range(0, shape[2], step):
        yield slice(start, min(start + step, shape[2]))
