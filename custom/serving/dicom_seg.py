"""DICOM SEG by highdicom: a bundle's label map out, and back in the bundle's codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
LENGTH = 64  # of a DICOM long string


def write_seg(
    voxels: np.ndarray,
    affine: np.ndarray,
    series: Sequence[Dataset],
    labels: Mapping[str, int],
    algorithm: str,
    version: str,
    algorithm_type: str,
) -> Segmentation:
    """A segmentation of one series: every label of the bundle is a segment, whether it is present or not.

    Args:
        voxels: (x, y, z) in the bundle's codes, on the series' own grid.
        affine: (4, 4), voxels to mm, RAS+, as NIfTI has it.
        series: the single-frame images that were segmented.
        labels: {"CSF": 1, ...}; the codes are the segments' numbers.
        algorithm: what segmented: the bundle's name.
        version: the bundle's version and its weights.
        algorithm_type: AUTOMATIC, SEMIAUTOMATIC where a person saved a result, corrected or not, or MANUAL.

    Raises:
        DataError: the label map doesn't lie on the series' grid.
    """
    geometry = _geometry(series)
    try:
        volume = highdicom.Volume.from_nibabel(
            nibabel.Nifti1Image(voxels.astype(np.uint8), affine),
            frame_of_reference_uid=series[0].FrameOfReferenceUID,
        ).match_geometry(geometry, tol=_TOLERANCE)
    except RuntimeError as error:
        raise DataError(f"The label map doesn't lie on the grid of its series ({error}): export it again.") from error
    made_by = None
    if algorithm_type != "MANUAL":
        made_by = highdicom.AlgorithmIdentificationSequence(
            name=algorithm, family=codes.DCM.ArtificialIntelligence, version=version[:LENGTH]
        )
    segments = [
        SegmentDescription(
            segment_number=code,
            segment_label=name,
            segmented_property_category=(TERMS.get(name) or OTHER)[0],
            segmented_property_type=(TERMS.get(name) or OTHER)[1],
            algorithm_type=algorithm_type,
            algorithm_identification=made_by,
        )
        for name, code in sorted(labels.items(), key=lambda pair: pair[1])
    ]
    for segment in segments:
        about = (TERMS.get(segment.SegmentLabel) or OTHER)[2]
        segment.SegmentDescription = f"{about}. {custom.RESEARCH_USE_ONLY}"
    seg = Segmentation(
        source_images=list(series),
        pixel_array=volume,
        segmentation_type="BINARY",
        segment_descriptions=segments,
        series_instance_uid=highdicom.UID(),
        series_number=300,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="Brain MRI Bundles",
        manufacturer_model_name=algorithm,
        software_versions=custom.__version__,
        device_serial_number="none",
        content_label="BRAIN_SEG",
        content_description=custom.RESEARCH_USE_ONLY,
    )
    seg.SeriesDescription = f"Research use only: {', '.join(labels)} by {algorithm}"[:LENGTH]
    return seg


def read_seg(seg: Dataset, series: Sequence[Dataset], labels: Mapping[str, int]) -> highdicom.Volume:
    """A SEG's label map on its series' grid, in the bundle's codes; segments are known by their names.

    Returns:
        A highdicom volume, uint8.

    Raises:
        DataError: it has none of the labels, other segments, overlaps, or another grid.
    """
    try:
        found = Segmentation.from_dataset(seg, copy=False)
    except Exception as error:  # highdicom says in many ways what is missing
        raise DataError(f"The segmentation can't be read ({error}): write it anew.") from error
    numbers = {found.get_segment_description(n).SegmentLabel: n for n in found.segment_numbers}
    if len(numbers) < len(found.segment_numbers):
        raise DataError(f"The segmentation has two segments of one name, of {sorted(numbers)}: join or rename them.")
    if unknown := sorted(set(numbers) - set(labels)):
        raise DataError(f"The segmentation has the segments {unknown}, of {list(labels)} that are known.")
    try:
        volume = found.get_volume(combine_segments=True, dtype=np.uint8, allow_missing_positions=True)
        volume = volume.match_geometry(_geometry(series), tol=_TOLERANCE)
    except (RuntimeError, ValueError) as error:
        raise DataError(f"The segmentation doesn't lie on the grid of its series ({error}).") from error
    codes_of = np.zeros(max(numbers.values()) + 1, dtype=np.uint8)
    for name, number in numbers.items():
        codes_of[number] = labels[name]
    return volume.with_array(codes_of[volume.array])


def _geometry(series: Sequence[Dataset]) -> highdicom.VolumeGeometry:
    try:
        return highdicom.get_volume_from_series(series, dtype=np.float32).get_geometry()
    except (RuntimeError, ValueError, AttributeError) as error:
        raise DataError(f"The series' slices make no volume ({error}): reformat it, or segment another.") from error
