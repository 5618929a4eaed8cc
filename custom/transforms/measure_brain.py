"""What a skull-stripped scan says of its brain before it is resized."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform


class MeasureBraind(MapTransform):
    """Adds the volume of all voxels that are not 0, in ml.

    Args:
        keys: a MetaTensor (1, x, y, z) whose affine is in mm.
        name: of the new entry.
    """

    def __init__(self, keys: KeysCollection, name: str = "brain_ml") -> None:
        super().__init__(keys)
        self.name = name

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its keys replaced, as the class describes."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[self.name] = float((result[key] != 0).sum()) * float(result[key].pixdim.prod()) / 1000
        return result
