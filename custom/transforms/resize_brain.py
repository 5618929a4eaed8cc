"""Resizing that knows where the brain ends."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Resize


class ResizeBraind(MapTransform):
    """MONAI's trilinear, anti-aliased Resize, which would blur 0 into the brain's border and the border outwards.

    The brain (what isn't 0) is resized with it: where less than half of a voxel is brain, it becomes 0; elsewhere the
    value is that of the part that is.

    Args:
        keys: skull-stripped scans (1, x, y, z).
        spatial_size: of the result, in voxels.
    """

    def __init__(self, keys: KeysCollection, spatial_size: Sequence[int]) -> None:
        super().__init__(keys)
        self.resize = Resize(spatial_size, mode="trilinear", anti_aliasing=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its keys replaced, as the class describes."""
        result = dict(data)
        for key in self.key_iterator(result):
            share = torch.as_tensor(self.resize((result[key] != 0).float()))
            scan = self.resize(result[key])
            result[key] = torch.where(share >= 0.5, scan / share.clamp_min(0.5), torch.zeros_like(scan))
        return result
