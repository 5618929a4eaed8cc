"""A network's areas of the cortex, voxel by voxel, where reference labels say what is cortex."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import MapTransform
from torch.nn.functional import interpolate

from custom.transforms.area_shares import labels_of_cells


class AreasOfCellsd(MapTransform):
    """Logits in cells and reference areas of their voxels, as label maps of the voxels.

    Args:
        keys: logits (C, x, y, z). Replaced by areas (1, 2x, 2y, 2z), 0 where the reference has none.
        label_key: reference areas (8, x, y, z) of the voxels of each cell. Replaced by (1, 2x, 2y, 2z).
    """

    def __init__(self, keys: Any, label_key: str = "label") -> None:
        super().__init__(keys)
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its keys replaced, as the class describes."""
        result = dict(data)
        areas = labels_of_cells(torch.as_tensor(result[self.label_key]))
        for key in self.key_iterator(result):
            logits = torch.as_tensor(result[key]).float()
            fine = interpolate(logits[None].softmax(dim=1), scale_factor=2.0, mode="trilinear")[0]
            result[key] = ((1 + fine[1:].max(dim=0).indices) * (areas > 0))[None]
        result[self.label_key] = areas[None]
        return result
