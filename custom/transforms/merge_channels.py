"""Probabilities of labels that are sums of a network's outputs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type


class MergeChannelsd(MapTransform):
    """Softmax over a network's classes, then the sum over the classes of each label.

    Args:
        keys: logits (C, x, y, z), replaced by probabilities (K, x, y, z).
        groups: for each of the K labels, the channels that count to it; channels in none of them, such as the side,
            are left out of the softmax too. None: each channel is a label.
    """

    def __init__(self, keys: Any, groups: Sequence[Sequence[int]] | None) -> None:
        super().__init__(keys)
        self.groups = groups

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its keys replaced, as the class describes."""
        result = dict(data)
        for key in self.key_iterator(result):
            logits = torch.as_tensor(result[key])
            groups = self.groups or [[channel] for channel in range(len(logits))]
            order = [channel for group in groups for channel in group]
            each = torch.as_tensor(logits)[order].float().softmax(dim=0)
            parts = each.split([len(group) for group in groups])
            merged = torch.stack([part.sum(dim=0) for part in parts])
            result[key] = convert_to_dst_type(merged, logits)[0]
        return result
