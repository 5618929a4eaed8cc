"""Intensities normalised slice by slice."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type

METHODS = ("z-score", "min-max")


class NormalizeSlicesd(MapTransform):
    """Normalises each channel of each slice by itself, over its first two spatial axes.

    A slice without contrast (all of one value) becomes 0, not NaN.

    Args:
        keys: (C, H, W) slices or (C, x, y, z) volumes, whose slices lie along z.
        method: "z-score" (mean 0, deviation 1) or "min-max" (0 to 1).
        nonzero: z-scores over what isn't 0, which stays 0; for "z-score" only.

    Raises:
        ValueError: an unknown method, or nonzero with "min-max".
    """

    def __init__(self, keys: KeysCollection, method: str = "z-score", nonzero: bool = False) -> None:
        super().__init__(keys)
        if method not in METHODS or (nonzero and method != "z-score"):
            raise ValueError(
                f"method must be one of {METHODS}, nonzero goes with z-score; got {method!r}, {nonzero!r}."
            )
        self.method = method
        self.nonzero = nonzero

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            slices = torch.as_tensor(result[key]).as_subclass(torch.Tensor).float()
            normal = self._z_scores(slices) if self.method == "z-score" else self._min_max(slices)
            result[key] = convert_to_dst_type(normal, result[key], dtype=normal.dtype)[0]
        return result

    def _z_scores(self, slices: torch.Tensor) -> torch.Tensor:
        counts = (slices != 0) if self.nonzero else torch.ones_like(slices, dtype=torch.bool)
        number = counts.sum((1, 2), keepdim=True).clamp(min=1)
        centred = torch.where(counts, slices - slices.sum((1, 2), keepdim=True) / number, 0)
        deviation = (centred.square().sum((1, 2), keepdim=True) / number).sqrt()
        return centred / _or_one(deviation, slices.abs().amax((1, 2), keepdim=True))

    @staticmethod
    def _min_max(slices: torch.Tensor) -> torch.Tensor:
        low, high = slices.amin((1, 2), keepdim=True), slices.amax((1, 2), keepdim=True)
        return (slices - low) / _or_one(high - low, high.abs())


def _or_one(spread: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """The spread, or 1 where it is only the rounding of values of that size."""
    return torch.where(spread > 1e-6 * size, spread, 1)
