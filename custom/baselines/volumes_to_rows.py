"""Scans of one size as rows of a matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from monai.data import Dataset
from torch.utils.data import DataLoader

from custom.errors import find_cause


def volumes_to_rows(
    images: Sequence[str], preprocessing: Callable[[dict[str, Any]], dict[str, Any]], workers: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Every scan after the bundle's preprocessing, flattened to a row.

    Args:
        images: paths of skull-stripped scans.
        preprocessing: such as the bundle's custom.transforms.KeepOnDiskd, from {"image": path} to "image", one size for
            all, and "brain_ml", the brain's volume in ml.
        workers: additional processes.

    Returns:
        (n, voxels) float32, and the brains' volumes in ml, (n,).

    Raises:
        DataError: a scan that cannot be read, or holds NaN or only zeros.
    """
    matrix, volumes = np.empty((len(images), 0), dtype=np.float32), np.empty(len(images))
    dataset = Dataset([{"image": str(path)} for path in images], preprocessing)
    try:
        for number, scan in enumerate(DataLoader(dataset, batch_size=None, num_workers=workers)):
            row = np.asarray(scan["image"], dtype=np.float32).ravel()
            if number == 0:  # filled row by row, since the whole matrix takes much memory
                matrix = np.empty((len(images), len(row)), dtype=np.float32)
            matrix[number], volumes[number] = row, float(scan["brain_ml"])
    except Exception as error:
        raise find_cause(error) or error from error
    return matrix, volumes
