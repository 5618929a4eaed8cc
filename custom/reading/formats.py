"""The voxels and the affine of one scan, by nibabel, ITK or as a DICOM series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from custom.errors import DataError
from custom.reading import nrrd
from custom.reading.containers import NIBABEL_FORMATS, check_packed, files_of, format_of, is_packed
from custom.reading.dicom import read_dicom
from custom.reading.foreign import what_it_is
from custom.reading.itk_volumes import affine_of_header, read_itk_header
from custom.reading.limits import check_scan, reason_of, unreadable
from custom.reading.meta_image import check_complete, read_fields, voxel_files
from custom.reading.orientation import affine_of, no_orientation
from custom.reading.volumes import open_volume

IMAGE_IOS = {"NRRD": "NrrdImageIO", "MetaImage": "MetaImageIO"}  # ITK chooses the others by content
NIBABEL_NAMES = (".nii.gz", ".nii", ".mgz", ".mgh", ".hdr.gz", ".hdr", ".img.gz", ".img")


def read_voxels(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Reads one volume; the content decides on its format, and not its name.

    Returns:
        voxels (x, y, z), float32, as they are stored; affine (4, 4), voxels to mm, RAS+; warnings, a sentence each.

    Raises:
        MissingDataError: a file does not exist.
        DataError: it is no grey 3D volume, holds complex numbers, or cannot be read to its end.
    """
    if path.is_dir():
        return read_dicom(path)
    kind = format_of(path)
    if kind == "DICOM":
        return read_dicom(path)
    if kind in NIBABEL_FORMATS or (not kind and path.name.lower().endswith(NIBABEL_NAMES)):
        return _by_nibabel(path)
    return _by_itk(path, kind)


def _by_nibabel(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    image = open_volume(path)
    shape = _checked_shape(path, image.shape)
    dtype = image.get_data_dtype()
    if dtype.fields:
        raise DataError(f"{path} is a colour image. Give the scan that it was made from.")
    if dtype.kind == "c":
        raise DataError(f"{path} is complex, magnitude and phase in one. Save its magnitude, such as by numpy.abs.")
    affine, warnings = affine_of(image)
    check_scan(path, shape, affine)
    try:
        voxels = np.asarray(image.dataobj, dtype=np.float32).reshape(shape)
    except Exception as error:
        raise unreadable(path, error) from error
    check_packed(files_of(path)[1])
    return voxels, affine, warnings


def _by_itk(path: Path, kind: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    import SimpleITK

    if kind and is_packed(path):
        raise DataError(f"{path} is {kind} packed by gzip or bzip2. Unpack it, or save it as NIfTI.")
    try:
        if kind == "MetaImage":
            check_complete(path)
        if kind == "NRRD":
            nrrd.voxel_files(path)
        if not kind and not SimpleITK.ImageFileReader.GetImageIOFromFileName(str(path)):
            raise ValueError("its content is none of the known formats")
        reader = read_itk_header(path, IMAGE_IOS.get(kind, ""))
    except DataError:
        raise
    except Exception as error:
        if what := what_it_is(path):
            raise DataError(f"{path} {what}.") from error
        raise DataError(f"{path} can't be read ({reason_of(error)}). Copy it again, or convert it to NIfTI.") from error
    if reader.GetPixelID() in (SimpleITK.sitkComplexFloat32, SimpleITK.sitkComplexFloat64):
        raise DataError(f"{path} is complex, magnitude and phase in one. Save its magnitude, such as by numpy.abs.")
    if (count := reader.GetNumberOfComponents()) != 1:
        raise DataError(f"{path} has {count} values a voxel, as colour and diffusion scans have. Give a plain scan.")
    shape, affine = _checked_shape(path, reader.GetSize()), affine_of_header(reader)
    check_scan(path, shape, affine)
    try:
        reader.SetOutputPixelType(SimpleITK.sitkFloat32)
        image = reader.Execute()
    except Exception as error:
        raise unreadable(path, error) from error
    voxels = SimpleITK.GetArrayViewFromImage(image).T.reshape(shape)
    warnings = [] if _has_orientation(path, kind, image) else [no_orientation(affine)]
    return np.ascontiguousarray(voxels), affine, warnings


def all_files(scan: Path) -> list[Path]:
    """Every file that a scan's voxels come from: those of a DICOM folder, both of a pair, or the scan alone."""
    if scan.is_dir():
        return [path for path in sorted(scan.iterdir()) if path.is_file()]
    files = list(files_of(scan))
    if scan.suffix.lower() in (".mha", ".mhd"):
        files += voxel_files(scan)
    elif scan.suffix.lower() == ".nhdr":
        files += nrrd.voxel_files(scan)
    return [path for path in dict.fromkeys(files) if path.is_file()]


def _has_orientation(path: Path, kind: str, image: Any) -> bool:
    if kind == "NRRD":
        return bool(image.HasMetaDataKey("NRRD_space"))
    return kind == "MetaImage" and bool({"TransformMatrix", "Orientation", "Rotation"} & set(read_fields(path)))


def _checked_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without last axes of one.

    Raises:
        DataError: the remaining axes are not three axes of two voxels or more.
    """
    size = "x".join(map(str, shape))
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 4 and shape[0] == 1:
        raise DataError(f"{path} has a first axis of one ({size}). Save it as {'x'.join(map(str, shape[1:]))}.")
    if len(shape) > 3:
        raise DataError(f"{path} is a series of volumes ({size}). Save one of them, or their mean, as a 3D file.")
    if len(shape) < 3 or min(shape) < 2:
        raise DataError(f"{path} is a slice, not a volume ({size}). Give the whole 3D scan.")
    return shape
