"""A DICOM series as one volume: every file of a folder is used, left out with a warning, or refused by name."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from custom.errors import DataError
from custom.reading.dicom_header import SAMPLES, SERIES, DicomHeader, is_dicom, read_header
from custom.reading.dicom_slices import DIFFERENCES, Slice, slices_of
from custom.reading.limits import check_scan
from custom.reading.volumes import natural_order

logger = logging.getLogger(__name__)
T = TypeVar("T")
MODALITY = 0x00080060
SAME_PLACE = 0.01  # mm, between the positions of two slices
ROUNDED = ("echo time", "b-value")  # scanners write these with jitter
UNEVEN = 0.1  # mm, between a gap of slices and the mean gap
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
    _check_one_grid(path, slices)
    slices = sorted(slices, key=lambda image: image.height)
    _check_one_volume(path, slices)
    gaps = np.diff([image.height for image in slices])
    if len(gaps) and np.abs(gaps - gaps.mean()).max() > UNEVEN:
        wide = int(gaps.argmax())
        pair = f"{slices[wide].name} and {slices[wide + 1].name} are {gaps[wide]:.4g} mm apart"
        warnings.append(
            f"its slices are unevenly spaced, so some may be missing: lengths along them are wrong ({pair}, "
            f"the mean is {gaps.mean():.4g} mm)"
        )
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
    series = _grouped(headers, lambda header: header.text(SERIES))
    if len(series) > 1:
        listed = ", ".join(f"{group[0].path.name} and {len(group) - 1} more" for group in series)
        raise DataError(f"{path} holds {len(series)} DICOM series ({listed}). Give each a folder of its own.")
    for header in headers:
        where = path if len(headers) == 1 or header is headers[0] else header.path
        if header.text(MODALITY) not in ("MR", ""):
            raise DataError(f"{where} is {header.text(MODALITY)}, not MR. This network works on MR scans only.")
        if header.integer(SAMPLES, 1) != 1:
            raise DataError(
                f"{where} has {header.integer(SAMPLES)} values a voxel, as colour and diffusion scans have. "
                "Give a plain scan."
            )
    return headers


def _check_other_files(others: Sequence[Path], headers: Sequence[DicomHeader]) -> None:
    """Refuses a file that is named like the images but is neither DICOM nor a text, as a broken copy leaves it."""
    endings = {_ending(header.path) for header in headers}
    for file in others:
        if _ending(file) in endings - OTHER_FILES and not _is_text(file):
            size = file.stat().st_size
            raise DataError(
                f"{file} is cut short ({size} bytes that are no DICOM). Copy it again, or take it out of the folder."
            )


def _ending(file: Path) -> str:
    """.dcm, .IMA, ... in lower case; "" for a name without one or a number that ends in a dot and digits."""
    ending = file.suffix.lower()
    return "" if ending[1:].isdigit() or len(ending) > 5 else ending


def _is_text(file: Path) -> bool:
    with file.open("rb") as opened:
        start = opened.read(1000)
    return bool(start) and all(byte >= 32 or byte in b"\t\r\n\f" for byte in start)


def _grouped(items: Iterable[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    groups: dict[Hashable, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return list(groups.values())


def _without_copies(slices: list[Slice], headers: Mapping[Path, DicomHeader]) -> tuple[list[Slice], int]:
    """The slices without exact copies of others (one SOPInstanceUID, equal pixels), and how many files these were."""
    kept, copies = [], set()
    compared: set[tuple[Path, Path]] = set()
    for group in _grouped(slices, lambda image: (image.instance or image.path, image.frame)):
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


def _check_one_grid(path: Path, slices: list[Slice]) -> None:
    """Refuses slices that differ in orientation, size or stack; numbers are compared as numbers, not as texts."""
    remedy = _remedy(path, slices)
    stacks = _grouped(slices, lambda image: image.stack)
    if len(stacks) > 1:
        listed = ", ".join(f"{group[0].stack or 'without a name'}: {len(group)} slices" for group in stacks)
        raise DataError(f"{path} holds {len(stacks)} stacks of slices ({listed}). {remedy}")
    first = slices[0]
    for other in slices:
        names = f"{first.name} and {other.name}"
        if np.abs(other.axes - first.axes).max() > 2e-3:
            raise DataError(f"{path} holds slices of different orientations ({names}), as a localizer does. {remedy}")
        if other.shape != first.shape:
            sizes = " and ".join(f"{each.shape[0]}x{each.shape[1]}" for each in (first, other))
            raise DataError(f"{path} holds slices of different sizes ({names}: {sizes} pixels). {remedy}")
        if not np.allclose(other.spacing, first.spacing, rtol=2e-3, atol=0):
            sizes = " and ".join(f"{each.spacing[0]:g}x{each.spacing[1]:g}" for each in (first, other))
            raise DataError(f"{path} holds pixels of different sizes ({names}: {sizes} mm). {remedy}")
        if other.frame is not None and other.path == first.path and other.slope != first.slope:
            raise DataError(
                f"{path} scales the values of its frames differently ({names}). Convert it to NIfTI, with dcm2niix."
            )


def _check_one_volume(path: Path, slices: list[Slice]) -> None:
    """Refuses two slices at one position, and slices of different kinds in one volume.

    Args:
        path: as the user gave it.
        slices: sorted by their height.
    """
    places: list[list[Slice]] = []
    for image in slices:
        if places and image.height - places[-1][0].height < SAME_PLACE:
            places[-1].append(image)
        else:
            places.append([image])
    most = max(len(place) for place in places)
    remedy = _remedy(path, slices)
    if most > 1 and all(len(place) == most for place in places):
        size = "x".join(map(str, (*slices[0].shape, len(places), most)))
        raise DataError(
            f"{path} is a series of volumes ({size}). Save one of them, or their mean, as a 3D file or in a folder of "
            f"its own. {_difference(slices, most)}. See {_names(places[0])}."
        )
    if most > 1:
        twice = next(place for place in places if len(place) == most)
        raise DataError(
            f"{path} has {most} slices at the same position ({_names(twice)}). {_difference(twice, most)}. {remedy}"
        )
    if len(slices) == 1:
        size = "x".join(map(str, (*slices[0].shape, 1)))
        whole = "Give the whole 3D scan" if path.is_dir() else "Give the folder that holds the slices of its series"
        raise DataError(f"{path} is a slice, not a volume ({size}). {whole}.")
    for name in ("image type", "echo time", "b-value"):
        kinds = _kinds(name, slices)
        if len(kinds) > 1:
            listed = ", ".join(f"{_shown(group[0], name)}: {len(group)} slices" for group in kinds)
            raise DataError(f"{path} mixes slices that differ in {name} ({listed}). {remedy}")


def _remedy(path: Path, slices: list[Slice]) -> str:
    if path.is_dir() and all(image.frame is None for image in slices):
        return "Give the files of each a folder of its own."
    return "Convert it to NIfTI, with dcm2niix, and give one of the results."


def _difference(slices: list[Slice], most: int) -> str:
    """Which tag tells `most` volumes apart, with its values."""
    for name in ("image type", *DIFFERENCES):
        kinds = _kinds(name, slices)
        if len(kinds) == most and all(name in group[0].differences for group in kinds):
            return f"They differ in {name} ({', '.join(_shown(group[0], name) for group in kinds)})"
    return "No known tag tells them apart"


def _kinds(name: str, slices: list[Slice]) -> list[list[Slice]]:
    """The slices by their value of a tag. Of ROUNDED tags, numbers within 1% of their neighbour are one kind."""
    values = [image.differences.get(name, "") for image in slices]
    numbers = sorted({value for value in values if not isinstance(value, str)})
    share = 0.01 if name in ROUNDED else 0.0
    steps = np.diff(numbers, prepend=numbers[:1]) > share * np.maximum(1, np.abs(numbers))
    kind_of = dict(zip(numbers, np.cumsum(steps), strict=True))
    return _grouped(slices, lambda image: _kind(image.differences.get(name, ""), kind_of))


def _kind(value: str | float, kind_of: Mapping[float, int]) -> Hashable:
    return value if isinstance(value, str) else int(kind_of[value])


def _shown(image: Slice, name: str) -> str:
    value = image.differences.get(name, "none")
    return value if isinstance(value, str) else f"{value:g}"


def _names(slices: list[Slice]) -> str:
    shown = ", ".join(image.name for image in slices[:3])
    return f"{shown} and {len(slices) - 3} more" if len(slices) > 3 else shown


def _pixels(path: Path, slices: list[Slice]) -> np.ndarray:
    """(x, y, z), float32, rescaled as each file's header says."""
    import itk

    io = itk.GDCMImageIO.New()
    frames: dict[Path, np.ndarray] = {}
    voxels = np.empty((*slices[0].shape, len(slices)), dtype=np.float32)
    for k, image in enumerate(slices):
        if image.path not in frames:
            try:
                volume = itk.imread(str(image.path), itk.F, imageio=io)
            except Exception as error:
                reason = " ".join(str(error).strip().splitlines()[-1:])
                raise DataError(
                    f"{image.path} can't be read ({reason}). Copy it again, or convert {path} to NIfTI."
                ) from error
            pixels = np.asarray(itk.array_view_from_image(volume))
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
