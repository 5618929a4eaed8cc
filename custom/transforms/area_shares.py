"""Shares of structures in cells of 2x2x2 voxels: what a network for cortical areas sees, from any contrast."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import avg_pool3d, pad

from custom.networks.subpixel_unet import voxels_of_cells

FRAME = (48, 64, 48)  # cells around the cortex, at least: 144x192x144 mm with voxels of 1.5 mm
STRIDE = 8  # a frame's sides are multiples of it
SOME = 0.25  # the share of cortex that a cell needs to count for the frame


def shares_of_logits(logits: torch.Tensor) -> torch.Tensor:
    """Mean probabilities in each cell.

    Args:
        logits: (K + 1, x, y, z): K classes, the background first, then the left side.

    Returns:
        (K + 1, ceil(x / 2), ...): the K classes, and what is both on the left and no background; float32.
    """
    classes = logits[:-1].float().softmax(dim=0)
    left = logits[-1:].float().sigmoid() * (1 - classes[:1])
    return avg_pool3d(torch.cat([classes, left])[None], 2, ceil_mode=True)[0]


def shares_of_labels(labels: torch.Tensor, side: torch.Tensor, classes: int) -> torch.Tensor:
    """The same of labels (x, y, z), 0 to classes - 1, with their side (1 left, 2 right, 0 none)."""
    one_hot = torch.zeros(classes + 1, *labels.shape, device=labels.device)
    one_hot.scatter_(0, labels[None].long(), 1.0)
    one_hot[-1] = (side == 1) & (labels > 0)
    return avg_pool3d(one_hot[None], 2, ceil_mode=True)[0]


def voxels_in_cells(labels: torch.Tensor) -> torch.Tensor:
    """(x, y, z) of even sizes to (8, x/2, y/2, z/2), the voxels of each cell."""
    x, y, z = labels.shape
    cells = labels.reshape(x // 2, 2, y // 2, 2, z // 2, 2).permute(1, 3, 5, 0, 2, 4)
    return cells.reshape(8, x // 2, y // 2, z // 2)


def labels_of_cells(cells: torch.Tensor) -> torch.Tensor:
    """Undoes voxels_in_cells: (8, x, y, z) to (2x, 2y, 2z)."""
    return voxels_of_cells(cells[None])[0, 0]


def frame_of_cortex(cortex: torch.Tensor, least: Sequence[int] = FRAME) -> list[tuple[int, int]] | None:
    """Where a frame around the cortex starts and how long it is, in cells along each axis; None without cortex.

    Args:
        cortex: its share in each cell, (x, y, z). The frame may reach beyond these cells.
        least: the frame's size. A larger cortex gets more, in multiples of STRIDE.
    """
    frame = []
    has_some = cortex > SOME
    for axis, shortest in enumerate(least):
        others = [other for other in range(3) if other != axis]
        at = has_some.any(dim=others[1]).any(dim=others[0]).nonzero()
        if not len(at):
            return None
        first, last = int(at[0]), int(at[-1]) + 1
        length = max(shortest, -(-(last - first) // STRIDE) * STRIDE)
        frame.append(((first + last - length) // 2, length))
    return frame


def framed(cells: torch.Tensor, frame: Sequence[tuple[int, int]]) -> torch.Tensor:
    """The cells (C, x, y, z) inside a frame, 0 where it reaches beyond them."""
    for axis, (start, length) in enumerate(frame, start=1):
        n = cells.shape[axis]
        before, after = max(0, -start), max(0, start + length - n)
        sides = [0, 0] * (cells.ndim - 1 - axis) + [before, after]
        cells = pad(cells, sides).narrow(axis, start + before, length)
    return cells


def framed_shares(shares: torch.Tensor, frame: Sequence[tuple[int, int]]) -> torch.Tensor:
    """framed, with background beyond the cells."""
    inside = framed(shares, frame).contiguous()
    inside[0] = 1 - inside[1:-1].sum(dim=0)
    return inside
