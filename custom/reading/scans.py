"""One scan in any of the usual formats: where scans lie, what reading one gives, and warnings about it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from custom.errors import ConfigError, DataError, MissingDataError
from custom.reading.volumes import natural_order, open_volume

NIBABEL = (".nii.gz", ".nii", ".mgz", ".mgh", ".hdr")
ITK = (".nrrd", ".nhdr", ".mha", ".dcm")
BIDS = re.compile(r"(?P<entities>sub-[a-zA-Z0-9]+(_[a-z]+-[a-zA-Z0-9]+)*)_(?P<suffix>[a-zA-Z0-9]+)")
NO_ANATOMY = {"bold", "sbref", "dwi", "adc", "trace", "epi", "asl", "m0scan", "cbv", "phase", "phasediff", "phase1"}
NO_ANATOMY |= {"phase2", "magnitude", "magnitude1", "magnitude2", "fieldmap", "TB1map", "pet"}
RESULTS = re.compile(r"_(seg|dseg|mask|probabilities|probseg|labels?|structures|intracranial|skullstripped)$")
THINNEST, SMALLEST, LARGEST = 12, 40, 600  # mm: of a slab, of a slab's other sides, and of any field of view
SLAB = 100  # mm: what is thinner, and much thinner than wide, shows a part of a brain


def stem(path: str | Path) -> str:
    """A scan's name without its format: sub-01_T1w for sub-01_T1w.nii.gz; a DICOM folder's own name."""
    name = Path(path).name
    return next((name[: -len(end)] for end in NIBABEL + ITK if name.lower().endswith(end)), name)


def find_scans(*places: str | Path, without: str | Path | None = None) -> list[tuple[Path, Path]]:
    """Every scan in some places, in natural order.

    Args:
        places: scans, folders to search with all below them, and .txt files with one of these a line. In a folder,
            what looks like a segmentation, and what BIDS names say is no anatomical scan, is left out; a folder that
            holds DICOM files is a scan. Folders named "derivatives" aren't searched.
        without: a folder to leave out: where results go.

    Returns:
        [(the scan's path, its path inside the place where it was found), ...]; absolute first, relative second.

    Raises:
        MissingDataError: a place isn't there, or has no scan.
    """
    found: dict[Path, Path] = {}
    for place in (Path(place).expanduser().absolute() for place in places):
        if place.is_file() and place.suffix == ".txt":
            lines = [line.strip() for line in place.read_text(encoding="utf-8-sig").splitlines()]
            # lines are relative to the list's own folder, so that a list moves with its scans
            here = [
                pair
                for line in lines
                if line
                for pair in find_scans(place.parent / Path(line).expanduser(), without=without)
            ]
        elif place.is_file() or _is_dicom(place):
            here = [(place, Path(place.name))]
        elif place.is_dir():
            here = [(path, path.relative_to(place)) for path in _search(place, without)]
        else:
            raise MissingDataError(f"There is no scan or folder {place}: correct the path.")
        if not here:
            raise MissingDataError(f"{place} has no scan: give a NIfTI, .mgz or NRRD file, or a folder of DICOM files.")
        found.update(here)
    return list(found.items())


def _search(folder: Path, without: str | Path | None) -> Iterable[Path]:
    left_out = without and Path(without).expanduser().absolute()
    for name, folders, files in os.walk(folder):
        here = Path(name)
        if (here == left_out and here != folder) or here.name == "derivatives":
            folders.clear()
            continue
        folders[:] = sorted((other for other in folders if not other.startswith(".")), key=natural_order)
        scans = [here / file for file in files if _is_scan(file)]
        yield from sorted(scans, key=natural_order)
        if not scans and _is_dicom(here):
            yield here


def _is_scan(name: str) -> bool:
    known = name.lower().endswith((*NIBABEL, *ITK[:-1]))
    bids = BIDS.fullmatch(stem(name))
    return known and not name.startswith(".") and not RESULTS.search(stem(name)) and (
        bids is None or bids["suffix"] not in NO_ANATOMY
    )  # fmt: skip


def _is_dicom(folder: Path) -> bool:
    """Whether a folder's first files are DICOM, by their preamble."""
    if not folder.is_dir():
        return False
    files = sorted(
        path for path in folder.iterdir() if path.is_file() and path.name[0] != "." and path.name != "DICOMDIR"
    )
    for path in files[:5]:
        with path.open("rb") as file:
            if file.read(132)[128:] == b"DICM":
                return True
    return False


def read_scan(path: str | Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Reads one scan.

    Args:
        path: a NIfTI, Analyze, .mgz, NRRD, MetaImage or DICOM file, or a folder with one DICOM series.

    Returns:
        voxels (x, y, z) in float32; affine (4, 4), voxels to mm, RAS+; warnings about the scan, a sentence each.

    Raises:
        MissingDataError: there is no such file.
        DataError: it can't be a brain's MR volume: 2D, 4D, colour, CT, constant, cut short, or of impossible size.
    """
    path = Path(path).expanduser().absolute()  # itk changes the current folder while it is imported
    by_nibabel = path.is_file() and path.name.lower().endswith(NIBABEL)
    voxels, affine, warnings = _by_nibabel(path) if by_nibabel or not path.exists() else _by_itk(path)
    _check_affine(path, voxels.shape, affine)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    cosines = affine[:3, :3] / sizes
    if np.abs(cosines.T @ cosines - np.eye(3)).max() > 0.01:
        warnings.append("its axes aren't at right angles (a sheared affine): it is resampled, look at the figure")
    extent = sizes * voxels.shape
    if extent.min() < min(SLAB, 0.6 * sorted(extent)[1]):
        warnings.append(f"it is a slab of {extent.min():.3g} mm: volumes are those of the part in view")
    if sizes.max() > 3.5:
        warnings.append(f"its voxels are up to {sizes.max():.3g} mm long: boundaries between them are guessed")
    if invalid := int((~np.isfinite(voxels)).sum()):
        warnings.append(f"{invalid} voxels are NaN or infinite: they count as 0")
        voxels = np.nan_to_num(voxels, nan=0.0, posinf=0.0, neginf=0.0)
    if voxels.min() == voxels.max():
        raise DataError(f"{path} holds the value {voxels.flat[0]:g} everywhere: export the scan again.")
    if np.mean(voxels <= -900) > 0.1:
        raise DataError(f"{path} looks like CT (air at {voxels.min():.0f} HU): this network knows MR only.")
    return voxels, affine, warnings


def _by_nibabel(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    image = open_volume(path)
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    _check_shape(path, shape)
    if image.get_data_dtype().fields:
        raise DataError(f"{path} is a colour image: give the scan that it was made from.")
    try:
        voxels = np.asarray(image.dataobj, dtype=np.float32).reshape(shape)
    except Exception as error:
        raise DataError(f"{path} can't be read to its end ({error}): copy the file again.") from error
    header = image.header
    is_nifti = isinstance(image, nibabel.Nifti1Pair)
    codes = (header["sform_code"], header["qform_code"]) if is_nifti else (0, 0)
    unknown = isinstance(image, nibabel.AnalyzeImage) and not any(codes)  # .mgz files always have an orientation
    lost = "its header has no orientation: x is taken as left to right, y as back to front, z as bottom to top"
    return voxels, np.asarray(image.affine, dtype=np.float64), [lost] if unknown else []


def _by_itk(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    import itk

    warnings: list[str] = []
    files = _one_series(path, itk) if path.is_dir() else [str(path)]
    try:
        io = itk.ImageIOFactory.CreateImageIO(files[0], itk.CommonEnums.IOFileMode_ReadMode)
        io.SetFileName(files[0])
        io.ReadImageInformation()
        components = io.GetNumberOfComponents()
        image = itk.imread(files if len(files) > 1 else files[0], itk.F)
    except Exception as error:
        reason = str(error).strip().splitlines()[-1:]
        raise DataError(f"{path} can't be read ({' '.join(reason)}): copy it again, or convert it to NIfTI.") from error
    if components != 1:
        raise DataError(
            f"{path} has {components} values a voxel, as colour and diffusion scans have: give a plain scan."
        )
    if path.is_dir() or path.suffix.lower() == ".dcm":
        _check_modality(path, files[0], itk)
    metadata = dict(image)
    if float(metadata.get("ITK_non_uniform_sampling_deviation", 0)) > 0.1:
        warnings.append("its slices are unevenly spaced, so some may be missing: lengths along them are wrong")
    voxels = np.asarray(itk.array_view_from_image(image)).T
    shape = tuple(image.GetLargestPossibleRegion().GetSize())
    _check_shape(path, shape)
    affine = np.eye(4)
    affine[:3, :3] = itk.array_from_matrix(image.GetDirection()) * np.asarray(image.GetSpacing())
    affine[:3, 3] = np.asarray(image.GetOrigin())
    return np.ascontiguousarray(voxels), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, warnings  # LPS to RAS


def _one_series(folder: Path, itk: Any) -> list[str]:
    names = itk.GDCMSeriesFileNames.New()
    names.SetUseSeriesDetails(True)
    names.SetDirectory(str(folder))
    series = {uid: list(names.GetFileNames(uid)) for uid in names.GetSeriesUIDs()}
    if not series:
        raise DataError(f"{folder} has no DICOM series that can be read: give the folder that holds its files.")
    if len(series) > 1:
        listed = ", ".join(f"{Path(files[0]).name} and {len(files) - 1} more" for files in series.values())
        raise DataError(f"{folder} holds {len(series)} DICOM series ({listed}): give each a folder of its own.")
    return next(iter(series.values()))


def _check_modality(path: Path, file: str, itk: Any) -> None:
    modality = str(dict(itk.imread(file)).get("0008|0060", "MR")).strip()
    if modality != "MR":
        raise DataError(f"{path} is {modality}, not MR: this network knows MR only.")


def _check_shape(path: Path, shape: tuple[int, ...]) -> None:
    size = "x".join(map(str, shape))
    if len(shape) > 3:
        raise DataError(f"{path} is a series of volumes ({size}): save one of them, or their mean, as a 3D file.")
    if len(shape) < 3 or min(shape) < 2:
        raise DataError(f"{path} is a slice, not a volume ({size}): give the whole 3D scan.")


def _check_affine(path: Path, shape: tuple[int, ...], affine: np.ndarray) -> None:
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise DataError(f"{path} has an affine that places no voxel ({affine[:3].tolist()}): correct its header.")
    extent = np.linalg.norm(affine[:3, :3], axis=0) * shape
    mm = " x ".join(f"{side:.4g}" for side in extent)
    if extent.max() > LARGEST or sorted(extent)[1] < SMALLEST:
        raise DataError(f"{path} spans {mm} mm, which no scan of a head does: correct the voxel sizes in its header.")
    if extent.min() < THINNEST:
        raise DataError(f"{path} spans {mm} mm: a slab of {extent.min():.3g} mm is too thin, {THINNEST} mm are needed.")


def datalist(place: str | Path) -> list[dict]:
    """[{"image": path}, ...] of the scans in a file, folder or list.

    Raises:
        ConfigError: no place was given.
        MissingDataError: there is nothing there.
    """
    if not str(place):
        raise ConfigError("dataset_dir must name a scan or a folder of scans.")
    return [{"image": str(path)} for path, _ in find_scans(place)]
