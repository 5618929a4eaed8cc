"""Which format a file has, by its content: names may mislead, as .nii for packed NIfTI does."""

from __future__ import annotations

import bz2
import gzip
import stat
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel

from custom.errors import DataError, MissingDataError
from custom.reading.dicom_header import is_dicom

PAIRS = ((".hdr", ".img"), (".img", ".hdr"))
GZIP = b"\x1f\x8b"
OPENERS: dict[bytes, Callable[..., Any]] = {GZIP: gzip.open, b"BZ": bz2.open}  # by the first two bytes
LARGEST_RATIOS = {GZIP: 1032, b"BZ": 10_000_000}  # deflate packs no tighter; bzip2 packs zeros without a bound
PACKED = (".gz", ".mgz")  # endings that promise gzip
NIBABEL_FORMATS: dict[str, Any] = {
    "NIfTI": nibabel.Nifti1Image,
    "NIfTI-2": nibabel.Nifti2Image,
    "NIfTI pair": nibabel.Nifti1Pair,
    "NIfTI-2 pair": nibabel.Nifti2Pair,
    "Analyze": nibabel.Spm2AnalyzeImage,
    "MGH": nibabel.MGHImage,
}


def is_packed(path: Path) -> bool:
    """Whether a file is compressed by gzip or bzip2."""
    return _magic(path) in OPENERS


def largest_ratio(path: Path) -> int:
    """How many bytes one byte of a file may stand for: 1 if it is not packed."""
    return LARGEST_RATIOS.get(_magic(path), 1)


def open_unpacked(path: Path) -> Any:
    """Opens a file for reading, through gzip or bzip2 where its content is packed."""
    opener = OPENERS.get(_magic(path))
    return opener(path, "rb") if opener else path.open("rb")


def check_packed(path: Path) -> None:
    """Reads a packed file to its end, where its checksum lies, which readers of voxels do not reach.

    Raises:
        DataError: the file is damaged.
    """
    if not is_packed(path):
        return
    try:
        with open_unpacked(path) as file:
            while file.read(1 << 24):
                pass
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} can't be read to its end ({error}). Copy the file again.") from error


def _magic(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(2)


def files_of(path: Path) -> tuple[Path, Path]:
    """The header's and the voxels' file of a scan, which are the same but for .hdr and .img pairs.

    Raises:
        MissingDataError: one of the files does not exist.
        DataError: a pipe or a device, which a program may wait for without end.
    """
    require_regular(path)
    if path.is_symlink() and not path.exists():
        raise MissingDataError(f"{path} is a link to {path.readlink()}, which does not exist. Fetch that file.")
    if not path.is_file():
        raise MissingDataError(f"{path} does not exist. Correct its path, put the file back, or leave the subject out.")
    for ending, other in PAIRS:
        for pack in ("", ".gz"):
            if path.name.lower().endswith(ending + pack) and _format(path) not in ("NIfTI", "NIfTI-2", "DICOM"):
                partner = _partner(path, ending + pack, other)
                return (path, partner) if ending == ".hdr" else (partner, path)
    return path, path


def require_regular(path: Path) -> None:
    """Raises DataError for a pipe, a socket or a device. A path that does not exist, or is a folder, passes."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise DataError(f"{path} is a pipe or a device, and no file. Leave it out.")


def _partner(path: Path, ending: str, other: str) -> Path:
    name, written = path.name[: -len(ending)], path.name[-len(ending) :]
    other = other.upper() if written.isupper() else other
    tried = [path.with_name(name + other + pack) for pack in ("", ".gz", ".GZ")]
    for partner in tried:
        if partner.is_file():
            return partner
    raise MissingDataError(f"{tried[0]} does not exist. An Analyze scan consists of a .hdr and an .img file.")


def format_of(path: Path) -> str:
    """NIfTI, NIfTI-2, NIfTI pair, NIfTI-2 pair, Analyze, MGH, NRRD, MetaImage or DICOM; "" for any other content.

    Raises:
        MissingDataError: the file, or the other one of a .hdr and .img pair, does not exist.
    """
    header, _ = files_of(path)
    return _format(header)


def _format(path: Path) -> str:
    if is_dicom(path):
        return "DICOM"
    try:
        with open_unpacked(path) as file:
            start: bytes = file.read(400)
    except (OSError, EOFError):
        return ""
    signs = {
        "NIfTI": start[344:348] == b"n+1\0",
        "NIfTI pair": start[344:348] == b"ni1\0",
        "NIfTI-2": start[4:8] == b"n+2\0",
        "NIfTI-2 pair": start[4:8] == b"ni2\0",
        "Analyze": start[:4] in (struct.pack("<i", 348), struct.pack(">i", 348)),
        "MGH": start[:4] == b"\0\0\0\1" and len(start) > 283,
        "NRRD": start[:4] == b"NRRD",
        "MetaImage": b"NDims" in start or b"ObjectType" in start,
    }
    return next((name for name, fits in signs.items() if fits), "")


def load_by_content(path: Path) -> Any:
    """The nibabel image of a file, its voxels not read yet, whatever its name and its packing.

    Raises:
        MissingDataError: a file does not exist.
        ValueError, OSError, nibabel's errors: the content is none of nibabel's formats.
    """
    header, voxels = files_of(path)
    name = _format(header)
    kind = NIBABEL_FORMATS.get(name)
    if kind is None or _as_named(path, name, header, voxels):
        return nibabel.load(path)
    named = {"header": header, "image": voxels} if header != voxels else {"image": voxels}
    holders = {key: nibabel.FileHolder(str(file), open_unpacked(file)) for key, file in named.items()}
    return kind.from_file_map(holders)


def _as_named(path: Path, kind: str, header: Path, voxels: Path) -> bool:
    """Whether format and packing fit the names of the files, from which nibabel derives them."""
    endings = (".mgh", ".mgz") if kind == "MGH" else (".nii", ".nii.gz", ".hdr", ".hdr.gz", ".img", ".img.gz")
    promised = [file.name.lower().endswith(PACKED) for file in (header, voxels)]
    packed = [_magic(file) == GZIP for file in (header, voxels)]
    others = [_magic(file) in OPENERS and _magic(file) != GZIP for file in (header, voxels)]
    return path.name.lower().endswith(endings) and promised == packed and len(set(promised)) == 1 and not any(others)
