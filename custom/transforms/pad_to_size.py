"""Padding that says when a volume is smaller than the sub-volumes asked for."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import SpatialPadd

logger = logging.getLogger(__name__)


class PadToSized(SpatialPadd):
    """monai.transforms.SpatialPadd that logs the first time a volume is padded.

    Args:
        keys: (C, x, y, z) volumes of one shape.
        spatial_size: the least size after padding.
    """

    def __init__(self, keys: KeysCollection, spatial_size: Sequence[int], **kwargs: Any) -> None:
        super().__init__(keys, spatial_size, **kwargs)
        self.size = tuple(spatial_size)
        self.warned = False

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Returns the item with its keys replaced, as the class describes."""
        shape = tuple(data[self.keys[0]].shape[1:])
        if not self.warned and any(have < want for have, want in zip(shape, self.size, strict=True)):
            logger.warning("A volume of %s is smaller than the roi %s: it is padded with zeros.", shape, self.size)
            self.warned = True
        return super().__call__(data, lazy)
