"""From the codes in a label file to 0, 1, 2, ..."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type

from custom.errors import DataError
from custom.reading.labels import LabelCodes, whole_codes


class EncodeLabelsd(MapTransform):
    """Replaces each code by its position in `codes`; the result is uint8 of the same shape.

    Values within 0.001 of a whole number are rounded first, as `brainmri verify` does.

    Args:
        keys: the label maps, any shape.
        codes: the codes of the labels in the files, label 0's first; several codes of one label as a tuple or list.
        ignore_code: the files' code of voxels that nobody labelled; it becomes len(codes), the loss's `ignore_index`.

    Raises:
        DataError: a value that is no whole number, or a code that isn't listed, with the file's name.
    """

    def __init__(
        self,
        keys: KeysCollection,
        codes: Sequence[int | Sequence[int]],
        allow_missing_keys: bool = False,
        ignore_code: int | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        groups = [(entry,) if isinstance(entry, int) else tuple(entry) for entry in codes]
        self.label_of = {code: label for label, group in enumerate(groups) for code in group}
        self.codes = LabelCodes(tuple(self.label_of), ignore_code)
        if ignore_code is not None:
            self.label_of[ignore_code] = len(groups)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its keys replaced, as the class describes."""
        result = dict(data)
        for key in self.key_iterator(result):
            voxels = torch.as_tensor(result[key])
            try:
                whole = whole_codes(np.asarray(voxels.as_subclass(torch.Tensor).cpu()), self.codes)
            except DataError as error:
                name = getattr(voxels, "meta", {}).get("filename_or_obj", "A label map")
                raise DataError(f"{name} {error}") from error
            encoded = np.zeros(whole.shape, dtype=np.uint8)
            for code, label in self.label_of.items():
                encoded[whole == code] = label
            result[key] = convert_to_dst_type(encoded, voxels, dtype=torch.uint8)[0]
        return result
