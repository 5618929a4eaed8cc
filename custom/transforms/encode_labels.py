"""From the codes in a label file to 0, 1, 2, ..."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from custom.errors import DataError


class EncodeLabelsd(MapTransform):
    """Replaces each code by its position in `codes`; the result is uint8 of the same shape.

    Args:
        keys: the label maps.
        codes: the codes that the files may hold, label 0's first.

    Raises:
        DataError: a code that isn't listed, with the file's name.
    """

    def __init__(self, keys: KeysCollection, codes: Sequence[int], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.codes = tuple(codes)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its keys replaced, as the class describes."""
        result = dict(data)
        for key in self.key_iterator(result):
            voxels = result[key]
            encoded = torch.zeros_like(voxels, dtype=torch.uint8)
            known = torch.zeros_like(voxels, dtype=torch.bool)
            for label, code in enumerate(self.codes):
                here = voxels == code
                encoded[here] = label
                known |= here
            if not known.all():
                unknown = sorted(set(voxels[~known].tolist()))
                name = getattr(voxels, "meta", {}).get("filename_or_obj", "A label map")
                raise DataError(
                    f"{name} holds the label codes {unknown}, of {sorted(self.codes)} that are known: "
                    "correct the label map."
                )
            result[key] = encoded
        return result
