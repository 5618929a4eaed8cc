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

    def voxel_ml(self) -> float:
        """The volume of a voxel, in ml."""
        place = self._group("PixelMeasuresSequence") if self.is_multi_frame else self.images[0]
        heights = self.positions() @ np.cross(*self.axes())
        between = float(np.ptp(heights)) / max(1, len(heights) - 1)
        return float(np.prod(np.array(place.PixelSpacing, dtype=float))) * between / 1000

    def _group(self, name: str) -> Dataset:
        """A functional group of a multi-frame image: the shared one, else that of its first frame."""
        image = self.images[0]
        shared, first = image.SharedFunctionalGroupsSequence[0], image.PerFrameFunctionalGroupsSequence[0]
        return (shared if name in shared else first)[name][0]

    def geometry(self) -> highdicom.VolumeGeometry:
        """The grid of the series. Raises DataError if its slices are uneven or tilted against their own normal."""
        try:
            if self.is_multi_frame:
                grid = highdicom.Image.from_dataset(self.images[0], copy=False).get_volume_geometry()
            else:
                volume = highdicom.get_volume_from_series(self.images, dtype=np.float32)
                grid = volume.get_geometry()
        except (RuntimeError, ValueError, AttributeError) as error:
            raise DataError(f"The slices of the series form no even grid ({error}). Use another series.") from error
        if grid is None:
            raise DataError("The slices of the series form no even grid. Use another series.")
        return grid

    def frames(self, voxels: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """A label map as frames (N, rows, columns) in the order of the series' own frames.

        Args:
            voxels: (x, y, z) on the grid that custom.reading.dicom gives the series: columns, rows, and slices by
                their position along the normal.
            affine: (4, 4), voxels to mm, RAS+.

        Raises:
            DataError: the label map is on another grid.
        """
        positions = self.positions()
        order = np.argsort(positions @ np.cross(*self.axes()))
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

    Missing tags are filled in: empty, but for a new frame of reference. Orientations and spacings that differ in their
    last digits become those of the first image, because highdicom compares them as texts.
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
    if any(not image.get("FrameOfReferenceUID") for image in series):
        missing.append("FrameOfReferenceUID")
        for image in series:
            image.FrameOfReferenceUID = generate_uid(entropy_srcs=[str(series[0].SeriesInstanceUID)])
    return SourceImages(list(series), tuple(missing))
