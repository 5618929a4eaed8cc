"""Intensities normalised slice by slice."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type

METHODS = ("z-score", "min-max")
BACKGROUNDS = ("counts", "zero", "corner")


class NormalizeSlicesd(MapTransform):
    """Normalises each channel of each slice by itself, over its first two spatial axes.

    A slice without contrast (all of one value) becomes 0, not NaN.

    Args:
        keys: (C, H, W) slices or (C, x, y, z) volumes, whose slices lie along z.
        method: "z-score" (mean 0, standard deviation 1) or "min-max" (0 to 1).
        background: "counts" like every pixel; or is what is "zero", or what has the value of the slice's first
            "corner", and then doesn't count and becomes 0. The corner's finds the same background in a scan and in one
            whose intensities were shifted, scaled, or normalised inside the brain only.

    Raises:
        ValueError: an unknown method or background.
    """

    def __init__(self, keys: KeysCollection, method: str = "z-score", background: str = "counts") -> None:
        super().__init__(keys)
        if method not in METHODS or background not in BACKGROUNDS:
            raise ValueError(
                f"method must be one of {METHODS} and background one of {BACKGROUNDS}, got {method!r}, {background!r}."
            )
        self.method = method
        self.background = background

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its keys replaced, as the class describes."""
        result = dict(data)
        for key in self.key_iterator(result):
            slices = torch.as_tensor(result[key]).as_subclass(torch.Tensor).float()
            counts = self._counts(slices)
            normal = (_z_scores if self.method == "z-score" else _min_max)(slices, counts)
            normal = torch.where(counts, normal, 0)
            result[key] = convert_to_dst_type(normal, result[key], dtype=normal.dtype)[0]
        return result

    def _counts(self, slices: torch.Tensor) -> torch.Tensor:
        if self.background == "zero":
            return slices != 0
        if self.background == "corner":
            return slices != slices[:, :1, :1]
        return torch.ones_like(slices, dtype=torch.bool)


def _z_scores(slices: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    number = counts.sum((1, 2), keepdim=True).clamp(min=1)
    mean = torch.where(counts, slices, 0).sum((1, 2), keepdim=True) / number
    centred = torch.where(counts, slices - mean, 0)
    std = (centred.square().sum((1, 2), keepdim=True) / number).sqrt()
    return centred / _or_one(std, slices)


def _min_max(slices: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    low = torch.where(counts, slices, torch.inf).amin((1, 2), keepdim=True)
    high = torch.where(counts, slices, -torch.inf).amax((1, 2), keepdim=True)
    low = torch.where(low <= high, low, 0)  # where nothing counts
    return (slices - low) / _or_one((high - low).clamp(min=0), slices)


def _or_one(spread: torch.Tensor, slices: torch.Tensor) -> torch.Tensor:
    """The spread, or 1 where it is only the rounding of the slice's values."""
    return torch.where(spread > 1e-6 * slices.abs().amax((1, 2), keepdim=True), spread, 1)
