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
        import SimpleITK

        if self.path.suffix.lower() in (".mha", ".mhd"):
            check_complete(self.path)
        else:
            nrrd.voxel_files(self.path)
        voxels = np.asarray(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(self.path))), dtype=dtype)
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
    try:
        header = read_itk_header(path)
    except Exception as error:
        raise DataError(
            f"{path} has no header that can be read ({type(error).__name__}). Copy the file again."
        ) from error
    if header.GetNumberOfComponents() != 1:
        raise DataError(f"{path} has {header.GetNumberOfComponents()} values per voxel. Save each as a 3D file.")
    dtype = np.dtype(_numpy_type(header))
    stored = dtype if dtype.itemsize < 8 or dtype.kind == "f" else np.dtype(np.int32)
    return nibabel.Nifti1Image(_Voxels(path, header.GetSize(), stored), affine_of_header(header), dtype=stored)


def read_itk_header(path: Path, image_io: str = "") -> Any:
    """SimpleITK's ImageFileReader that has read a file's header.

    Args:
        path: the file.
        image_io: ITK's name of a format, such as "NrrdImageIO"; "" chooses by the content.

    Raises:
        RuntimeError: the content is no known format, or the header is damaged.
    """
    import SimpleITK  # here, because packed bundles run without it as long as they read NIfTI

    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO(image_io)
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def affine_of_header(header: Any) -> np.ndarray:
    """The affine (4, 4), voxels to mm, RAS+, of a header that `read_itk_header` has read."""
    count = header.GetDimension()
    axes = min(count, 3)
    affine = np.eye(4)
    directions = np.reshape(header.GetDirection(), (count, count))[:axes, :axes]
    affine[:axes, :axes] = directions * header.GetSpacing()[:axes]
    affine[:axes, 3] = header.GetOrigin()[:axes]
    return np.asarray(_LPS_TO_RAS @ affine)


def _numpy_type(header: Any) -> str:
    import SimpleITK

    return {
        SimpleITK.sitkUInt8: "u1", SimpleITK.sitkInt8: "i1", SimpleITK.sitkUInt16: "u2", SimpleITK.sitkInt16: "i2",
        SimpleITK.sitkUInt32: "u4", SimpleITK.sitkInt32: "i4", SimpleITK.sitkUInt64: "u8", SimpleITK.sitkInt64: "i8",
        SimpleITK.sitkFloat64: "f8",
    }.get(header.GetPixelID(), "f4")  # fmt: skip
