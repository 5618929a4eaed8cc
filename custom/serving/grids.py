"""The volumes of a study on one grid, and label maps in the formats that viewers send and read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from custom.errors import DataError
from custom.reading.containers import files_of, open_unpacked
from custom.reading.labels import LabelCodes
from custom.reading.nifti import save_nifti
from custom.reading.volumes import in_one_place, open_volume, read_labels, read_problem
from custom.serving.contrasts import scan_name

EXTENSIONS = (".nii.gz", ".nii", ".nrrd")  # of results; .nrrd is what OHIF and 3D Slicer ask for


def on_one_grid(files: Sequence[str | Path], reference: str | Path, folder: Path) -> tuple[list[str], list[str]]:
    """Resamples files to the grid of the reference (linear; 0 outside), if their grid differs.

    Args:
        files: the volumes of a study, one for each channel.
        reference: the volume that the viewer shows, on whose grid the result belongs.
        folder: where resampled volumes are written.

    Returns:
        The paths, and a sentence for each file that was resampled.

    Raises:
        DataError: a file that cannot be read.
    """
    shown = open_volume(reference)
    paths, notes = [], []
    for number, file in enumerate(files):
        if same_grid(shown, open_volume(file)):
            paths.append(str(file))
            continue
        target = folder / f"{number}-{scan_name(file)}.nii.gz"
        _resample(Path(file), Path(reference), target)
        paths.append(str(target))
        notes.append(f"{Path(file).name} was resampled to the grid of {Path(reference).name}.")
    return paths, notes


def same_grid(image: Any, other: Any) -> bool:
    """Whether two nibabel images have the same shape and position."""
    return image.shape[:3] == other.shape[:3] and in_one_place(image.shape, image.affine, other.affine)


def _resample(file: Path, reference: Path, target: Path) -> None:
    from monai.transforms import LoadImage, ResampleToMatch

    if problem := read_problem(file):
        raise DataError(problem)
    load = LoadImage(reader="NibabelReader", ensure_channel_first=True, dtype=np.float64)
    scan, shown = load(file)[:1], load(reference)[:1]
    moved = ResampleToMatch(mode="bilinear", padding_mode="zeros", dtype=np.float64)(scan, shown)
    # interpolation makes small values at the edge of the head, but bundles treat only exact 0 as background
    head = ResampleToMatch(mode="nearest", padding_mode="zeros", dtype=np.float64)((scan != 0).double(), shown)
    voxels = np.asarray((moved * head)[0], dtype=np.float32)
    save_nifti(voxels, open_volume(reference).affine, target)


def save_labels(voxels: np.ndarray, affine: np.ndarray, target: Path) -> Path:
    """Writes a label map (x, y, z) as NIfTI, uint8; the file appears in one step, when it is complete."""
    return save_nifti(voxels.astype(np.uint8), affine, target)


def convert(labels: Path, extension: str, compress: bool = False) -> Path:
    """Writes the label map in the format that a viewer asks for, into the same folder."""
    if labels.name.endswith(extension):
        return labels
    import SimpleITK

    target = labels.with_name(labels.name.split(".")[0] + extension)
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(labels)), str(target), compress)
    return target


def read_values(file: Path, image: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads a label map that a viewer sent.

    Args:
        file: NIfTI or NRRD on the grid of the image, or raw bytes from OHIF (.bin).
        image: the NIfTI file of the scan.

    Returns:
        The values (x, y, z) as the viewer numbers them, and the affine (4, 4) of the image, voxels to mm, RAS+.

    Raises:
        DataError: another grid, a file that is cut short, or values that are no label codes.
    """
    reference = open_volume(image)
    return _read(file, reference), reference.affine


def as_codes(values: np.ndarray, names: Sequence[str], labels: Mapping[str, int]) -> np.ndarray:
    """Converts the values of a viewer to the codes of a bundle.

    Args:
        values: (x, y, z).
        names: the segments of 3D Slicer: value 1 is the first name, and so on; names without voxels do not matter.
            Empty if the values are the codes of the bundle.
        labels: {"CSF": 1, ...}, the codes of the bundle.

    Returns:
        Codes (x, y, z), uint8.

    Raises:
        DataError: values without a name or code.
    """
    codes = [0, *(labels.get(name, 0) for name in names)] if names else list(range(max(labels.values()) + 1))
    known = list(range(len(codes))) if names else [0, *sorted(labels.values())]
    present = np.unique(values)
    if unknown := present[~np.isin(present, known)].tolist():
        allowed = f"from 0 to {known[-1]}" if known == list(range(len(known))) else ", ".join(map(str, known))
        raise DataError(f"The label map has the values {unknown[:5]}. Use values {allowed}.")
    return np.asarray(codes, dtype=np.uint8)[values.astype(np.int64)]


def _read(file: Path, reference: Any) -> np.ndarray:
    shape = reference.shape[:3]
    if file.suffix == ".bin":
        raw = np.fromfile(file, dtype=np.uint8)
        if raw.size != np.prod(shape):
            raise DataError(
                f"The label map has {raw.size} voxels, but the image has {shape}. Send it on the grid of the image."
            )
        return raw.reshape(shape, order="F")
    if file.suffix == ".nrrd" and re.search(rb"data ?file\s*:", file.read_bytes(), re.IGNORECASE):
        raise DataError("The label map stores its voxels in another file. Send a single NRRD file.")
    try:
        image = open_volume(file)
    except DataError as error:
        raise DataError(f"The label map cannot be read ({error})") from error
    same_size = image.shape[:3] == shape and math.prod(image.shape) == math.prod(shape)
    if not same_size or not in_one_place(shape, image.affine, reference.affine):
        raise DataError(
            f"The grid of the label map {image.shape} differs from the image {shape} in size or position. Export the "
            "label map on the grid of the image."
        )
    values = read_labels(file, LabelCodes())
    _check_length(file, image)
    return values


def _check_length(file: Path, image: Any) -> None:
    """Raises DataError if a NIfTI file has more voxels than its header says: its vox_offset or size is wrong."""
    offset = getattr(image.dataobj, "offset", None)
    if offset is None:
        return
    with open_unpacked(files_of(file)[1]) as voxels:
        voxels.seek(offset + image.get_data_dtype().itemsize * math.prod(image.shape))
        if voxels.read(1):
            raise DataError(f"{file} holds more than its header says. Export the label map again.")
