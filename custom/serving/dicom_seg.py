"""Label maps as DICOM SEG, written with highdicom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import highdicom
import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription
from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.sr.codedict import codes

import custom
from custom.serving.source_images import source_images
from custom.serving.terms import OTHER, TERMS

MANUFACTURER = "Brain MRI Bundles"
FORMS = {"seg": "BINARY", "labelmap": "LABELMAP"}
LENGTH = 64  # letters of a DICOM long string (LO)
UTF_8 = "ISO_IR 192"  # labels may have names of any script


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
    voxels: np.ndarray,
    affine: np.ndarray,
    series: Sequence[Dataset],
    labels: Mapping[str, int],
    algorithm: Algorithm,
    form: str = "seg",
) -> Segmentation:
    """The segmentation of one series. Every label is a segment, whether it is present or not.

    Segments have the numbers 1, 2, ... in the order of the labels' codes. Each has a tracking identifier, by which a
    report can refer to it (custom.serving.dicom_sr).

    Args:
        voxels: (x, y, z), the codes of the labels, on the grid that custom.reading.dicom gives the series.
        affine: (4, 4), voxels to mm, RAS+, as in NIfTI.
        series: the images that were segmented: single frames, or one multi-frame image.
        labels: {"CSF": 1, ...}.
        algorithm: what segmented it.
        form: "seg", or "labelmap" for a Label Map Segmentation, which fewer viewers read.

    Raises:
        DataError: the label map is not on the grid of the series.
    """
    source = source_images(series)
    names = sorted(labels, key=lambda name: labels[name])
    numbers = np.zeros(256, dtype=np.uint8)
    numbers[[labels[name] for name in names]] = range(1, len(names) + 1)
    frames = source.frames(voxels.astype(np.uint8), affine)
    seg = Segmentation(
        source_images=source.images,
        pixel_array=numbers[frames],
        segmentation_type=FORMS[form],
        segment_descriptions=[describe(number, name, algorithm) for number, name in enumerate(names, start=1)],
        series_instance_uid=highdicom.UID(),
        series_number=300,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=algorithm.name,
        software_versions=custom.__version__,
        device_serial_number="none",
        content_label="BRAIN_SEG",
        content_description=custom.RESEARCH_USE_ONLY,
    )
    seg.SpecificCharacterSet = UTF_8
    what = ", ".join(names) if len(names) < 10 else f"{len(names)} structures"
    seg.SeriesDescription = f"Research use only: {what} by {algorithm.name}"[:LENGTH]
    if source.note:
        seg.ImageComments = source.note
    return seg


def describe(number: int, name: str, algorithm: Algorithm) -> SegmentDescription:
    """A coded description of a label: what it is, its side, its colour, and what drew it.

    Args:
        number: of the segment.
        name: of the label, a key of custom.serving.terms.TERMS if it has a code.
        algorithm: what drew it.
    """
    identification = None
    if algorithm.type != "MANUAL":
        identification = highdicom.AlgorithmIdentificationSequence(
            name=algorithm.name, family=codes.DCM.ArtificialIntelligence, version=algorithm.version[:LENGTH]
        )
    term = TERMS.get(name, OTHER)
    segment = SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=term.category,
        segmented_property_type=term.type,
        algorithm_type=algorithm.type,
        algorithm_identification=identification,
        tracking_uid=highdicom.UID(),
        tracking_id=name,
        anatomic_regions=[codes.SCT.Brain],
        display_color=None if term.colour is None else CIELabColor.from_rgb(*term.colour),
    )
    if term.side is not None:
        kind = segment.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [CodedConcept.from_code(term.side)]
    segment.SegmentDescription = f"{term.description}. {custom.RESEARCH_USE_ONLY}"
    return segment
