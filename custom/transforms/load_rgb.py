"""Loading of 2D images."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from custom.reading.images import read_image


class LoadRGBd(MapTransform):
    """Loads JPEG and PNG files, whose paths are at `keys`, as RGB, grey ones as three equal channels.

    Not monai.transforms.LoadImaged with PILReader, which swaps the axes, gives one, two, three or four channels as they
    come, and lets what isn't a whole picture of 8 bits a channel pass or fail with an error of Pillow's.

    The result is a MetaTensor (3, H, W), float32, 0 to 1, the first row the picture's upper one; the path is its meta's
    filename_or_obj.

    Raises:
        DataError: what custom.reading.images.read_image raises.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its keys replaced, as the class describes."""
        result = dict(data)
        for key in self.key_iterator(result):
            path = str(result[key])
            pixels = np.array(read_image(path), dtype=np.float32) / 255
            result[key] = MetaTensor(torch.from_numpy(pixels).permute(2, 0, 1).contiguous())
            result[key].meta["filename_or_obj"] = path
        return result
