"""FreeSurfer's segmentations made fit for drawing scans: they have no fluid in the sulci, and no head."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import MapTransform

from custom.transforms.synthesis_fields import dilated


class FillSulcid(MapTransform):
    """Gives a label map without a head the fluid that fills and surrounds its brain.

    Sets item["has_head"]: whether the map has a code outside the brain. Where it has none, what a closing of the brain
    holds, and a voxel around it, becomes fluid.

    Args:
        keys: label maps (1, x, y, z), voxels of about 1 mm.
        outside: the codes that only a map with a head has.
        fluid: the code of CSF around the brain.
        closing: in voxels.
    """

    def __init__(self, keys: Any, outside: Sequence[int], fluid: int = 24, closing: int = 4) -> None:
        super().__init__(keys)
        self.outside = list(outside)
        self.fluid = fluid
        self.closing = closing

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its keys replaced, as the class describes."""
        result = dict(data)
        for key in self.key_iterator(result):
            codes = torch.as_tensor(result[key])
            result["has_head"] = bool(torch.isin(codes, torch.tensor(self.outside, dtype=codes.dtype)).any())
            if not result["has_head"]:
                brain = (codes > 0)[None].float()
                near = -dilated(-dilated(brain, self.closing + 1), self.closing)
                filled = (near[0] > 0) & (codes == 0)
                result[key] = codes.masked_fill(filled, self.fluid)
        return result
