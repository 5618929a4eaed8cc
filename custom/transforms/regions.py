"""From labels to regions that overlap, and back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type

from custom.errors import ConfigError


class LabelsToRegionsd(MapTransform):
    """One channel for each region: 1 where the label is one of the region's, as float32.

    MONAI's ConvertToMultiChannelBasedOnBratsClassesd does this for one order of labels only, which isn't the
    Decathlon's.

    Args:
        keys: label maps (1, ...).
        regions: {"WT": (1, 2, 3), "TC": (1, 3), ...}, the channels in this order.
        ignore_index: None. Region channels cannot leave voxels out.

    Raises:
        ConfigError: an ignore_index, since its voxels would count as background.
    """

    def __init__(
        self, keys: KeysCollection, regions: Mapping[str, Sequence[int]], ignore_index: int | None = None
    ) -> None:
        super().__init__(keys)
        if ignore_index is not None:
            raise ConfigError(
                'The recipe regions cannot leave out voxels with the label "ignore". Train without this recipe.'
            )
        self.regions = dict(regions)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its keys replaced, as the class describes."""
        result = dict(data)
        for key in self.key_iterator(result):
            labels = torch.as_tensor(result[key]).as_subclass(torch.Tensor)
            channels = [
                torch.isin(labels, torch.tensor(list(members), dtype=labels.dtype, device=labels.device))
                for members in self.regions.values()
            ]
            regions = torch.cat(channels).float()
            result[key] = convert_to_dst_type(regions, result[key], dtype=regions.dtype)[0]
        return result


class RegionsToLabelsd(MapTransform):
    """A label map (1, ...) uint8 from logits of nested regions: 0, overpainted by each region where its logit is > 0.

    Args:
        keys: logits (regions, ...).
        labels: what each region paints, the widest first: (2, 1, 3) for WT, TC and ET means that what is whole tumor
            but not core is edema, and what is core but not enhancing is NCR.
    """

    def __init__(self, keys: KeysCollection, labels: Sequence[int]) -> None:
        super().__init__(keys)
        self.labels = tuple(labels)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its keys replaced, as the class describes."""
        result = dict(data)
        for key in self.key_iterator(result):
            logits = torch.as_tensor(result[key]).as_subclass(torch.Tensor)
            painted = torch.zeros_like(logits[:1], dtype=torch.uint8)
            within = torch.ones_like(logits[:1], dtype=torch.bool)
            for logit, label in zip(logits, self.labels, strict=True):
                within = within & (logit[None] > 0)
                painted[within] = label
            result[key] = convert_to_dst_type(painted, result[key], dtype=painted.dtype)[0]
        return result


class AddBackgroundd(MapTransform):
    """Puts a channel for the background before a channel for each class that may be there or not.

    Args:
        keys: masks of 0 and 1, or logits, (C, ...); the result is (1 + C, ...).
        logits: the background's logit is 0, so that argmax takes a class only where its sigmoid is above one half, and
            the likeliest; without, the background is where no mask is.
    """

    def __init__(self, keys: KeysCollection, logits: bool = False) -> None:
        super().__init__(keys)
        self.logits = logits

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its keys replaced, as the class describes."""
        result = dict(data)
        for key in self.key_iterator(result):
            classes = torch.as_tensor(result[key]).as_subclass(torch.Tensor)
            background = torch.zeros_like(classes[:1]) if self.logits else 1 - classes.amax(0, keepdim=True)
            channels = torch.cat([background, classes])
            result[key] = convert_to_dst_type(channels, result[key], dtype=channels.dtype)[0]
        return result
