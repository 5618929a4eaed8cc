"""The slices of DICOM files: where each lies, and what tells the volumes of one series apart.

Source: DICOM PS3.3, C.7.6.2 (plane of an image) and C.7.6.16 (functional groups of enhanced multi-frame images).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from custom.errors import DataError
from custom.reading.dicom_header import (
    COLUMNS,
    FRAME_GROUPS,
    FRAMES,
    INSTANCE,
    ROWS,
    SHARED_GROUPS,
    DicomHeader,
    Elements,
)

POSITION, ORIENTATION, SPACING = 0x00200032, 0x00200037, 0x00280030
SLOPE, INTERCEPT = 0x00281053, 0x00281052
IMAGE_TYPE, FRAME_TYPE = 0x00080008, 0x00089007
STACK, TIME_INDEX = 0x00209056, 0x00209128
# What a functional group holds: the sequence's tag by the tag inside it.
GROUPS = {
    POSITION: 0x00209113, ORIENTATION: 0x00209116, SPACING: 0x00289110, SLOPE: 0x00289145, INTERCEPT: 0x00289145,
    FRAME_TYPE: 0x00189226, STACK: 0x00209111, TIME_INDEX: 0x00209111, 0x00189082: 0x00189114, 0x00189087: 0x00189117,
}  # fmt: skip
# Differences between volumes of one series, with the tag of a plain file (as text).
DIFFERENCES = {
    "echo time": 0x00180081, "echo number": 0x00180086, "inversion time": 0x00180082, "repetition time": 0x00180080,
    "flip angle": 0x00181314, "b-value": 0x00189087, "temporal position": 0x00200100, "trigger time": 0x00181060,
    "acquisition number": 0x00200012, "acquisition time": 0x00080032, "content time": 0x00080033,
}  # fmt: skip


@dataclass
class Slice:
    """One slice: a file, or one frame of a multi-frame file.

    Attributes:
        path: of the file.
        frame: number of the frame from 0; None in a file of one slice.
        instance: the SOPInstanceUID of the file.
        shape: (columns, rows).
        spacing: distance of columns and of rows, mm.
        position: of the first voxel's centre, (3,), mm, LPS.
        axes: directions of a row and of a column, (2, 3), LPS.
        differences: echo time, image type, ... where the header has them.
        slope: (RescaleSlope, RescaleIntercept) of the frame.
        stack: the name of the stack in which the frame lies, or "".
    """

    path: Path
    frame: int | None
    instance: str
    shape: tuple[int, int]
    spacing: tuple[float, float]
    position: np.ndarray
    axes: np.ndarray
    slope: tuple[float, float] = (1.0, 0.0)
    stack: str = ""
    differences: dict[str, str | float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file's name, with the frame from 1 in a multi-frame file."""
        return self.path.name if self.frame is None else f"{self.path.name}, frame {self.frame + 1}"

    @property
    def normal(self) -> np.ndarray:
        """The direction across the slice, (3,), LPS."""
        return np.cross(self.axes[0], self.axes[1])

    @property
    def height(self) -> float:
        """The position along the normal, mm."""
        return float(self.position @ self.normal)


def slices_of(header: DicomHeader) -> list[Slice]:
    """The slices of one file: one, or the frames of a multi-frame file.

    Raises:
        DataError: the header lacks the place or the size of a slice.
    """
    frames = header.items(FRAME_GROUPS)
    count = int((header.decimals(FRAMES) or (1,))[0])
    if not frames and count > 1:
        raise DataError(f"{header.path} holds {count} frames without their positions. Export single slices, or NIfTI.")
    if not frames:
        return [_slice(header, [header.elements], None)]
    if len(frames) != count:
        raise DataError(
            f"{header.path} describes {len(frames)} of its {count} frames. Export the file again, or as NIfTI."
        )
    shared = header.items(SHARED_GROUPS)
    return [
        _slice(header, [frame, *shared, header.elements], k if count > 1 else None) for k, frame in enumerate(frames)
    ]


def _slice(header: DicomHeader, levels: list[Elements], frame: int | None) -> Slice:
    position, axes, spacing = (_numbers(header, levels, tag) for tag in (POSITION, ORIENTATION, SPACING))
    if (len(position), len(axes), len(spacing)) != (3, 6, 2):
        raise DataError(
            f"{header.path} has no position, orientation or pixel spacing, so its place in the volume is unknown. "
            "Export the original series, not screenshots, or convert it to NIfTI."
        )
    slope, intercept = (_numbers(header, levels, tag) for tag in (SLOPE, INTERCEPT))
    return Slice(
        path=header.path,
        frame=frame,
        instance=header.text(INSTANCE),
        shape=(header.integer(COLUMNS), header.integer(ROWS)),
        spacing=(spacing[1], spacing[0]),
        position=np.array(position),
        axes=np.array(axes).reshape(2, 3),
        slope=((slope or (1.0,))[0], (intercept or (0.0,))[0]),
        stack=_text(header, levels, STACK),
        differences=_differences(header, levels),
    )


def _differences(header: DicomHeader, levels: list[Elements]) -> dict[str, str | float]:
    result: dict[str, str | float] = {}
    for name, tag in DIFFERENCES.items():
        text = _text(header, levels, tag)
        if text:
            result[name] = _number_or_text(text)
    for name, tag in (("echo time", 0x00189082), ("b-value", 0x00189087)):
        values = [header.real(tag, item) for item in _items(header, levels, tag)]
        if values and values[0] is not None:
            result[name] = values[0]
    times = [header.integer(TIME_INDEX, 0, item) for item in _items(header, levels, TIME_INDEX) if TIME_INDEX in item]
    if times:
        result["temporal position"] = times[0]
    kinds = (_text(header, levels, FRAME_TYPE) or _text(header, levels, IMAGE_TYPE)).split("\\")
    if len(kinds) > 2:
        result["image type"] = kinds[2]
    return result


def _number_or_text(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def _items(header: DicomHeader, levels: list[Elements], tag: int) -> list[Elements]:
    """The items in which a tag may lie: of the frame's group, of the shared group, and the data set's own level."""
    group = GROUPS.get(tag)
    nested = [item for level in levels if group for item in header.items(group, level)]
    return [*nested, levels[-1]]


def _text(header: DicomHeader, levels: list[Elements], tag: int) -> str:
    texts = (header.text(tag, item) for item in _items(header, levels, tag))
    return next((text for text in texts if text), "")


def _numbers(header: DicomHeader, levels: list[Elements], tag: int) -> tuple[float, ...]:
    numbers = (header.decimals(tag, item) for item in _items(header, levels, tag))
    return next((values for values in numbers if values), ())
