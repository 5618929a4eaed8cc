"""Scans of one size as rows of a matrix."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import Dataset
from torch.utils.data import DataLoader

from custom.errors import find_cause
from custom.planning.memory import memory_of_cpu

MOST = 0.5  # share of the memory that the rows may take


def volumes_to_rows(
    images: Sequence[str],
    preprocessing: Callable[[dict[str, Any]], dict[str, Any]],
    workers: int = 0,
    folder: str | Path | None = None,
    most: float = MOST,
) -> tuple[np.ndarray, np.ndarray]:
    """Every scan after the bundle's preprocessing, flattened to a row.

    Args:
        images: paths of skull-stripped scans.
        preprocessing: such as the bundle's custom.transforms.KeepOnDiskd, from {"image": path} to "image", one size for
            all, and "brain_ml", the brain's volume in ml.
        workers: additional processes.
        folder: where rows lie that take more than `most` of the memory, in a file that ends with the process. None
            keeps all rows in memory.
        most: a share of the memory.

    Returns:
        (n, voxels) float32, and the brains' volumes in ml, (n,).

    Raises:
        DataError: a scan that cannot be read, or holds NaN or only zeros.
        WriteError: the disk has no room for the rows.
    """
    matrix, volumes = np.empty((len(images), 0), dtype=np.float32), np.empty(len(images))
    dataset = Dataset([{"image": str(path)} for path in images], preprocessing)
    try:
        for number, scan in enumerate(DataLoader(dataset, batch_size=None, num_workers=workers)):
            row = np.asarray(scan["image"], dtype=np.float32).ravel()
            if number == 0:  # filled row by row, since the whole matrix takes much memory
                matrix = _empty((len(images), len(row)), folder, most)
            matrix[number], volumes[number] = row, float(scan["brain_ml"])
    except Exception as error:
        raise find_cause(error) or error from error
    return matrix, volumes


def _empty(shape: tuple[int, int], folder: str | Path | None, most: float) -> np.ndarray:
    """A float32 matrix in memory, or in a file without a name."""
    size = 4 * shape[0] * shape[1]
    if folder is None or size <= most * memory_of_cpu():
        return np.empty(shape, dtype=np.float32)
    place = Path(folder).expanduser()
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=place) as file:
        if hasattr(os, "posix_fallocate"):  # a full disk is found now, and not in the middle of a write
            os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(file, dtype=np.float32, mode="w+", shape=shape)
