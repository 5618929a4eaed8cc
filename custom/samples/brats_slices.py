"""A small simulated set of BraTS 2020 slices, one HDF5 file each (custom.samples.tumor)."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import torch
from monai.transforms import ResizeWithPadOrCrop

from custom.datasets.brats_slices import CHANNEL_ORDER
from custom.files import sample_written_whole
from custom.samples.brats import check
from custom.samples.iseg import tissue_maps
from custom.samples.tumor import patient


def write(folder: str | Path, spacing: int = 3, labelled: int = 10, seed: int = 0) -> Path:
    """Writes every axial slice of some patients as volume_V_slice_S.h5, as the public set has them.

    `image` is (size, size, 4) float64, each volume's z-scores over the brain and 0 outside; `mask` (size, size, 3)
    uint8, NCR, ED and ET.

    Args:
        folder: a new or empty folder.
        spacing: voxel size in mm; the slices are 240x240 at 1 mm, 128x128 at 2 mm, 80x80 at 3 mm, 64x64 at 4 mm.
        labelled: number of patients.
        seed: of the random numbers.
    """
    check(spacing, labelled)
    recipe = {"sample": "brats_slices", "spacing": spacing, "labelled": labelled, "seed": seed}
    with sample_written_whole(folder, recipe) as partial:
        if partial:
            maps, voxel_size = tissue_maps(spacing)
            size = {1: 240, 2: 128, 3: 80, 4: 64}[spacing]
            for number in range(1, labelled + 1):
                files = patient(maps, voxel_size, np.random.default_rng([seed, number]))
                fit = ResizeWithPadOrCrop((size, size, maps.shape[-1]))
                # As BraTS's own arrays lie: x to the left, y to the back.
                label = _fitted(fit, files["label"][None, ::-1, ::-1])[0].astype(np.uint8)
                scans = np.stack([files[name] for name in CHANNEL_ORDER])[:, ::-1, ::-1]
                scans = _fitted(fit, scans).astype(np.float64)
                for scan in scans:
                    inside = scan != 0
                    scan[inside] = (scan[inside] - scan[inside].mean()) / scan[inside].std()
                for index in range(label.shape[-1]):
                    with h5py.File(partial / f"volume_{number}_slice_{index}.h5", "w") as file:
                        image = np.moveaxis(scans[..., index], 0, -1)
                        mask = np.stack([label[..., index] == code for code in (1, 2, 3)], axis=-1)
                        file.create_dataset("image", data=image, compression="gzip")
                        file.create_dataset("mask", data=mask.astype(np.uint8), compression="gzip")
    return Path(folder).expanduser()


def _fitted(fit: ResizeWithPadOrCrop, voxels: np.ndarray) -> np.ndarray:
    return np.asarray(fit(torch.as_tensor(voxels.copy())))  # a copy: torch takes no negative strides
