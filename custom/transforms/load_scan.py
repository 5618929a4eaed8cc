"""One scan of any usual format as MONAI's transforms want it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from custom.scans import read_scan


class LoadScand(MapTransform):
    """Loads a NIfTI, Analyze, .mgz, NRRD or DICOM scan by custom.scans.read_scan.

    Result: a MetaTensor (1, x, y, z), float32, with the scan's affine (RAS+), `filename_or_obj`, and what is odd about
    the scan in meta["odd"], a sentence a line.

    Raises:
        DataError: the file isn't there, or can't be a brain's MR volume.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            path = result[key][0] if isinstance(result[key], (list, tuple)) else result[key]
            voxels, affine, odd = read_scan(path)
            meta = {"filename_or_obj": str(path), "odd": "\n".join(odd), "original_channel_dim": 0}
            result[key] = MetaTensor(torch.as_tensor(voxels)[None], affine=torch.as_tensor(affine), meta=meta)
        return result
