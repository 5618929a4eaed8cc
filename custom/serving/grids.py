"""Volumes of one study on one grid, and label maps as viewers send and want them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from custom.errors import DataError
from custom.reading.nifti import save_nifti
from custom.reading.volumes import in_one_place, open_volume, read_problem
from custom.serving.contrasts import scan_name

EXTENSIONS = (".nii.gz", ".nii", ".nrrd")  # of results; .nrrd is what OHIF and 3D Slicer ask for


def on_one_grid(files: Sequence[str | Path], reference: str | Path, folder: Path) -> tuple[list[str], list[str]]:
    """The files, those that lie on another grid than the reference resampled to it (linear; outside is 0).

    Args:
        files: the study's volumes, a channel each.
        reference: the one that the viewer shows, on whose grid the result belongs.
        folder: where resampled ones are written.

    Returns:
        The paths, and a sentence for each that was resampled.

    Raises:
        DataError: a file that can't be read.
    """
    shown = open_volume(reference)
    paths, said = [], []
    for number, file in enumerate(files):
        if same_grid(shown, open_volume(file)):
            paths.append(str(file))
            continue
        target = folder / f"{number}-{scan_name(file)}.nii.gz"
        _resample(Path(file), Path(reference), target)
        paths.append(str(target))
        said.append(f"{Path(file).name} lies on another grid and was resampled to that of {Path(reference).name}.")
    return paths, said


def same_grid(one: Any, other: Any) -> bool:
    """Whether two nibabel images have one shape and place."""
    return one.shape[:3] == other.shape[:3] and in_one_place(one.shape, one.affine, other.affine)


def _resample(file: Path, reference: Path, target: Path) -> None:
    from monai.transforms import LoadImage, ResampleToMatch

    if problem := read_problem(file):
        raise DataError(problem)
    load = LoadImage(reader="NibabelReader", ensure_channel_first=True, dtype=np.float64)
    scan, shown = load(file)[:1], load(reference)[:1]
    moved = ResampleToMatch(mode="bilinear", padding_mode="zeros", dtype=np.float64)(scan, shown)
    # bundles take what is exactly 0 for background, and interpolation makes next to nothing of it at the edge
    head = ResampleToMatch(mode="nearest", padding_mode="zeros", dtype=np.float64)((scan != 0).double(), shown)
    voxels = np.asarray((moved * head)[0], dtype=np.float32)
    save_nifti(voxels, open_volume(reference).affine, target)


def save_labels(voxels: np.ndarray, affine: np.ndarray, target: Path) -> Path:
    """Writes a label map, uint8 NIfTI, whole or not at all."""
    return save_nifti(voxels.astype(np.uint8), affine, target)


def convert(labels: Path, extension: str, compress: bool = False) -> Path:
    """The label map in the format that a viewer asks for, beside it."""
    if labels.name.endswith(extension):
        return labels
    import SimpleITK

    target = labels.with_name(labels.name.split(".")[0] + extension)
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(labels)), str(target), compress)
    return target


def read_values(file: Path, image: Path) -> tuple[np.ndarray, np.ndarray]:
    """A label map that a viewer sent, on the image's grid.

    Args:
        file: NIfTI or NRRD on the image's grid, or OHIF's raw bytes (.bin).
        image: the scan's NIfTI file.

    Returns:
        Voxels (x, y, z) as the viewer counted them, and the affine.

    Raises:
        DataError: another grid, or no file of labels.
    """
    reference = open_volume(image)
    return _read(file, reference), reference.affine


def as_codes(values: np.ndarray, names: Sequence[str], labels: Mapping[str, int]) -> np.ndarray:
    """A viewer's values in a bundle's codes, uint8.

    Args:
        values: (x, y, z).
        names: 3D Slicer's segments: value 1 is the first one's, and so on; those that no voxel has may be any. Empty
            where the values are the bundle's own.
        labels: the bundle's codes.

    Raises:
        DataError: values that stand for nothing.
    """
    codes = [0, *(labels.get(name, 0) for name in names)] if names else list(range(max(labels.values()) + 1))
    found = np.unique(values)
    if not np.isin(found, np.arange(len(codes))).all():
        bad = found[~np.isin(found, np.arange(len(codes)))].tolist()[:5]
        raise DataError(f"The label map has the values {bad}, of 0 to {len(codes) - 1} that are known: correct it.")
    return np.asarray(codes, dtype=np.uint8)[values.astype(np.int64)]


def _read(file: Path, reference: Any) -> np.ndarray:
    shape = reference.shape[:3]
    if file.suffix == ".bin":
        raw = np.fromfile(file, dtype=np.uint8)
        if raw.size != np.prod(shape):
            raise DataError(f"The label map has {raw.size} voxels, the image {shape}: send it on the image's grid.")
        return raw.reshape(shape, order="F")
    if file.suffix == ".nrrd" and re.search(rb"data ?file\s*:", file.read_bytes(), re.IGNORECASE):
        raise DataError("The label map keeps its voxels in another file: send one NRRD file with all.")
    import SimpleITK

    try:
        image = SimpleITK.ReadImage(str(file))
    except RuntimeError as error:
        raise DataError("The label map can't be read: send a NIfTI or NRRD file.") from error
    affine = np.eye(4)
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise DataError(f"The label map is {image.GetDimension()}D, not one 3D map of labels: export it as such.")
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # LPS to RAS
    if image.GetSize() != shape or not in_one_place(shape, affine, reference.affine):
        raise DataError(
            f"The label map's grid {image.GetSize()} isn't the image's {shape}, or lies elsewhere: export it on that."
        )
    return SimpleITK.GetArrayFromImage(image).T
