"""What a scan may span and how many voxels it may have, checked in its header before the voxels take memory."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from custom.errors import ConfigError, DataError

MAX_VOXELS = "BRAINMRI_MAX_VOXELS"  # environment variable: every command and the processes that it starts read it
DEFAULT_MAX_VOXELS = 150_000_000  # a head at 0.5 mm has up to 512 x 512 x 512 = 134 million
THINNEST, SMALLEST, LARGEST = 12, 40, 600  # mm: of a slab, of a slab's other sides, and of any field of view


def max_voxels() -> int:
    """The largest number of values that a file may have. Raises ConfigError if the environment holds no number."""
    given = os.environ.get(MAX_VOXELS, "")
    if given and not (given.isdecimal() and int(given)):
        raise ConfigError(f"{MAX_VOXELS} must be a whole number above 0, got {given!r}.")
    return int(given or DEFAULT_MAX_VOXELS)


def check_size(path: Path, shape: Sequence[int]) -> None:
    """Checks the number of values that a header promises.

    Args:
        path: the file, for the message.
        shape: all its axes.

    Raises:
        DataError: more than `max_voxels`.
    """
    count, limit = math.prod(int(size) for size in shape), max_voxels()
    if count > limit:
        raise DataError(
            f"{path} has {'x'.join(map(str, shape))} voxels, {count / 1e6:.4g} million; the limit is {limit / 1e6:.4g} "
            f"million. Resample it, or set the environment variable {MAX_VOXELS} to a larger number."
        )


def check_scan(path: Path, shape: Sequence[int], affine: np.ndarray) -> None:
    """Checks that a header describes a head, and a scan that is not too large to read.

    Args:
        path: the file, for the message.
        shape: (x, y, z).
        affine: (4, 4), voxels to mm.

    Raises:
        DataError: more than `max_voxels`, an affine that places no voxel, or extents that no scan of a head has.
    """
    check_size(path, shape)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise DataError(f"{path} has an affine that places no voxel ({affine[:3].tolist()}). Correct its header.")
    extent = np.linalg.norm(affine[:3, :3], axis=0) * shape
    mm = " x ".join(f"{side:.4g}" for side in extent)
    if extent.max() > LARGEST or sorted(extent)[1] < SMALLEST:
        raise DataError(f"{path} spans {mm} mm, which no scan of a head does. Correct the voxel sizes in its header.")
    if extent.min() < THINNEST:
        raise DataError(f"{path} spans {mm} mm. A slab of {extent.min():.3g} mm is too thin, {THINNEST} mm are needed.")


def reason_of(error: BaseException) -> str:
    """The last line of an error's message, which holds the reason in ITK's messages, without ITK's object."""
    last = " ".join(str(error).strip().splitlines()[-1:])
    return re.sub(r"^(sitk::|ITK )ERROR: (\w+\(0x\w+\): )?", "", last)


def unreadable(path: Path, error: BaseException) -> DataError:
    """The error for a file whose voxels could not be read: for lack of memory, or because it is damaged."""
    reason = reason_of(error)
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return DataError(f"There is not enough memory to read {path} ({reason}). Use a machine with more, or resample.")
    return DataError(f"{path} can't be read to its end ({reason}). Copy the file again.")
