"""Cropping 2D images to the head."""

from __future__ import annotations

from functools import partial

import numpy as np
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import CropForegroundd
from scipy import ndimage


def head_mask(image: NdarrayOrTensor, threshold: float = 0.18) -> np.ndarray:
    """The largest bright object of an image, or everything where nothing is bright.

    Public notebooks on brain tumor images take the largest contour of what is brighter than 45 of 255 after a blur.

    Args:
        image: (C, H, W).
        threshold: a share of the image's brightest value after the blur; 0.18 is 45 of 255.

    Returns:
        bool (1, H, W).

    Raises:
        ValueError: an image that isn't (C, H, W), or a threshold that isn't between 0 and 1.
    """
    pixels = np.asarray(image, dtype=np.float32)
    if pixels.ndim != 3:
        raise ValueError(f"head_mask takes an image (C, H, W), got the shape {pixels.shape}.")
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must be between 0 and 1, got {threshold!r}.")
    smooth = ndimage.gaussian_filter(pixels.mean(axis=0), sigma=min(pixels.shape[1:]) / 100)
    objects, number = ndimage.label(smooth > threshold * smooth.max())
    if not number:
        return np.ones((1, *objects.shape), dtype=bool)
    mask: np.ndarray = objects == 1 + np.bincount(objects.ravel())[1:].argmax()
    return mask[None]


class CropToHeadd(CropForegroundd):
    """Crops to the box around `head_mask`: monai.transforms.CropForegroundd with that mask.

    Args:
        keys: what is cropped, (C, H, W).
        source_key: the image that the head is looked for in.
        threshold: as head_mask takes it.
        margin: pixels left around the box.
        allow_missing_keys: as in MONAI.
    """

    def __init__(
        self,
        keys: KeysCollection,
        source_key: str = "image",
        threshold: float = 0.18,
        margin: int = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(
            keys,
            source_key,
            select_fn=partial(head_mask, threshold=threshold),
            margin=margin,
            allow_smaller=True,
            allow_missing_keys=allow_missing_keys,
        )
