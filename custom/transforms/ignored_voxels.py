"""Voxels that nobody labelled: no crop is centred on them, and they count in no measure."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.transforms.utils import map_binary_to_indices
from monai.utils import convert_to_dst_type


class LabelIndicesd(MapTransform):
    """FgBgToIndicesd that leaves ignored voxels out, for RandCropByPosNegLabeld.

    Sets `<key>_fg_indices` (labels above 0) and `<key>_bg_indices` (label 0) to flat indices. A label map in which all
    voxels are ignored gives all of them as background, so that a crop is possible.

    Args:
        keys: label maps (1, x, y, z).
        ignore_index: the label of ignored voxels; None if there is none; the result is then FgBgToIndicesd's.
        image_key: with it, background is only where this image is above 0.
    """

    def __init__(self, keys: KeysCollection, ignore_index: int | None = None, image_key: str | None = None) -> None:
        super().__init__(keys)
        self.ignore_index = ignore_index
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Label maps (1, x, y, z) to two items of indices (n,) each."""
        result = dict(data)
        image = None if self.image_key is None else result[self.image_key]
        for key in self.key_iterator(result):
            label = torch.as_tensor(result[key])
            foreground, background = map_binary_to_indices(label, image)
            if self.ignore_index is not None:
                ignored = (label.as_subclass(torch.Tensor) == self.ignore_index).flatten()
                foreground = foreground[~ignored[torch.as_tensor(foreground, device=ignored.device)]]
                if not len(foreground) and not len(background):
                    background = torch.arange(ignored.numel(), device=ignored.device)
            result[f"{key}_fg_indices"], result[f"{key}_bg_indices"] = foreground, background
        return result


class MaskIgnoredd(MapTransform):
    """Gives a prediction the ignored label wherever the reference labels have it, so that it counts nowhere.

    Follow it with LabelsToRegionsd: such voxels are 0 in all channels of both.

    Args:
        keys: predicted labels (1, ...).
        label_key: the reference labels, of the same shape.
        ignore_index: the label of ignored voxels; None changes nothing.
    """

    def __init__(self, keys: KeysCollection, label_key: str = "label", ignore_index: int | None = None) -> None:
        super().__init__(keys)
        self.label_key = label_key
        self.ignore_index = ignore_index

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Labels (1, ...) to labels of the same shape and type."""
        result = dict(data)
        if self.ignore_index is None:
            return result
        label = torch.as_tensor(result[self.label_key]).as_subclass(torch.Tensor)
        for key in self.key_iterator(result):
            prediction = torch.as_tensor(result[key]).as_subclass(torch.Tensor)
            masked = prediction.masked_fill(label.to(prediction.device) == self.ignore_index, self.ignore_index)
            result[key] = convert_to_dst_type(masked, result[key], dtype=masked.dtype)[0]
        return result
