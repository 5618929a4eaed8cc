"""A scan as a network sees it, in little memory whatever its grid."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from custom.transforms.grids import resampled, upright


class ResampleScand(MapTransform):
    """Brings a scan to axes near RAS and to cubic voxels, and keeps the original beside it.

    As Orientationd and Spacingd together, but slab by slab, and with small voxels averaged instead of skipped.

    Args:
        keys: scans (1, x, y, z) with an affine, replaced.
        spacing: of the new voxels, mm.
        scan_key: receives the original, not copied.
    """

    def __init__(self, keys: Any, spacing: float, scan_key: str = "scan") -> None:
        super().__init__(keys)
        self.spacing = spacing
        self.scan_key = scan_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its keys replaced, as the class describes."""
        result = dict(data)
        for key in self.key_iterator(result):
            scan = result[key]
            affine = np.asarray(scan.affine, dtype=np.float64)
            shape, target = upright(scan.shape[1:], affine, self.spacing)
            voxels = resampled(torch.as_tensor(scan.as_tensor())[0], affine, shape, target)
            result[self.scan_key] = scan
            result[key] = with_meta_of(scan, voxels[None], target)
        return result


def with_meta_of(scan: MetaTensor, voxels: torch.Tensor, affine: Any = None) -> MetaTensor:
    """A MetaTensor of the same file as a scan (its name, warnings about it), on its grid or another one."""
    meta = {name: value for name, value in scan.meta.items() if name != "affine"}
    return MetaTensor(voxels, affine=torch.as_tensor(scan.affine if affine is None else affine), meta=meta)
