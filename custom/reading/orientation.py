"""Where the voxels of a volume lie, and gaps and contradictions in its header."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from custom.reading.containers import open_unpacked

WORDS = {
    "R": "left to right", "L": "right to left", "A": "back to front", "P": "front to back", "S": "bottom to top",
    "I": "top to bottom",
}  # fmt: skip
APART = 1.0  # mm between the places of a corner by sform and by qform that are no rounding
UNITS = {1: ("metres", 1000.0), 3: ("micrometres", 0.001)}  # NIfTI's codes of lengths; 2 are millimetres
HEAD = (40.0, 600.0)  # mm: extents of a head's field of view


def no_orientation(affine: np.ndarray) -> str:
    """The warning that a header has no orientation, with the orientation that an affine (4, 4) stands for."""
    x, y, z = (WORDS.get(code or "", "unknown") for code in nibabel.aff2axcodes(affine))
    return f"its header has no orientation: x is taken as {x}, y as {y}, z as {z}"


def affine_of(image: Any) -> tuple[np.ndarray, list[str]]:
    """The affine of a nibabel image, (4, 4), voxels to mm, RAS+, and warnings about it.

    NIfTI's sform is used where its code is above 0, else the qform, as nibabel does.
    """
    affine = np.asarray(image.affine, dtype=np.float64)
    header = image.header
    if isinstance(image, nibabel.MGHImage):
        return affine, [] if _has_ras(image) else [no_orientation(affine)]
    if not isinstance(image, nibabel.Nifti1Pair):
        return affine, [no_orientation(affine)] if isinstance(image, nibabel.AnalyzeImage) else []
    warnings = []
    if header["sform_code"] == 0 and header["qform_code"] == 0:
        warnings.append(no_orientation(affine))
    elif header["sform_code"] > 0 and header["qform_code"] > 0:
        affine, warnings = _sform_or_qform(header, image.shape, affine)
    warnings += _sizes(header, affine)
    return _in_mm(affine, image.shape, int(header["xyzt_units"]) & 7, warnings)


def _has_ras(image: Any) -> bool:
    """Whether an MGH file says that its orientation is valid; nibabel sets that flag also if it is not."""
    path = image.file_map["image"].filename
    if path is None:
        return True
    with open_unpacked(Path(path)) as file:
        return int(struct.unpack(">h", file.read(30)[28:])[0]) > 0


def _sform_or_qform(header: Any, shape: Sequence[int], sform: np.ndarray) -> tuple[np.ndarray, list[str]]:
    try:
        qform = np.asarray(header.get_qform(), dtype=np.float64)
    except (ValueError, nibabel.spatialimages.HeaderDataError):
        return sform, ["its qform cannot be read: the sform is used"]
    if not _places(qform):
        return sform, []
    if not _places(sform):
        return qform, ["its sform places no voxel: the qform is used"]
    corners = np.array([[*corner, 1] for corner in itertools.product(*((0, size - 1) for size in shape[:3]))])
    apart = float(np.linalg.norm((corners @ (sform - qform).T)[:, :3], axis=1).max())
    if apart <= APART:
        return sform, []
    return sform, [f"its sform and its qform place it up to {apart:.3g} mm apart: the sform is used"]


def _sizes(header: Any, affine: np.ndarray) -> list[str]:
    """The warning that the header gives voxels another size (pixdim) than its affine does."""
    sizes, given = np.linalg.norm(affine[:3, :3], axis=0), np.asarray(header["pixdim"][1:4], dtype=np.float64)
    if not (given > 0).all() or np.allclose(sizes, given, rtol=0.02, atol=1e-3):
        return []
    shown, other = (" x ".join(f"{size:.3g}" for size in each) for each in (given, sizes))
    return [f"its header gives voxels the sizes {shown} (pixdim) and {other} (sform): the sform is used"]


def _places(affine: np.ndarray) -> bool:
    return bool(np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-9)


def _in_mm(affine: np.ndarray, shape: Sequence[int], unit: int, warnings: list[str]) -> tuple[np.ndarray, list[str]]:
    if unit not in UNITS or not np.isfinite(affine).all():
        return affine, warnings
    name, factor = UNITS[unit]
    if _as_large_as_a_head(affine, shape) and not _as_large_as_a_head(affine * factor, shape):
        return affine, [*warnings, f"its header gives lengths in {name}, which no head has: they are taken as mm"]
    scaled = np.diag([factor, factor, factor, 1.0]) @ affine
    return scaled, [*warnings, f"its header gives lengths in {name}: results are in mm"]


def _as_large_as_a_head(affine: np.ndarray, shape: Sequence[int]) -> bool:
    extent = np.linalg.norm(affine[:3, :3], axis=0) * shape[:3]
    return bool(sorted(extent)[1] >= HEAD[0] and extent.max() <= HEAD[1])
