"""Volumes of the segments of a DICOM SEG as a structured report (TID 1500), written and read with highdicom.

Source: DICOM PS3.16, TID 1500 (measurement report) and TID 1411 (volumetric ROI measurements).
"""

from __future__ import annotations

from collections.abc import Sequence

import highdicom
import numpy as np
from highdicom.seg import Segmentation
from highdicom.sr import (
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    Measurement,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
    ReferencedSegment,
    RelationshipTypeValues,
    SourceSeriesForSegmentation,
    TextContentItem,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

import custom
from custom.errors import DataError
from custom.serving.dicom_seg import LENGTH, UTF_8
from custom.serving.source_images import source_images
from custom.serving.terms import OTHER, TERMS

_MILLILITRE = Code("mL", "UCUM", "milliliter")


def write_report(seg: Segmentation, series: Sequence[Dataset]) -> Comprehensive3DSR:
    """A report of the volume of each segment, in ml. Each measurement has its segment's tracking identifier.

    Args:
        seg: of custom.serving.dicom_seg.write_seg.
        series: the images that were segmented.
    """
    source = source_images(series)
    volumes = volumes_ml(seg, source.voxel_ml())
    of_source = SourceSeriesForSegmentation.from_source_image(source.images[0])
    groups = [_group(seg, segment, volumes[str(segment.TrackingID)], of_source) for segment in _segments(seg)]
    device = DeviceObserverIdentifyingAttributes(
        uid=highdicom.UID(), name=seg.ManufacturerModelName, manufacturer_name=seg.Manufacturer
    )
    observer = ObserverContext(codes.DCM.Device, device)
    (content,) = MeasurementReport(ObservationContext(observer), codes.LN.BrainMRI, groups)
    note = f"{custom.RESEARCH_USE_ONLY} {seg.get('ImageComments', '')}".strip()
    content.ContentSequence.append(
        TextContentItem(codes.DCM.Comment, note, relationship_type=RelationshipTypeValues.CONTAINS)
    )
    report = Comprehensive3DSR(
        evidence=[*source.images, seg],
        content=content,
        series_instance_uid=highdicom.UID(),
        series_number=301,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer=seg.Manufacturer,
        manufacturer_model_name=seg.ManufacturerModelName,
        software_versions=custom.__version__,
        device_serial_number="none",
        series_description=f"Research use only: volumes by {seg.ManufacturerModelName}"[:LENGTH],
        record_evidence=True,
    )
    report.SpecificCharacterSet = UTF_8
    return report


def _group(
    seg: Segmentation, segment: Dataset, ml: float, source: SourceSeriesForSegmentation
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    """The volume of one segment."""
    term = TERMS.get(str(segment.SegmentLabel), OTHER)
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=segment.TrackingUID, identifier=segment.TrackingID),
        referenced_segment=ReferencedSegment(
            seg.SOPClassUID, seg.SOPInstanceUID, int(segment.SegmentNumber), source_series=source
        ),
        finding_category=term.category,
        finding_type=term.type,
        finding_sites=[FindingSite(term.type if term.side else codes.SCT.Brain, laterality=term.side)],
        measurements=[Measurement(codes.SCT.Volume, ml, _MILLILITRE)],
    )


def volumes_ml(seg: Dataset, voxel_ml: float) -> dict[str, float]:
    """{tracking identifier: volume in ml, to 0.001} of a SEG's segments, counted from its frames.

    Args:
        seg: a binary segmentation, or a label map segmentation.
        voxel_ml: the volume of a voxel.
    """
    frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    voxels = np.zeros(256, dtype=np.int64)
    if seg.SegmentationType == "LABELMAP":
        voxels += np.bincount(frames.ravel(), minlength=256)
    else:
        for frame, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
            voxels[group.SegmentIdentificationSequence[0].ReferencedSegmentNumber] += np.count_nonzero(frame)
    return {
        str(segment.TrackingID): round(float(voxels[segment.SegmentNumber]) * voxel_ml, 3) for segment in _segments(seg)
    }


def _segments(seg: Dataset) -> list[Dataset]:
    """The segments but the background, which a label map describes too."""
    return [segment for segment in seg.SegmentSequence if segment.SegmentNumber > 0]


def read_volumes(report: Dataset) -> dict[str, float]:
    """{tracking identifier: volume in ml} of a report. Raises DataError if it is no report of volumes."""
    try:
        groups = Comprehensive3DSR.from_dataset(report).content.get_volumetric_roi_measurement_groups()
        return {
            str(group.tracking_identifier): float(measurement.value)
            for group in groups
            for measurement in group.get_measurements(name=codes.SCT.Volume)
        }
    except Exception as error:  # highdicom raises many kinds of errors
        raise DataError(f"The report cannot be read ({error}). Export it again.") from error
