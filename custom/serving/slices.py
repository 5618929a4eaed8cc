"""Labelled volumes as slices, for the training of a 2D bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from custom.reading.volumes import open_volume


def as_slices(studies: Sequence[Mapping[str, Any]], masks: int, folder: Path) -> list[dict[str, Any]]:
    """Writes volumes in the prepared form of custom.datasets.brats_slices, for custom.transforms.LoadSliced.

    Intensities become z-scores of each channel of a volume, rounded to float16.

    Args:
        studies: [{"subject": ..., "image": [a path for each channel], "label": path}, ...]
        masks: how many labels there are; label 1 is the first mask.
        folder: for volume_N_image.npy (S, C, H, W) float16 and volume_N_mask.npy (S, masks, H, W) uint8.

    Returns:
        One item for each study: {"subject": ..., "image": [(path, row), ...], "label": [(path, row), ...]}
    """
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for number, study in enumerate(studies, start=1):
        channels = np.stack([_lps(path).astype(np.float32) for path in study["image"]])
        mean, std = channels.mean(axis=(1, 2, 3), keepdims=True), channels.std(axis=(1, 2, 3), keepdims=True)
        label = _lps(study["label"])
        stacks = {
            "image": ((channels - mean) / np.maximum(std, 1e-6)).astype(np.float16),
            "mask": np.stack([label == code for code in range(1, masks + 1)]).astype(np.uint8),
        }
        paths = {name: folder / f"volume_{number}_{name}.npy" for name in stacks}
        for name, stack in stacks.items():
            np.save(paths[name], np.ascontiguousarray(np.moveaxis(stack, -1, 0)))
        rows = range(label.shape[-1])
        items.append(
            {
                "subject": study["subject"],
                "image": [(str(paths["image"]), row) for row in rows],
                "label": [(str(paths["mask"]), row) for row in rows],
            }
        )
    return items


def one_by_one(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One item for each slice instead of each study."""
    return [
        {"subject": item["subject"], "slice": row, "image": item["image"][row], "label": item["label"][row]}
        for item in items
        for row in range(len(item["image"]))
    ]


def _lps(path: str | Path) -> np.ndarray:
    """The voxels (x, y, z) of a volume, turned to LPS+."""
    image = open_volume(path)
    lps = nibabel.orientations.axcodes2ornt("LPS")
    moved = image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), lps))
    return np.asarray(moved.dataobj)
