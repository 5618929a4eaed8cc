"""Geometry and smooth fields of the generator of scans, written for speed on a CPU and on a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import interpolate


def rotation(angles: np.ndarray) -> np.ndarray:
    """The matrix (3, 3) that turns about x, then y, then z by three angles, in radians."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    matrix: np.ndarray = x @ y @ z
    return matrix


def dilated(volume: torch.Tensor, voxels: int) -> torch.Tensor:
    """The greatest value within some voxels along each axis, one axis after the other; its negative's erodes.

    Shape: (1, 1, x, y, z).
    """
    for axis in range(2, 5):
        volume = _greatest_along(volume, axis, voxels)
    return volume


def _greatest_along(volume: torch.Tensor, axis: int, voxels: int) -> torch.Tensor:
    """By windows that double in length: a few passes, where a pooling of 2 * voxels + 1 reads each voxel as often."""
    n, reached = volume.shape[axis], 0
    result = volume
    while reached < voxels and reached < n - 1:  # result holds the greatest of [at, at + reached]
        step = min(reached + 1, voxels - reached, n - 1 - reached)
        later = result.clone()
        part = later.narrow(axis, 0, n - step)
        torch.maximum(part, result.narrow(axis, step, n - step), out=part)
        result, reached = later, reached + step
    if not reached:
        return volume
    greatest = result.clone()
    part = greatest.narrow(axis, reached, n - reached)
    torch.maximum(part, result.narrow(axis, 0, n - reached), out=part)
    # the first voxels see back to the edge only, which lies less than `reached` before them
    edge = volume.narrow(axis, 0, min(reached, n)).cummax(axis).values
    part = greatest.narrow(axis, 0, min(reached, n))
    torch.maximum(part, edge, out=part)
    return greatest


def upsampled(coarse: torch.Tensor, size: Sequence[int], align_corners: bool) -> torch.Tensor:
    """The trilinear interpolation of torch of (1, C, x, y, z) to a greater size, to the bit, but faster on a CPU.

    Two axes are interpolated by torch; along the first one, which lies outermost in memory, whole slices are mixed.
    """
    if coarse.device.type != "cpu":
        return interpolate(coarse, size=tuple(size), mode="trilinear", align_corners=align_corners)
    knots = coarse.shape[2]
    planes = interpolate(coarse, size=(knots, *size[1:]), mode="trilinear", align_corners=align_corners)
    if knots == size[0]:
        return planes
    shares = interpolate(torch.eye(knots)[None], size=size[0], mode="linear", align_corners=align_corners)[0]
    result = planes.new_empty((*planes.shape[:2], *size))
    below, above = planes.unbind(2), result.unbind(2)
    for target, weights in zip(above, shares.T.tolist(), strict=True):
        first, *second = [knot for knot, weight in enumerate(weights) if weight]
        if second:  # the lower neighbour is added to the upper one in one rounding, as torch does
            torch.mul(below[second[0]], weights[second[0]], out=target)
            target.add_(below[first], alpha=weights[first])
        else:
            target.copy_(below[first])
    return result


def blurred(volume: torch.Tensor, sigmas: np.ndarray) -> torch.Tensor:
    """Gaussian blur of (x, y, z) with a standard deviation in voxels for each axis, at most 0.75; five taps.

    Written with slices, which is faster than a convolution of one channel.
    """
    for axis, sigma in enumerate(sigmas):
        reach = 2 if sigma > 0.5 else 1
        taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        taps /= taps.sum()
        n, result = volume.shape[axis], volume * float(taps[reach])
        for shift in range(1, reach + 1):
            weight = float(taps[reach + shift])
            for into, out_of in ((shift, 0), (0, shift)):
                result.narrow(axis, into, n - shift).add_(volume.narrow(axis, out_of, n - shift), alpha=weight)
            for edge in (0, n - shift):  # voxels outside are as bright as the edge
                result.narrow(axis, edge, shift).add_(volume.narrow(axis, edge, shift), alpha=weight)
        volume = result
    return volume
