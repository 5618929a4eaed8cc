"""Volumes in ITK's formats (NRRD, MetaImage), as nibabel images whose voxels are read when they are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from custom.errors import DataError
from custom.reading import nrrd
from custom.reading.meta_image import check_complete

ENDINGS = (".nrrd", ".nhdr", ".mha", ".mhd")
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class _Voxels:
    """The voxels of an image in the form that nibabel expects, read by ITK at the first use.

    Args:
        path: the file.
        shape: of its voxels, x first.
        dtype: of its voxels.
    """

    is_proxy = True

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.path = path
        self.shape = shape
        self.ndim = len(shape)
        self.dtype = dtype

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy
        import itk

        if self.path.suffix.lower() in (".mha", ".mhd"):
            check_complete(self.path)
        else:
            nrrd.voxel_files(self.path)

        voxels = np.asarray(itk.array_from_image(itk.imread(str(self.path))), dtype=dtype)
        return np.transpose(voxels)

    def __getitem__(self, index: Any) -> np.ndarray:
        part: np.ndarray = np.asarray(self)[index]
        return part


def open_by_itk(path: Path) -> nibabel.Nifti1Image:
    """Opens an NRRD or MetaImage file by its header.

    Returns:
        An image (x, y, z, ...) with the affine of RAS+; its voxels are not read yet.

    Raises:
        DataError: the header can't be read, or the file has several values per voxel.
    """
    import itk

    path = path.absolute()  # itk changes the current folder while it is imported
    try:
        header = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
        header.SetFileName(str(path))
        header.ReadImageInformation()
    except Exception as error:
        raise DataError(
            f"{path} has no header that can be read ({type(error).__name__}). Copy the file again."
        ) from error
    if header.GetNumberOfComponents() != 1:
        raise DataError(f"{path} has {header.GetNumberOfComponents()} values per voxel. Save each as a 3D file.")
    axes = range(header.GetNumberOfDimensions())
    shape = tuple(int(header.GetDimensions(axis)) for axis in axes)
    dtype = np.dtype(_numpy_type(header))
    stored = dtype if dtype.itemsize < 8 or dtype.kind == "f" else np.dtype(np.int32)
    return nibabel.Nifti1Image(_Voxels(path, shape, stored), affine_of_header(header), dtype=stored)


def affine_of_header(header: Any) -> np.ndarray:
    """The affine (4, 4), voxels to mm, RAS+, of an ITK ImageIO that has read a file's header."""
    axes = list(range(header.GetNumberOfDimensions()))[:3]
    affine = np.eye(4)
    for axis in axes:
        direction = np.array([header.GetDirection(axis)[row] for row in axes])
        affine[: len(direction), axis] = direction * header.GetSpacing(axis)
        affine[axis, 3] = header.GetOrigin(axis)
    return np.asarray(_LPS_TO_RAS @ affine)


def _numpy_type(header: Any) -> str:
    names = {
        "unsigned_char": "u1", "char": "i1", "unsigned_short": "u2", "short": "i2", "unsigned_int": "u4", "int": "i4",
        "unsigned_long": "u8", "long": "i8", "unsigned_long_long": "u8", "long_long": "i8", "double": "f8",
    }  # fmt: skip
    return names.get(header.GetComponentTypeAsString(header.GetComponentType()), "f4")
