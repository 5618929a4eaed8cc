"""Scans of one size as rows of a matrix, computed once and kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from monai.data import DataLoader, PersistentDataset
from monai.data.utils import pickle_hashing
from monai.transforms import (
    Compose,
    CropForegroundd,
    EnsureChannelFirstd,
    NormalizeIntensityd,
    Orientationd,
    Resized,
    Transform,
)

from custom.transforms import LoadVolumesd


def volumes_to_rows(
    images: Sequence[str], size: Sequence[int], cache_dir: str | Path, workers: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Every scan cropped to its brain, resized, with mean 0 and deviation 1 in the brain and 0 outside.

    Each scan's result is a file in cache_dir, written whole: what is there is not computed again, and a run that was
    stopped goes on. Another size, or another version of a step, makes new files.

    Args:
        images: paths of skull-stripped scans, 0 outside the brain.
        size: (H, W, D) of the results, in voxels.
        cache_dir: made if need be.
        workers: processes that work beside this one.

    Returns:
        (n, H * W * D) float32, and the brains' volumes in ml, (n,).

    Raises:
        DataError: a scan that can't be read, or holds NaN or nothing but zeros.
    """
    steps = Compose(
        [
            LoadVolumesd("image"),
            EnsureChannelFirstd("image"),
            Orientationd("image", axcodes="RAS", labels=None),
            _BrainVolume(),
            CropForegroundd("image", source_key="image", select_fn=_inside, allow_smaller=True),
            Resized("image", spatial_size=tuple(size), mode="trilinear", anti_aliasing=True),
            NormalizeIntensityd("image", nonzero=True),
        ]
    )
    items = [{"image": str(path)} for path in images]
    dataset = PersistentDataset(items, steps, cache_dir=Path(cache_dir), hash_transform=pickle_hashing)
    loader = DataLoader(dataset, batch_size=1, num_workers=workers, collate_fn=_only)
    matrix, volumes = np.empty((len(items), int(np.prod(size))), dtype=np.float32), np.empty(len(items))
    for number, item in enumerate(loader):
        matrix[number] = torch.as_tensor(item["image"]).flatten().numpy()
        volumes[number] = float(item["brain_ml"])
    return matrix, volumes


def _inside(image: torch.Tensor) -> torch.Tensor:
    return image != 0


def _only(batch: list[dict]) -> dict:
    return batch[0]


class _BrainVolume(Transform):  # PersistentDataset keeps the results of Transforms only
    """Notes how much of a scan isn't 0, in ml, before the resizing makes all brains one size."""

    def __call__(self, item: dict) -> dict:
        image = item["image"]
        return item | {"brain_ml": float((image != 0).sum()) * float(image.pixdim.prod()) / 1000}
