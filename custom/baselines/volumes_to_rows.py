"""Scans of one size as rows of a matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch.utils.data import DataLoader, Dataset

from custom.errors import BrainMRIError, find_cause


def volumes_to_rows(
    images: Sequence[str], preprocessing: Callable[[dict], dict], workers: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Every scan as the bundle's preprocessing gives it, flat.

    Args:
        images: paths of skull-stripped scans.
        preprocessing: such as the bundle's custom.transforms.KeepOnDiskd, from {"image": path} to "image", one size for
            all, and "brain_ml", the brain's volume.
        workers: processes that work beside this one.

    Returns:
        (n, voxels) float32, and the brains' volumes in ml, (n,).

    Raises:
        DataError: a scan that can't be read, or holds NaN or nothing but zeros.
    """
    matrix, volumes = np.empty((len(images), 0), dtype=np.float32), np.empty(len(images))
    scans = DataLoader(_Scans(images, preprocessing), batch_size=None, num_workers=workers)
    for number, found in enumerate(scans):
        if isinstance(found, BrainMRIError):
            raise found
        if number == 0:  # filled row by row: together the persons take much memory
            matrix = np.empty((len(images), len(found[0])), dtype=np.float32)
        matrix[number], volumes[number] = found
    return matrix, volumes


class _Scans(Dataset):
    """What a user can mend comes back as a value: raised in another process, an error would lose its sentence."""

    def __init__(self, images: Sequence[str], preprocessing: Callable[[dict], dict]) -> None:
        self.images, self.preprocessing = [str(path) for path in images], preprocessing

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> tuple[np.ndarray, float] | BrainMRIError:
        try:
            found = self.preprocessing({"image": self.images[number]})
        except Exception as error:
            if cause := find_cause(error):
                return cause
            raise
        return np.asarray(found["image"], dtype=np.float32).ravel(), float(found["brain_ml"])
