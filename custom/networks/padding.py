"""Padding to multiples of a network's stride."""

from __future__ import annotations

import torch
from torch.nn.functional import pad


def pad_to_multiple(x: torch.Tensor, multiple: int) -> torch.Tensor:
    """Zeros after the end of each axis of (B, C, H, W, D), up to the next multiple."""
    height, width, depth = x.shape[2:]
    return pad(x, [0, -depth % multiple, 0, -width % multiple, 0, -height % multiple])


def crop_like(x: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
    """Undoes `pad_to_multiple`: cuts (B, C, H, W, D) to the spatial size of `original`."""
    height, width, depth = original.shape[2:]
    return x[:, :, :height, :width, :depth]
