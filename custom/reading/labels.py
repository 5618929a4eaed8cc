"""The check of a label map's values: `brainmri verify` and training share it, so they agree about every file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from custom.errors import DataError

TOLERANCE = 1e-3  # how far from a whole number a value may lie, after interpolation or a scale factor in the header
MOST_LISTED = 10  # unknown codes in an error message


@dataclass(frozen=True)
class LabelCodes:
    """Which values a label map may hold.

    Args:
        known: the codes of the labels, label 0's first; None allows any whole number.
        ignore: the code of voxels that nobody labelled (nnU-Net's "ignore"); None where a data set has no such code.
        may_be_empty: whether a map of zeros is valid: a subject without the lesion.
    """

    known: tuple[int, ...] | None = None
    ignore: int | None = None
    may_be_empty: bool = True

    @property
    def allowed(self) -> tuple[int, ...] | None:
        """The known codes and that of ignored voxels; None for any."""
        if self.known is None or self.ignore is None:
            return self.known
        return (*self.known, self.ignore)


def without_trailing_axes(voxels: np.ndarray) -> np.ndarray:
    """A view without axes of length 1 after the third: (x, y, z) for (x, y, z, 1), as ITK and numpy exports have it."""
    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    return voxels


def whole_codes(voxels: np.ndarray, codes: LabelCodes) -> np.ndarray:
    """A label map's values as whole numbers.

    Args:
        voxels: any shape and type.
        codes: the values that are allowed.

    Returns:
        int32, of the same shape; values within TOLERANCE of a whole number are rounded.

    Raises:
        DataError: values that are no numbers, not finite, not whole or not allowed; a map of zeros, or one in which all
            voxels are ignored. The message begins with a verb: the caller puts the file's name before it.
    """
    if voxels.dtype.kind not in "buif":
        raise DataError(f"holds values of the type {voxels.dtype}. Save the label map with whole numbers.")
    if invalid := int((~np.isfinite(voxels)).sum()):
        raise DataError(f"has {invalid} voxels that are NaN or infinite. Export the label map again.")
    if voxels.dtype.kind == "f":
        rounded = np.rint(voxels)
        fraction = np.abs(voxels - rounded) > TOLERANCE * 1.001  # 0.999 in float32 counts as within
        if fraction.any():
            raise DataError(
                f"holds the value {float(voxels[fraction][0]):.6g}, which is no whole number. "
                "Save the label map with whole numbers, for example resampled by nearest neighbour."
            )
        voxels = rounded
    if voxels.size and (voxels.min() < -(2**31) or voxels.max() >= 2**31):
        raise DataError(f"holds the value {float(voxels.max()):.6g}, which is no label code. Correct the label map.")
    whole = voxels.astype(np.int32)
    _check_codes(whole, codes)
    return whole


def _check_codes(whole: np.ndarray, codes: LabelCodes) -> None:
    if codes.allowed is not None:
        known = np.isin(whole, codes.allowed)
        if not known.all():
            unknown = np.unique(whole[~known]).tolist()
            more = f" and {len(unknown) - MOST_LISTED} more" if len(unknown) > MOST_LISTED else ""
            raise DataError(
                f"holds the label codes {unknown[:MOST_LISTED]}{more}, but only {sorted(codes.allowed)} are known. "
                "Correct the label map."
            )
    if not codes.may_be_empty and not whole.any():
        raise DataError("holds nothing but zeros. Export the label map again.")
    if codes.ignore is not None and (whole == codes.ignore).all():
        raise DataError(f'holds only the code {codes.ignore} of "ignore". Label a part of it, or leave the case out.')


def label_map(voxels: np.ndarray, codes: LabelCodes) -> np.ndarray:
    """A file's voxels as a label map.

    Args:
        voxels: as the file holds them: (x, y, z), or with further axes of length 1.
        codes: the values that are allowed.

    Returns:
        (x, y, z), int32.

    Raises:
        DataError: another shape, or what `whole_codes` refuses.
    """
    volume = without_trailing_axes(voxels)
    if volume.ndim != 3:
        size = "x".join(map(str, voxels.shape))
        raise DataError(f"has the shape {size}, but a label map is one 3D volume. Save one label per voxel.")
    return whole_codes(volume, codes)
