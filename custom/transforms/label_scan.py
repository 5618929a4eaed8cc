"""From a network's logits to any labels on the scan's own grid, in little memory whatever that grid."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform

from custom.transforms.grids import align, interpolated, slabs
from custom.transforms.resample_scan import with_meta_of


class LabelScand(MapTransform):
    """Labels every voxel of a scan with the most probable class, slab by slab, from logits on a coarser grid.

    Args:
        keys: logits (C, x, y, z) with an affine, replaced by labels (1, X, Y, Z), uint8, on the scan's grid.
        scan_key: the scan (1, X, Y, Z), whose axes run along the logits' grid's.

    Where item["wants_probabilities"], sets item["probabilities"] of all classes but the first, float16.
    """

    def __init__(self, keys: Any, scan_key: str = "scan") -> None:
        super().__init__(keys)
        self.scan_key = scan_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its keys replaced, as the class describes."""
        result = dict(data)
        for key in self.key_iterator(result):
            scan, logits = result[self.scan_key], result[key]
            alignment = align(np.asarray(scan.affine, dtype=np.float64), np.asarray(logits.affine, dtype=np.float64))
            classes = torch.as_tensor(logits).as_subclass(torch.Tensor).float().softmax(dim=0)
            classes = classes.permute([0, *(1 + axis for axis in alignment.axes)])
            shape = scan.shape[1:]
            labels = torch.zeros(shape, dtype=torch.uint8)
            wanted = bool(result.get("wants_probabilities", False))
            kept = torch.zeros((len(classes) - 1, *shape) if wanted else (0,), dtype=torch.float16)
            for piece in slabs(shape):
                indices = [np.arange(shape[0]), np.arange(shape[1]), np.arange(piece.start, piece.stop)]
                here = interpolated(classes, [alignment.positions(axis, at) for axis, at in enumerate(indices)])
                labels[..., piece] = here.max(dim=0).indices.to(torch.uint8).cpu()
                if wanted:
                    kept[..., piece] = here[1:].half().cpu()
            result[key] = with_meta_of(scan, labels[None])
            if wanted:
                result["probabilities"] = with_meta_of(scan, kept)
        return result
