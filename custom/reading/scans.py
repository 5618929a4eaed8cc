"""One scan in any of the usual formats: finding scans, reading a scan, and warnings about it."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Hashable, Iterable
from pathlib import Path

import numpy as np

from custom.errors import ConfigError, DataError, MissingDataError
from custom.reading.containers import files_of, require_regular
from custom.reading.dicom import holds_dicom, volume_of
from custom.reading.formats import read_voxels
from custom.reading.intensities import with_low_background
from custom.reading.volumes import natural_order

logger = logging.getLogger(__name__)

LISTED = (
    ".nii.gz",
    ".nii",
    ".mgz",
    ".mgh",
    ".hdr.gz",
    ".hdr",
    ".nrrd",
    ".nhdr",
    ".mha",
    ".mhd",
)
ENDINGS = (*LISTED, ".dcm", ".img.gz", ".img")
HEADERS = {".raw": (".mhd", ".nhdr"), ".zraw": (".mhd",), ".raw.gz": (".nhdr",)}
BIDS = re.compile(r"(?P<entities>sub-[a-zA-Z0-9]+(_[a-z]+-[a-zA-Z0-9]+)*)_(?P<suffix>[a-zA-Z0-9]+)")
NO_ANATOMY = {"bold", "sbref", "dwi", "adc", "trace", "epi", "asl", "m0scan", "cbv", "phase", "phasediff", "phase1"}
NO_ANATOMY |= {"phase2", "magnitude", "magnitude1", "magnitude2", "fieldmap", "TB1map", "pet"}
RESULTS = re.compile(r"_(seg|dseg|mask|probabilities|probseg|labels?|structures|intracranial|skullstripped)$")
SLAB = 100  # mm: a scan that is thinner, and much thinner than wide, shows a part of a brain


def stem(path: str | Path) -> str:
    """A scan's name without its format: sub-01_T1w for sub-01_T1w.nii.gz; a DICOM folder's own name."""
    name = Path(path).name
    return next((name[: -len(end)] for end in ENDINGS if name.lower().endswith(end)), name)


def find_scans(*places: str | Path, without: str | Path | None = None) -> list[tuple[Path, Path]]:
    """Every scan in some places, in natural order.

    Args:
        places: scans, folders to search with all below them, and .txt files with one of these a line. In a folder,
            files that look like segmentations, or whose BIDS names tell of no anatomical scan, are left out; a folder
            that holds DICOM files is a scan. Folders named "derivatives" aren't searched. Links to folders are
            followed. Of a pair of files, either may be given: the scan's path is that of the header.
        without: a folder to leave out: where results go.

    Returns:
        [(the scan's path, its path inside the place), ...]; absolute first, relative second.

    Raises:
        MissingDataError: a place does not exist, or has no scan.
        DataError: a pipe or device, or a list that names itself.
    """
    found = _find(places, without, ())
    _warn_of_divided_series([path for path, _ in found if path.is_dir()])
    return found


def _find(places: Iterable[str | Path], without: str | Path | None, lists: tuple[Path, ...]) -> list[tuple[Path, Path]]:
    """As find_scans; `lists` are those in which these places stand."""
    paths: dict[Path, Path] = {}
    for place in map(_absolute, places):
        require_regular(place)
        if place.is_file() and place.suffix == ".txt":
            here = _listed(place, without, lists)
        elif place.is_file():
            scan = _header_file(place)
            here = [(scan, Path(scan.name))]
        elif place.is_dir():
            here = [
                (path, Path(place.name) if path == place else path.relative_to(place))
                for path in _search(place, without)
            ]
        elif place.is_symlink():
            raise MissingDataError(f"{place} is a link to {place.readlink()}, which does not exist. Fetch that file.")
        else:
            raise MissingDataError(f"There is no scan or folder {place}. Correct the path.")
        if not here:
            raise MissingDataError(f"{place} has no scan. Give a NIfTI, .mgz or NRRD file, or a folder of DICOM files.")
        paths.update(here)
    return list(paths.items())


def _listed(file: Path, without: str | Path | None, lists: tuple[Path, ...]) -> list[tuple[Path, Path]]:
    """The scans that a text file names, one place in a line.

    Lines are relative to the file's own folder, so that a list moves with its scans.
    """
    if file.resolve() in lists:
        raise DataError(f"The list {file} names itself, directly or by another list. Remove that line.")
    pairs = []
    text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")  # names of any bytes
    for number, line in enumerate(text.splitlines(), start=1):
        if place := line.strip():
            try:
                pairs += _find([file.parent / Path(place).expanduser()], without, (*lists, file.resolve()))
            except MissingDataError as error:
                raise MissingDataError(f"{file}, line {number}: {error}") from error
    return pairs


def _warn_of_divided_series(folders: Iterable[Path]) -> None:
    """Warns of DICOM folders that share one series, as on discs that hold some hundred files in each folder."""
    first: dict[Hashable, Path] = {}
    for folder in folders:
        volume = volume_of(folder)
        other = folder if volume is None else first.setdefault(volume, folder)
        if other != folder:
            logger.warning(
                "%s and %s hold files of one DICOM series. If these are slices of one volume, put them in one folder.",
                other,
                folder,
            )


def _absolute(place: str | Path) -> Path:
    """The absolute path without "..", which would lead results out of their folder; links stay as they are."""
    path = Path(place).expanduser().absolute()
    if ".." not in path.parts:
        return path
    return path.resolve() if path.name == ".." else path.parent.resolve() / path.name


def _search(folder: Path, without: str | Path | None) -> Iterable[Path]:
    """The scans in a folder and below it; links to folders are followed, and no folder is visited twice."""
    left_out = Path(without).expanduser().resolve() if without else None
    visited: set[Path] = set()
    for name, folders, files in os.walk(folder, followlinks=True, onerror=_warn_unreadable):
        here, real = Path(name), Path(name).resolve()
        if real in visited or (real == left_out and here != folder) or here.name == "derivatives":
            folders.clear()
            continue
        visited.add(real)
        below = [other for other in folders if not other.startswith(".")]
        folders[:] = sorted(
            (other for other in below if not _leads_back(here / other, folder.resolve(), left_out)), key=natural_order
        )
        scans = [here / file for file in files if _is_scan(file)]
        yield from sorted(scans, key=natural_order)
        if holds_dicom(here):
            if scans:
                logger.warning("%s holds DICOM files beside other scans. Give them a folder of their own.", here)
            else:
                yield here


def _leads_back(path: Path, root: Path, left_out: Path | None) -> bool:
    """Whether a path is a link to a folder around `root`, into the results, or to one that is searched anyway."""
    if not path.is_symlink():
        return False
    target = path.resolve()
    if target == root or target in root.parents or (left_out is not None and left_out in target.parents):
        return True
    if root not in target.parents:
        return False
    return not any(part == "derivatives" or part[0] == "." for part in target.relative_to(root).parts)


def _warn_unreadable(error: OSError) -> None:
    logger.warning("%s can't be searched (%s). Correct its permissions.", error.filename, error.strerror)


def _header_file(path: Path) -> Path:
    """The file that stands for a scan of two files: a.hdr for a.img, a.mhd for a.raw."""
    for ending, headers in HEADERS.items():
        if path.name.lower().endswith(ending):
            tried = (path.with_name(path.name[: -len(ending)] + header) for header in headers)
            return next((header for header in tried if header.is_file()), path)
    try:
        return files_of(path)[0]
    except (MissingDataError, OSError):  # reading the scan says so
        return path


def _is_scan(name: str) -> bool:
    known = name.lower().endswith(LISTED)
    bids = BIDS.fullmatch(stem(name))
    return known and not name.startswith(".") and not RESULTS.search(stem(name)) and (
        bids is None or bids["suffix"] not in NO_ANATOMY
    )  # fmt: skip


def read_scan(path: str | Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Reads one scan.

    Args:
        path: a NIfTI, Analyze, .mgz, NRRD, MetaImage or DICOM file, or a folder with one DICOM series.

    Returns:
        voxels (x, y, z) in float32; affine (4, 4), voxels to mm, RAS+; warnings about the scan, a sentence each.

    Raises:
        MissingDataError: the file does not exist.
        DataError: it can't be a brain's MR volume: 2D, 4D, colour, CT, constant, cut short, or of impossible size; or
            it is larger than custom.reading.limits allows.
    """
    path = Path(path).expanduser().absolute()
    voxels, affine, warnings = read_voxels(path)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    cosines = affine[:3, :3] / sizes
    if np.abs(cosines.T @ cosines - np.eye(3)).max() > 0.01:
        warnings.append("its axes aren't at right angles (a sheared affine): it is resampled, look at the figure")
    extent = sizes * voxels.shape
    if extent.min() < min(SLAB, 0.6 * sorted(extent)[1]):
        warnings.append(f"it is a slab of {extent.min():.3g} mm: volumes are those of the part in view")
    if sizes.max() > 3.5:
        warnings.append(f"its voxels are up to {sizes.max():.3g} mm long: boundaries between them are guessed")
    if not np.isfinite(voxels).any():
        raise DataError(f"{path} holds NaN everywhere. Export the scan again.")
    voxels, changes = with_low_background(voxels)
    warnings += changes
    if voxels.min() == voxels.max():
        raise DataError(f"{path} holds the value {voxels.flat[0]:g} everywhere. Export the scan again.")
    if np.mean(voxels <= -900) > 0.1:
        raise DataError(f"{path} looks like CT (air at {voxels.min():.0f} HU). This network works on MR scans only.")
    return voxels, affine, warnings


def datalist(place: str | Path) -> list[dict]:
    """[{"image": path}, ...] of the scans in a file, folder or list.

    Raises:
        ConfigError: no place was given.
        MissingDataError: the place does not exist, or has no scan.
    """
    if not str(place):
        raise ConfigError("dataset_dir must name a scan or a folder of scans.")
    return [{"image": str(path)} for path, _ in find_scans(place)]
