"""N4 bias field correction."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from scipy import ndimage


class CorrectBiasd(MapTransform):
    """Divides a skull-stripped scan by its bias field, found by ITK's N4 on a coarser grid.

    Tustison et al. 2010, "N4ITK: improved N3 bias correction", IEEE TMI 29(6), 1310-1320.

    Args:
        keys: scans (1, x, y, z), 0 outside the brain, where they stay 0.
        shrink: voxels of the scan along each axis in one of the coarse grid.
        iterations: at most so many at each level, from coarse to fine control points.
    """

    def __init__(self, keys: KeysCollection, shrink: int = 4, iterations: tuple[int, ...] = (50, 50, 50, 50)) -> None:
        super().__init__(keys)
        self.shrink, self.iterations = shrink, tuple(iterations)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its keys replaced, as the class describes."""
        result = dict(data)
        for key in self.key_iterator(result):
            field = self._field(np.asarray(result[key][0], dtype=np.float32))
            result[key] = result[key] / torch.as_tensor(field)[None]
        return result

    def _field(self, scan: np.ndarray) -> np.ndarray:
        """The field in the brain with mean 1, and 1 outside."""
        import SimpleITK

        brain = scan != 0
        filled = np.where(brain, scan, scan[brain].mean())  # what N4 divides by there tells the field around the brain
        image, mask = (SimpleITK.GetImageFromArray(array.T) for array in (filled, brain.astype(np.uint8)))
        factors = [max(1, min(self.shrink, n // 8)) for n in scan.shape]
        coarse, inside = (SimpleITK.Shrink(volume, factors) for volume in (image, mask))
        n4 = SimpleITK.N4BiasFieldCorrectionImageFilter()
        n4.SetMaximumNumberOfIterations(list(self.iterations))
        corrected = n4.Execute(coarse, inside)
        field = (SimpleITK.GetArrayFromImage(coarse) / SimpleITK.GetArrayFromImage(corrected)).T
        step, start = np.asarray(coarse.GetSpacing()), np.asarray(coarse.GetOrigin())  # in voxels of the scan
        field = ndimage.affine_transform(
            field, 1 / step, -start / step, output_shape=scan.shape, order=1, mode="nearest"
        )
        return np.where(brain, field / field[brain].mean(), 1.0).astype(np.float32)
