"""Label maps as DICOM SEG, written and read with highdicom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import highdicom
import nibabel
import numpy as np
from highdicom.seg import Segmentation, SegmentDescription
from pydicom import Dataset
from pydicom.sr.codedict import codes

import custom
from custom.errors import DataError
from custom.serving.terms import OTHER, TERMS

_TOLERANCE = 0.01  # mm; NIfTI keeps single precision
LENGTH = 64  # letters of a DICOM long string (LO)


@dataclass(frozen=True)
class Algorithm:
    """What segmented a series.

    Args:
        name: of the bundle.
        version: of the bundle and its weights.
        type: AUTOMATIC; SEMIAUTOMATIC if a person saved the result, corrected or not; or MANUAL.
    """

    name: str
    version: str
    type: str


def write_seg(
    voxels: np.ndarray, affine: np.ndarray, series: Sequence[Dataset], labels: Mapping[str, int], algorithm: Algorithm
) -> Segmentation:
    """The segmentation of one series. Every label of the bundle is a segment, whether it is present or not.

    Args:
        voxels: (x, y, z), the codes of the bundle, on the grid of the series.
        affine: (4, 4), voxels to mm, RAS+, as in NIfTI.
        series: the single-frame images that were segmented.
        labels: {"CSF": 1, ...}; the codes become the numbers of the segments.
        algorithm: what segmented it.

    Raises:
        DataError: the label map is not on the grid of the series.
    """
    geometry = _geometry(series)
    try:
        volume = highdicom.Volume.from_nibabel(
            nibabel.Nifti1Image(voxels.astype(np.uint8), affine),
            frame_of_reference_uid=series[0].FrameOfReferenceUID,
        ).match_geometry(geometry, tol=_TOLERANCE)
    except RuntimeError as error:
        raise DataError(f"The label map is not on the grid of its series ({error}). Export it again.") from error
    seg = Segmentation(
        source_images=list(series),
        pixel_array=volume,
        segmentation_type="BINARY",
        segment_descriptions=_describe_segments(labels, algorithm),
        series_instance_uid=highdicom.UID(),
        series_number=300,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="Brain MRI Bundles",
        manufacturer_model_name=algorithm.name,
        software_versions=custom.__version__,
        device_serial_number="none",
        content_label="BRAIN_SEG",
        content_description=custom.RESEARCH_USE_ONLY,
    )
    seg.SeriesDescription = f"Research use only: {', '.join(labels)} by {algorithm.name}"[:LENGTH]
    return seg


def _describe_segments(labels: Mapping[str, int], algorithm: Algorithm) -> list[SegmentDescription]:
    """A coded description of each label, in the order of their codes."""
    identification = None
    if algorithm.type != "MANUAL":
        identification = highdicom.AlgorithmIdentificationSequence(
            name=algorithm.name, family=codes.DCM.ArtificialIntelligence, version=algorithm.version[:LENGTH]
        )
    segments = []
    for name, code in sorted(labels.items(), key=lambda pair: pair[1]):
        category, kind, description = TERMS.get(name) or OTHER
        segment = SegmentDescription(
            segment_number=code,
            segment_label=name,
            segmented_property_category=category,
            segmented_property_type=kind,
            algorithm_type=algorithm.type,
            algorithm_identification=identification,
        )
        segment.SegmentDescription = f"{description}. {custom.RESEARCH_USE_ONLY}"
        segments.append(segment)
    return segments


def read_seg(seg: Dataset, series: Sequence[Dataset], labels: Mapping[str, int]) -> highdicom.Volume:
    """The label map of a SEG. The names of the segments decide which labels they are.

    Args:
        seg: the DICOM object.
        series: the single-frame images that it labels.
        labels: {"CSF": 1, ...}, the codes of the bundle.

    Returns:
        A highdicom volume on the grid of the series, uint8, with the codes of the bundle.

    Raises:
        DataError: an object that cannot be read, unknown or overlapping segments, or another grid.
    """
    try:
        segmentation = Segmentation.from_dataset(seg, copy=False)
    except Exception as error:  # highdicom raises many kinds of errors
        raise DataError(f"The segmentation cannot be read ({error}). Export it again.") from error
    numbers = {segmentation.get_segment_description(n).SegmentLabel: n for n in segmentation.segment_numbers}
    if len(numbers) < len(segmentation.segment_numbers):
        raise DataError(
            f"Two segments of the segmentation have the same name ({sorted(numbers)}). Join or rename them."
        )
    if unknown := sorted(set(numbers) - set(labels)):
        raise DataError(f"The segmentation has unknown segments: {', '.join(unknown)}. Known are: {', '.join(labels)}.")
    try:
        volume = segmentation.get_volume(combine_segments=True, dtype=np.uint8, allow_missing_positions=True)
        volume = volume.match_geometry(_geometry(series), tol=_TOLERANCE)
    except (RuntimeError, ValueError) as error:
        raise DataError(f"The segmentation is not on the grid of its series, or segments overlap ({error}).") from error
    codes_of = np.zeros(max(numbers.values()) + 1, dtype=np.uint8)
    for name, number in numbers.items():
        codes_of[number] = labels[name]
    return volume.with_array(codes_of[volume.array])


def _geometry(series: Sequence[Dataset]) -> highdicom.VolumeGeometry:
    try:
        return highdicom.get_volume_from_series(series, dtype=np.float32).get_geometry()
    except (RuntimeError, ValueError, AttributeError) as error:
        raise DataError(f"The slices of the series do not form a volume ({error}). Use another series.") from error
