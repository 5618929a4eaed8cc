"""The images of a DICOM series as the source of a derived object: what DICOM requires of them, and their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import highdicom
import numpy as np
from pydicom import Dataset
from pydicom.uid import generate_uid

from custom.errors import DataError

# Type 2 in DICOM's modules Patient, General Study and Frame of Reference: empty where the series lacks them.
_MAY_BE_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "ReferringPhysicianName", "AccessionNumber"),
    *("PositionReferenceIndicator", "SliceThickness"),
)
_JITTER = 2e-3  # of directions and spacings, as custom.reading.dicom_volume allows
_EVEN = 0.01  # mm


@dataclass(frozen=True)
class SourceImages:
    """The images of one series: single frames, or one multi-frame image.

    Args:
        images: all that a derived object copies from them is present, if need be empty.
        missing: the keywords of the tags that were filled in.
    """

    images: list[Dataset]
    missing: tuple[str, ...]

    @property
    def note(self) -> str:
        """A sentence about missing tags; "" if none is missing."""
        return f"The source images lack {', '.join(self.missing)}." if self.missing else ""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(columns, rows, slices)."""
        first = self.images[0]
        return int(first.Columns), int(first.Rows), len(self.positions())

    def positions(self) -> np.ndarray:
        """The centre of each slice's first voxel in the order of the frames, (N, 3), mm, LPS."""
        if not self.is_multi_frame:
            return np.array([image.ImagePositionPatient for image in self.images], dtype=float)
        groups = self.images[0].PerFrameFunctionalGroupsSequence
        return np.array([group.PlanePositionSequence[0].ImagePositionPatient for group in groups], dtype=float)

    @property
    def is_multi_frame(self) -> bool:
        """Whether the series is one multi-frame image."""
        return len(self.images) == 1 and "PerFrameFunctionalGroupsSequence" in self.images[0]

    def axes(self) -> np.ndarray:
        """The directions of a row and of a column, (2, 3), LPS."""
        place = self._group("PlaneOrientationSequence") if self.is_multi_frame else self.images[0]
        return np.array(place.ImageOrientationPatient, dtype=float).reshape(2, 3)

    def spacing(self) -> tuple[float, float]:
        """The distance of columns and of rows, mm."""
        place = self._group("PixelMeasuresSequence") if self.is_multi_frame else self.images[0]
        rows, columns = (float(size) for size in place.PixelSpacing)
        return columns, rows

    def order(self) -> np.ndarray:
        """The numbers of the frames by the slices' position along the normal, (N,)."""
        return np.argsort(self.positions() @ np.cross(*self.axes()))

    def affine(self) -> np.ndarray:
        """Voxels (column, row, slice in `order`) to mm, (4, 4), LPS; sheared for a tilted gantry."""
        positions = self.positions()[self.order()]
        affine = np.eye(4)
        affine[:3, :2] = self.axes().T * self.spacing()
        affine[:3, 2] = (positions[-1] - positions[0]) / max(1, len(positions) - 1)
        affine[:3, 3] = positions[0]
        return affine

    def voxel_ml(self) -> float:
        """The volume of a voxel, in ml."""
        return float(np.linalg.det(self.affine()[:3, :3])) / 1000

    def has_slices_like(self, other: SourceImages) -> bool:
        """Whether the slices of both have one size, orientation and spacing."""
        return (
            self.shape[:2] == other.shape[:2]
            and np.allclose(self.axes(), other.axes(), atol=_JITTER)
            and np.allclose(self.spacing(), other.spacing(), rtol=_JITTER)
        )

    def _group(self, name: str) -> Dataset:
        """A functional group of a multi-frame image: the shared one, else that of its first frame."""
        image = self.images[0]
        shared, first = image.SharedFunctionalGroupsSequence[0], image.PerFrameFunctionalGroupsSequence[0]
        return (shared if name in shared else first)[name][0]

    def geometry(self) -> highdicom.VolumeGeometry:
        """The grid (slice in `order`, row, column). Raises DataError if the slices are uneven or tilted."""
        affine, positions = self.affine(), self.positions()[self.order()]
        planned = affine[:3, 3] + np.arange(len(positions))[:, None] * affine[:3, 2]
        between = float(np.linalg.norm(affine[:3, 2]))
        normal = np.cross(*self.axes())
        if np.abs(planned - positions).max() > _EVEN or np.abs(affine[:3, 2] - between * normal).max() > _EVEN:
            raise DataError(
                "The slices of the series are uneven or tilted, and the segmentation has other slices. Draw on the "
                "slices of the series."
            )
        affine[:3, 2] = between * normal
        columns, rows, slices = self.shape
        frame = self.images[0].FrameOfReferenceUID
        return highdicom.VolumeGeometry(affine[:, [2, 1, 0, 3]], (slices, rows, columns), "PATIENT", frame)

    def frames(self, voxels: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """A label map as frames (N, rows, columns) in the order of the series' own frames.

        Args:
            voxels: (x, y, z) on the grid that custom.reading.dicom gives the series: columns, rows, and slices by
                their position along the normal.
            affine: (4, 4), voxels to mm, RAS+.

        Raises:
            DataError: the label map is on another grid.
        """
        positions, order = self.positions(), self.order()
        at = affine @ np.stack([[0, 0, k, 1] for k in range(len(order))], axis=1).astype(float)
        planned = (np.diag([-1, -1, 1, 1]) @ at)[:3].T
        between = np.linalg.norm(positions[order[-1]] - positions[order[0]]) / max(1, len(order) - 1)
        if voxels.shape != self.shape or np.abs(planned - positions[order]).max() > max(0.02, between / 2):
            raise DataError(
                f"The label map {voxels.shape} is not on the grid of its series {self.shape}. Export it again."
            )
        frames = np.empty((len(order), *voxels.shape[1::-1]), dtype=voxels.dtype)
        frames[order] = voxels.transpose(2, 1, 0)
        return frames


def source_images(series: Sequence[Dataset]) -> SourceImages:
    """The images of a series that custom.reading.dicom could read.

    Missing tags are filled in: empty, but for a new frame of reference, and a thickness that is the distance of slices.
    Orientations and spacings that differ in their last digits become those of the first image, because highdicom
    compares them as texts.
    """
    is_multi_frame = "PerFrameFunctionalGroupsSequence" in series[0]
    wanted = [name for name in _MAY_BE_EMPTY if not (is_multi_frame and name == "SliceThickness")]
    missing = [name for name in wanted if any(name not in image for image in series)]
    for image in series:
        for name in missing:
            image.setdefault(name, None)
        for name in () if is_multi_frame else ("ImageOrientationPatient", "PixelSpacing"):
            own, first = (np.array(each[name].value, dtype=float) for each in (image, series[0]))
            if np.allclose(own, first, rtol=_JITTER, atol=_JITTER):
                image[name].value = series[0][name].value
    if "SliceThickness" in missing:  # highdicom reads no SEG without it
        between = float(np.linalg.norm(SourceImages(list(series), ()).affine()[:3, 2]))
        for image in series:
            image.SliceThickness = image.SliceThickness or round(between, 4)
    if any(not image.get("FrameOfReferenceUID") for image in series):
        missing.append("FrameOfReferenceUID")
        for image in series:
            image.FrameOfReferenceUID = generate_uid(entropy_srcs=[str(series[0].SeriesInstanceUID)])
    return SourceImages(list(series), tuple(missing))
