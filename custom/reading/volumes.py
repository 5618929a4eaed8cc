"""Opening and checking the file of a volume, before and after its voxels are read."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from custom.errors import DataError, MissingDataError
from custom.reading import itk_volumes
from custom.reading.containers import check_packed, files_of, largest_ratio, load_by_content
from custom.reading.foreign import what_it_is
from custom.reading.labels import LabelCodes, label_map
from custom.reading.limits import check_size, unreadable
from custom.reading.orientation import affine_of


def natural_order(name: str | Path) -> list[int | str]:
    """Sort key that puts subject-2 before subject-10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(name))]


def existing_folder(path: str | Path, how_to_get: str) -> Path:
    """The folder as a Path. Raises MissingDataError if it does not exist or is empty."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise MissingDataError(
            f"There is no folder {folder}. Give the folder of your data (--dataset_dir). {how_to_get}"
        )
    if not any(folder.iterdir()):
        raise MissingDataError(f"The folder {folder} is empty. {how_to_get}")
    return folder


def open_volume(path: str | Path) -> Any:
    """Opens a NIfTI, Analyze, MGH, NRRD or MetaImage file by its header, and checks the length of its file of voxels.

    The content decides, not the name: a packed file may be called .nii and a plain one .nii.gz. Of a pair of files,
    either the .hdr or the .img may be given.

    Returns:
        The nibabel image; its voxels are not read yet.

    Raises:
        MissingDataError: the file, or the .img beside a .hdr, does not exist.
        DataError: the header can't be read, the voxel file is shorter than the header says, or it has more voxels than
            custom.reading.limits allows.
    """
    path = Path(path)
    header, voxels = files_of(path)
    if path.name.lower().endswith(itk_volumes.ENDINGS):
        volume = itk_volumes.open_by_itk(path)
        check_size(path, volume.shape)
        return volume
    try:
        image = load_by_content(path)
    except Exception as error:
        reason = what_it_is(header) or f"has no header that can be read ({error}). Copy the file again"
        raise DataError(f"{path} {reason}.") from error
    offset = getattr(image.dataobj, "offset", 0)
    if isinstance(image, nibabel.Nifti1Image) and offset < image.header.single_vox_offset:
        raise DataError(
            f"{path} says that its voxels begin at byte {offset}, inside its header. Set vox_offset in the header to "
            f"{image.header.single_vox_offset}."
        )
    expected = offset + image.get_data_dtype().itemsize * math.prod(int(size) for size in image.shape)
    if voxels.stat().st_size * largest_ratio(voxels) < expected:
        raise DataError(f"{voxels} is cut short ({voxels.stat().st_size} of {expected} bytes). Copy it again.")
    check_size(path, image.shape)
    return image


def require_one_grid(paths: Iterable[str | Path]) -> None:
    """Raises DataError when the volumes of one subject differ in shape or place (headers only)."""
    (first, reference), *others = ((Path(path), open_volume(path)) for path in paths)
    for path, other in others:
        if other.shape[:3] != reference.shape[:3]:
            shapes = other.shape[:3], reference.shape[:3]
            raise DataError(f"{path} has the shape {shapes[0]} but {first} has {shapes[1]}. Resample them to one grid.")
        if not in_one_place(other.shape, affine_of(other)[0], affine_of(reference)[0]):
            raise DataError(f"{path} and {first} lie differently in space (their affines). Resample them to one grid.")


def in_one_place(shape: Sequence[int], affine: np.ndarray, other: np.ndarray) -> bool:
    """Whether two affines (4, 4) put each corner voxel of a volume in the same place, to a tenth of a millimetre."""
    corners = np.array([[*corner, 1] for corner in itertools.product(*((0, size - 1) for size in shape[:3]))])
    return bool(np.linalg.norm((corners @ (affine - other).T)[:, :3], axis=1).max() <= 0.1)


def named_apart(items: list[dict]) -> list[dict]:
    """The items, if the names of their first files differ, as those of results made from them must.

    Args:
        items: [{"image": a path or a list of paths}, ...]

    Raises:
        DataError: the first files of two items have the same name.
    """
    seen: dict[str, str] = {}
    for item in items:
        first = str(item["image"] if isinstance(item["image"], (str, Path)) else item["image"][0])
        other = seen.setdefault(Path(first).name, first)
        if other != first:
            raise DataError(
                f"{other} and {first} would give results with the same name. Rename one, or run them one by one."
            )
    return items


def voxel_problem(voxels: np.ndarray) -> str | None:
    """What is wrong with a scan's values (any shape), or None; custom.reading.labels checks label maps."""
    if np.iscomplexobj(voxels):
        return "holds complex numbers. Save their magnitude"
    if voxels.dtype.kind not in "buif":
        return f"holds values of the type {voxels.dtype}, not one number per voxel. Save grey values"
    finite = voxels[np.isfinite(voxels)]  # others count as background, see custom.reading.intensities.without_nan
    if not finite.size:
        return "holds NaN everywhere. Export the scan again"
    if not finite.any():
        return "holds nothing but zeros. Export the scan again"
    if finite.min() == finite.max():
        return f"holds the value {finite[0]:g} everywhere. Export the scan again"
    return None


def read_problem(path: str | Path, codes: LabelCodes | None = None) -> str | None:
    """Reads a whole volume and returns its problem with the name of the file; None if there is none.

    Args:
        path: the file.
        codes: for a label map, the codes that it may hold; None for a scan.
    """
    try:
        if codes is not None:
            read_labels(path, codes)
            return None
        problem = voxel_problem(read_volume(path))
    except DataError as error:
        return str(error)
    return problem and f"{path} {problem}."


def read_labels(path: str | Path, codes: LabelCodes) -> np.ndarray:
    """Reads a label map, (x, y, z), int32.

    Raises:
        DataError: a file that cannot be read to its end, or values that are no label codes.
    """
    voxels = read_volume(path)
    try:
        return label_map(voxels, codes)
    except DataError as error:
        raise DataError(f"{path} {error}") from error


def read_volume(path: str | Path) -> np.ndarray:
    """Reads a volume's values, as the file holds them: any shape and type, whatever they mean.

    Raises:
        MissingDataError: the file does not exist.
        DataError: the file cannot be read to its end, or is too large.
    """
    image = open_volume(path)
    try:
        voxels: np.ndarray = np.asanyarray(image.dataobj)
    except DataError:
        raise
    except Exception as error:
        raise unreadable(Path(path), error) from error
    check_packed(files_of(Path(path))[1])
    return voxels


def case_problems(files: Mapping[Path, LabelCodes | None]) -> list[str]:
    """Reads all volumes of one case and returns their problems, one sentence each.

    Args:
        files: {a scan's path: None, a label map's path: the codes that it may hold}
    """
    problems = [problem for path, codes in files.items() if (problem := read_problem(path, codes))]
    if not problems:
        try:
            require_one_grid(files)
        except DataError as error:
            problems.append(str(error))
    return problems


def participant_of(case: str) -> str:
    """The participant that a case is of.

    sub-01 for sub-01_ses-2_T1w, BraTS-GLI-00001 for BraTS-GLI-00001-000, else the case itself.
    """
    match = re.match(r"sub-[a-zA-Z0-9]+|BraTS-[A-Z]+-\d+(?=-\d+)", case)
    return match[0] if match else case
