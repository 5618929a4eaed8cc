"""A DICOM series as one volume: every file of a folder is used, left out with a warning, or refused by name."""

from __future__ import annotations

import logging
import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np

from custom.errors import DataError
from custom.reading.containers import is_packed
from custom.reading.dicom_compression import check_compression
from custom.reading.dicom_header import SAMPLES, SERIES, DicomHeader, is_dicom, read_header
from custom.reading.dicom_slices import Slice, slices_of
from custom.reading.dicom_volume import (
    OF_A_VOLUME,
    check_gaps,
    check_one_grid,
    check_one_volume,
    check_straight,
    grouped,
)
from custom.reading.limits import check_scan, reason_of
from custom.reading.volumes import natural_order

logger = logging.getLogger(__name__)
MODALITY = 0x00080060
OTHER_FILES = {".txt", ".json", ".csv", ".tsv", ".xml", ".html", ".pdf", ".jpg", ".jpeg", ".png", ".bmp", ".gif"}
OTHER_FILES |= {".zip", ".db", ".ini", ".inf", ".exe", ".md", ".log", ".nii", ".gz", ".bval", ".bvec"}


def dicom_files(folder: Path) -> list[Path]:
    """All files of a folder that may be DICOM, in natural order: not hidden ones, and no DICOMDIR."""
    files = [path for path in folder.iterdir() if path.is_file() and path.name[0] != "." and path.name != "DICOMDIR"]
    return sorted(files, key=natural_order)


def holds_dicom(folder: Path) -> bool:
    """Whether a folder itself holds a DICOM file."""
    return folder.is_dir() and any(_begins_as_dicom(path) for path in dicom_files(folder))


def _begins_as_dicom(path: Path) -> bool:
    try:
        return is_dicom(path)
    except OSError as error:
        logger.warning("%s cannot be read (%s): correct its permissions.", path, error.strerror)
        return False


def volume_of(folder: Path) -> Hashable:
    """What slices of one volume share, from the first image of a folder; None if no image can be read."""
    for file in dicom_files(folder):
        try:
            header = read_header(file)
            if header and header.pixels:
                kinds = slices_of(header)[0].differences
                return header.text(SERIES), *(kinds.get(name) for name in (*OF_A_VOLUME, "temporal position"))
        except (DataError, OSError):  # reading the folder says so
            return None
    return None


def read_dicom(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Reads a series from a folder, or a multi-frame file.

    Returns:
        voxels (x, y, z), float32; affine (4, 4), voxels to mm, RAS+; warnings, a sentence each.

    Raises:
        DataError: a file is cut short, or the files are not the slices of one MR volume.
    """
    headers = _headers(path)
    warnings: list[str] = []
    slices = [image for header in headers for image in slices_of(header)]
    slices, copies = _without_copies(slices, {header.path: header for header in headers})
    if copies:
        warnings.append(f"{copies} of its files are copies of others: each slice is used once")
    check_one_grid(path, slices)
    slices = sorted(slices, key=lambda image: image.height)
    check_one_volume(path, slices)
    check_straight(path, slices)
    warnings += check_gaps(path, slices)
    affine = _affine(slices)
    check_scan(path, (*slices[0].shape, len(slices)), affine)
    return _pixels(path, slices), affine, warnings


def _headers(path: Path) -> list[DicomHeader]:
    """The headers of all images: of one series, MR and grey."""
    files = dicom_files(path) if path.is_dir() else [path]
    read = {file: read_header(file) for file in files}
    headers = [header for header in read.values() if header and header.pixels]
    if not headers:
        raise DataError(f"{path} has no DICOM series that can be read. Give the folder that holds its files.")
    _check_other_files([file for file, header in read.items() if header is None], headers)
    series = grouped(headers, lambda header: header.text(SERIES))
    if len(series) > 1:
        listed = ", ".join(f"{group[0].path.name} and {len(group) - 1} more" for group in series)
        raise DataError(f"{path} holds {len(series)} DICOM series ({listed}). Give each a folder of its own.")
    for header in headers:
        where = path if len(headers) == 1 or header is headers[0] else header.path
        if header.text(MODALITY) not in ("MR", ""):
            raise DataError(f"{where} is {header.text(MODALITY)}, not MR. This network works on MR scans only.")
        check_compression(header)
        if header.integer(SAMPLES, 1) != 1:
            raise DataError(
                f"{where} has {header.integer(SAMPLES)} values a voxel, as colour and diffusion scans have. "
                "Give a plain scan."
            )
    return headers


def _check_other_files(others: Sequence[Path], headers: Sequence[DicomHeader]) -> None:
    """Refuses a file that is named like the images but is none, as a broken copy or download leaves it.

    A text beside the images is no slice, unless it has their ending or their name with another number.
    """
    endings = {_ending(header.path) for header in headers} - OTHER_FILES
    patterns = {_pattern(header.path) for header in headers}
    for file in others:
        plain, ending = file.with_suffix(""), _ending(file)
        if is_packed(file) and _pattern(plain) in patterns and not plain.exists():
            raise DataError(f"{file} is packed by gzip or bzip2, so its slice is missing. Unpack it.")
        if _is_text(file):
            if _pattern(file) in patterns or (ending and ending in endings):
                raise DataError(f"{file} is a text in the place of a slice. Copy it again, or remove it.")
        elif ending in endings:
            size = file.stat().st_size
            raise DataError(
                f"{file} is cut short ({size} bytes that are no DICOM). Copy it again, or take it out of the folder."
            )


def _ending(file: Path) -> str:
    """.dcm, .IMA, ... in lower case; "" for a name without one or a number that ends in a dot and digits."""
    ending = file.suffix.lower()
    return "" if ending[1:].isdigit() or len(ending) > 5 else ending


def _pattern(file: Path) -> str:
    """The name with # for every number: IM#.dcm."""
    return re.sub(r"\d+", "#", file.name.lower())


def _is_text(file: Path) -> bool:
    with file.open("rb") as opened:
        start = opened.read(1000)
    return bool(start) and all(byte >= 32 or byte in b"\t\r\n\f" for byte in start)


def _without_copies(slices: list[Slice], headers: Mapping[Path, DicomHeader]) -> tuple[list[Slice], int]:
    """The slices without exact copies of others (one SOPInstanceUID, equal pixels), and how many files these were."""
    kept, copies = [], set()
    compared: set[tuple[Path, Path]] = set()
    for group in grouped(slices, lambda image: (image.instance or image.path, image.frame)):
        first, *others = group
        for other in others:
            pair = (first.path, other.path)
            if pair not in compared and _pixel_bytes(headers[first.path]) != _pixel_bytes(headers[other.path]):
                raise DataError(
                    f"{first.path} and {other.name} have the same SOPInstanceUID but different pixels. "
                    "Keep the right one of them."
                )
            compared.add(pair)
            copies.add(other.path)
        kept.append(first)
    return kept, len(copies)


def _pixel_bytes(header: DicomHeader) -> bytes:
    first, last = header.pixels or (0, 0)
    return header.path.read_bytes()[first:last]


def _pixels(path: Path, slices: list[Slice]) -> np.ndarray:
    """(x, y, z), float32, rescaled as each file's header says."""
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetOutputPixelType(SimpleITK.sitkFloat32)
    frames: dict[Path, np.ndarray] = {}
    voxels = np.empty((*slices[0].shape, len(slices)), dtype=np.float32)
    for k, image in enumerate(slices):
        if image.path not in frames:
            try:
                reader.SetFileName(str(image.path))
                pixels = SimpleITK.GetArrayFromImage(reader.Execute())
            except Exception as error:
                raise DataError(
                    f"{image.path} can't be read ({reason_of(error)}). Copy it again, or convert {path} to NIfTI."
                ) from error
            frames = {image.path: pixels.reshape(-1, *slices[0].shape[::-1])}
        voxels[..., k] = frames[image.path][image.frame or 0].T
    return voxels


def _affine(slices: list[Slice]) -> np.ndarray:
    """(4, 4), voxels to mm, RAS+, of slices sorted by their height; sheared where their positions drift aside."""
    first, last = slices[0], slices[-1]
    affine = np.eye(4)
    affine[:3, 0] = first.axes[0] * first.spacing[0]
    affine[:3, 1] = first.axes[1] * first.spacing[1]
    affine[:3, 2] = (last.position - first.position) / (len(slices) - 1)
    affine[:3, 3] = first.position
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # LPS to RAS
