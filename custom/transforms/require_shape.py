"""A check of shapes before a crop by fixed indices, which fits scans of one shape only."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform

from custom.errors import DataError


class RequireShaped(MapTransform):
    """Passes scans of one shape, before a crop by indices.

    Args:
        keys: MetaTensors (C, x, y, z).
        shape: (x, y, z), in voxels.

    Raises:
        DataError: a scan of another shape.
    """

    def __init__(self, keys: KeysCollection, shape: Sequence[int]) -> None:
        super().__init__(keys)
        self.shape = tuple(shape)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its keys replaced, as the class describes."""
        for key in self.key_iterator(dict(data)):
            if (shape := tuple(data[key].shape[1:])) != self.shape:
                name = data[key].meta.get("filename_or_obj", key)
                raise DataError(
                    f"{name} has the shape {shape}, but this crop is by indices of {self.shape}. Resample it, or take "
                    "another crop."
                )
        return dict(data)
