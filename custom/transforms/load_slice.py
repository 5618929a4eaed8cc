"""Loading of 2D slices."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from custom.errors import ConfigError, DataError

LPS = torch.diag(torch.tensor([-1.0, -1, 1, 1]))  # BraTS's own: x to the left, y to the back


class LoadSliced(MapTransform):
    """Loads a slice's image and masks, or a stack of slices, by a data set's own function, channels in one order.

    The result is "image" float32 and "label" uint8, (C, H, W), or for lists MetaTensors (C, H, W, S) of 1 mm, LPS.

    Args:
        keys: "image" and "label": each the arguments of `read` before its last, or a list of them.
        read: such as custom.datasets.brats_slices.read_slice(path, row, dataset), which gives (C, H, W).
        channel_order: names of the image's channels as they lie in the file.
        channels: the same names as they should come out.

    Raises:
        ConfigError: channel_order isn't channels in another order.
        DataError: what `read` raises.
    """

    def __init__(
        self,
        keys: KeysCollection,
        read: Callable[..., np.ndarray],
        channel_order: Sequence[str],
        channels: Sequence[str],
    ) -> None:
        super().__init__(keys)
        if sorted(channel_order) != sorted(channels):
            raise ConfigError(f"channel_order must be {list(channels)} in some order, got {list(channel_order)}.")
        self.read = read
        self.order = [list(channel_order).index(name) for name in channels]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its keys replaced, as the class describes."""
        result = dict(data)
        for key in self.key_iterator(result):
            places = result[key]
            if isinstance(places, list):
                slices = [self._one(key, place) for place in places]
                if len({voxels.shape for voxels in slices}) > 1:
                    raise DataError(f"{places[0][0]} and the slices with it differ in shape. Leave the volume out.")
                result[key] = MetaTensor(torch.stack(slices, dim=-1), affine=LPS)
            else:
                result[key] = self._one(key, places)
        return result

    def _one(self, key: Hashable, place: tuple) -> torch.Tensor:
        voxels = torch.from_numpy(self.read(*place, "image" if key == "image" else "mask"))
        return voxels[self.order].float() if key == "image" else voxels.to(torch.uint8, copy=True)  # both are copies
