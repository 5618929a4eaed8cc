"""One scan of any usual format as MONAI's transforms want it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from custom.errors import DataError
from custom.reading.scans import read_scan
from custom.reading.volumes import in_one_place


class LoadScand(MapTransform):
    """Loads a NIfTI, Analyze, .mgz, NRRD or DICOM scan by custom.reading.scans.read_scan.

    Args:
        keys: paths of scans, replaced.
        mask_key: where given and in the item, the path of a brain mask on the scan's grid. It is loaded too, as bool,
            and the scan outside it is set to 0, or to its lowest value where that is negative.

    Result: a MetaTensor (1, x, y, z), float32, with the scan's affine (RAS+), `filename_or_obj`, and warnings about
    the scan in meta["warnings"], a sentence a line.

    Raises:
        DataError: the file does not exist, can't be a brain's MR volume, or the mask lies on another grid or is empty.
    """

    def __init__(self, keys: Any, mask_key: str | None = None) -> None:
        super().__init__(keys)
        self.mask_key = mask_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its keys replaced, as the class describes."""
        result = dict(data)
        for key in self.key_iterator(result):
            path = result[key][0] if isinstance(result[key], (list, tuple)) else result[key]
            voxels, affine, warnings = read_scan(path)
            meta = {"filename_or_obj": str(path), "warnings": "\n".join(warnings), "original_channel_dim": 0}
            if self.mask_key in result:
                mask = _read_mask(result[self.mask_key], path, voxels.shape, affine)
                result[self.mask_key] = MetaTensor(torch.as_tensor(mask)[None], affine=torch.as_tensor(affine))
                voxels = np.where(mask, voxels, np.float32(min(0.0, float(voxels.min()))))
            result[key] = MetaTensor(torch.as_tensor(voxels)[None], affine=torch.as_tensor(affine), meta=meta)
        return result


def _read_mask(path: Any, scan: Any, shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    mask, mask_affine, _ = read_scan(path)
    if mask.shape != shape or not in_one_place(shape, mask_affine, affine):
        raise DataError(f"{path} has another grid than {scan}. Resample the mask to the scan's grid.")
    return mask > 0
