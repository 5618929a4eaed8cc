"""Intensities scaled by a volume's own range, in the two ways that MONAI lacks."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform


class DivideByMaximumd(MapTransform):
    """Each channel of (C, H, W, D) divided by its greatest value; a channel without values above 0 stays as it is."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its keys replaced, as the class describes."""
        result = dict(data)
        for key in self.key_iterator(result):
            greatest = result[key].amax(dim=tuple(range(1, result[key].ndim)), keepdim=True)
            result[key] = result[key] / torch.where(greatest > 0, greatest, 1)
        return result


class ScaleForegroundd(MapTransform):
    """Each channel's voxels that aren't 0, from their least and greatest value to `low` and `high`; 0 stays 0.

    A channel whose foreground has one value only gets `low` there.

    Args:
        keys: images (C, H, W, D) whose background is 0.
        low: the new least value.
        high: the new greatest value.
    """

    def __init__(
        self, keys: KeysCollection, low: float = 10.0, high: float = 110.0, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.low, self.high = low, high

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its keys replaced, as the class describes."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key].float().clone()
            for channel in image:
                head = channel != 0
                if head.any():
                    least, greatest = channel[head].min(), channel[head].max()
                    share = (channel[head] - least) / (greatest - least).clamp_min(torch.finfo(image.dtype).tiny)
                    channel[head] = self.low + (self.high - self.low) * share
            result[key] = image
        return result
