"""DICOM SEG and reports of volumes: codes, colours, places, of usual and of odd series. No server runs here."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.sr._concepts_dict import concepts
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless, generate_uid

import custom
from custom.datasets import freesurfer
from custom.errors import DataError
from custom.reading.scans import read_scan
from custom.serving.dicom_seg import Algorithm, write_seg
from custom.serving.dicom_sr import read_volumes, write_report
from custom.serving.seg_reader import read_seg
from custom.serving.terms import TERMS
from tests.dicom_files import as_jpeg
from tests.label.dicom_series import enhanced, plane_series

Series = list[pydicom.Dataset]
NAMES = ["Left-Thalamus", "Right-Thalamus", "Brain-Stem", "GM", "3rd-Ventricle", "4th-Ventricle", "WM", "CSF"]
LABELS = {name: 3 * number for number, name in enumerate(NAMES, start=1)}  # codes with gaps, as FreeSurfer's
ALGORITHM = Algorithm("a bundle", "0.1", "AUTOMATIC")
AXIAL, SAGITTAL, CORONAL = ([1, 0, 0], [0, 1, 0]), ([0, 1, 0], [0, 0, -1]), ([1, 0, 0], [0, 0, -1])


def octant(places: np.ndarray) -> np.ndarray:
    """1 to 8 in a ball of 70 mm, by whether a place (N, 3) lies left, posterior and up; 0 outside."""
    sides = (places > 0) @ [1, 2, 4]
    return np.where(np.linalg.norm(places, axis=1) < 70, 1 + sides, 0)


def turned(degrees: float, axis: int, plane: tuple[list[int], list[int]]) -> tuple[Any, Any]:
    """The directions of a plane, turned around an axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    one, two = [other for other in range(3) if other != axis]
    matrix = np.eye(3)
    matrix[[one, one, two, two], [one, two, one, two]] = c, -s, s, c
    return matrix @ plane[0], matrix @ plane[1]


def without(*names: str) -> Callable[[Series], Series]:
    def change(series: Series) -> Series:
        for image in series:
            for name in names:
                delattr(image, name)
        return series

    return change


def implicit(series: Series) -> Series:
    for image in series:
        image.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    return series


def jittered(series: Series) -> Series:
    """Orientations that differ in their last digits, as some scanners write them."""
    for number, image in enumerate(series):
        image.ImageOrientationPatient = [1, 1e-6 * number, 0, 0, 1, 0]
    return series


def as_enhanced(series: Series) -> Series:
    return [enhanced(series)]


def same(series: Series) -> Series:
    return series


def uneven(series: Series) -> Series:
    """The upper half lies 0.3 mm higher."""
    for image in series:
        x, y, z = image.ImagePositionPatient
        image.ImagePositionPatient = [x, y, z + 0.3 * (z > 0)]
    return series


def compressed(syntax: str) -> Callable[[Series], Series]:
    """As a scanner or an archive compresses it: RLE and JPEG-LS by pydicom, the others by GDCM."""
    compressors = {JPEGLosslessSV1: "JPEG", JPEG2000Lossless: "JPEG2000"}

    def change(series: Series) -> Series:
        for image in series:
            if compressor := compressors.get(syntax):
                with tempfile.TemporaryDirectory() as folder:
                    frame = as_jpeg(image.pixel_array, compressor, Path(folder))
                image.PixelData = encapsulate([frame])
                image["PixelData"].VR, image.file_meta.TransferSyntaxUID = "OB", syntax
            else:
                image.compress(syntax, generate_instance_uid=False)
        return series

    return change


PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
STUDY = ("StudyDate", "StudyTime", "StudyID", "ReferringPhysicianName", "AccessionNumber")
ODD: dict[str, tuple[tuple[Any, Any], float, Callable[[Series], Series]]] = {
    # name: (directions of a row and of a column, shift of each slice in mm, what else is changed)
    "axial": (AXIAL, 0, same),
    "axial, feet first": (([-1, 0, 0], [0, 1, 0]), 0, same),
    "axial, prone": (([-1, 0, 0], [0, -1, 0]), 0, same),
    "sagittal": (SAGITTAL, 0, same),
    "sagittal, rows to the front": (([0, -1, 0], [0, 0, -1]), 0, same),
    "coronal": (CORONAL, 0, same),
    "coronal, columns up": (([1, 0, 0], [0, 0, 1]), 0, same),
    "axial, turned by 12 degrees": (turned(12, 0, AXIAL), 0, same),
    "sagittal, turned twice": (turned(8, 2, turned(-10, 1, SAGITTAL)), 0, same),
    "tilted gantry": (AXIAL, 0.9, same),
    "tilted gantry, the other way": (turned(-15, 0, AXIAL), -1.3, same),
    "multi-frame": (AXIAL, 0, as_enhanced),
    "multi-frame, sagittal": (SAGITTAL, 0, as_enhanced),
    "multi-frame, tilted gantry": (AXIAL, 0.9, as_enhanced),
    "no patient": (AXIAL, 0, without(*PATIENT)),
    "no study": (CORONAL, 0, without(*STUDY)),
    "no frame of reference": (SAGITTAL, 0, without("FrameOfReferenceUID", "PositionReferenceIndicator")),
    "no thickness": (AXIAL, 0, without("SliceThickness", "SpacingBetweenSlices")),
    "no numbers, no maker": (AXIAL, 0, without("InstanceNumber", "SeriesNumber", "Manufacturer", "ImageType")),
    "implicit VR": (AXIAL, 0, implicit),
    "unsteady orientation": (AXIAL, 0, jittered),
    "uneven": (AXIAL, 0, uneven),
    "uneven, tilted gantry": (AXIAL, 0.9, uneven),
    "RLE": (AXIAL, 0, compressed(RLELossless)),
    "JPEG-LS": (SAGITTAL, 0, compressed(JPEGLSLossless)),
    "JPEG Lossless": (CORONAL, 0, compressed(JPEGLosslessSV1)),  # which pydicom cannot read here
    "JPEG 2000, tilted gantry": (AXIAL, 0.9, compressed(JPEG2000Lossless)),
    "JPEG-LS, multi-frame": (AXIAL, 0, lambda series: compressed(JPEGLSLossless)(as_enhanced(series))),
}
AS_LABELMAP = ("axial", "sagittal", "tilted gantry", "multi-frame")
MISSING = {
    "no patient": PATIENT,
    "no study": STUDY,
    "no frame of reference": ("PositionReferenceIndicator", "FrameOfReferenceUID"),
    "no thickness": ("SliceThickness",),
}


def saved(series: Series, folder: Path) -> Path:
    for number, image in enumerate(series):
        image.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


def labelled(name: str, folder: Path) -> tuple[Series, np.ndarray, np.ndarray]:
    """A series of ODD, and a label map of its octants on the grid that the project reads, with its affine."""
    (row, column), shift, change = ODD[name]
    series = change(plane_series(lambda places: 100 * octant(places), row, column, shift))
    voxels, affine, _ = read_scan(saved(series, folder))
    return series, (3 * np.rint(voxels / 100)).astype(np.uint8), affine


def reread(instance: pydicom.Dataset) -> pydicom.Dataset:
    """As the PACS has it."""
    content = io.BytesIO()
    instance.save_as(content, enforce_file_format=True)
    return pydicom.dcmread(io.BytesIO(content.getvalue()))


def frames_of(seg: pydicom.Dataset) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(segment number of each pixel, 0 outside; its place (N, 3), mm, LPS), by DICOM's own words for each frame."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    found = []
    for group, pixels in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        directions = (shared if "PlaneOrientationSequence" in shared else group).PlaneOrientationSequence[0]
        row, column = np.reshape(np.array(directions.ImageOrientationPatient, float), (2, 3))
        down, across = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        j, i = np.indices(pixels.shape)
        places = position + i[..., None] * row * across + j[..., None] * column * down
        number = 1
        if seg.SegmentationType == "BINARY":
            number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        found.append((pixels.ravel() * number, places.reshape(-1, 3), position))
    return found


@pytest.mark.parametrize(
    ("name", "form"),
    [
        *((name, "seg") for name in ODD if "uneven" not in name),  # whose slices moved after they were drawn
        *((name, "labelmap") for name in AS_LABELMAP),
    ],
)
def test_nothing_is_flipped(name: str, form: str, tmp_path: Path) -> None:
    """Each voxel of the SEG lies in the octant of the head that its segment stands for, and is read back there."""
    series, labels, affine = labelled(name, tmp_path)
    seg = write_seg(labels, affine, series, LABELS, ALGORITHM, form)
    report, seg = reread(write_report(seg, series)), reread(seg)

    back = read_seg(seg, series, LABELS)
    np.testing.assert_array_equal(np.asarray(back.dataobj), labels)
    np.testing.assert_allclose(back.affine, affine, atol=0.01)
    counts = np.zeros(9, int)
    for numbers, places, _ in frames_of(seg):
        inside = numbers > 0
        np.testing.assert_array_equal(numbers[inside], octant(places)[inside])
        counts += np.bincount(numbers, minlength=9)
    assert counts[1:].tolist() == np.bincount(labels.ravel() // 3, minlength=9)[1:].tolist()
    assert min(counts[1:]) > 500
    assert read_volumes(report) == {
        name: pytest.approx(counts[number] * 0.09, abs=1e-3) for number, name in enumerate(NAMES, start=1)
    }  # voxels of 4 x 4.5 x 5 mm
    lacking = f"The source images lack {', '.join(MISSING[name])}." if name in MISSING else ""
    assert seg.get("ImageComments", "") == lacking
    assert report.ContentSequence[-1].TextValue == f"{custom.RESEARCH_USE_ONLY} {lacking}".strip()
    for instance in (seg, report):
        assert instance.StudyInstanceUID == series[0].StudyInstanceUID
        for keyword in (*PATIENT, *STUDY):
            assert keyword in instance  # type 2: it may be empty, but not missing


@pytest.mark.parametrize("name", ["axial", "tilted gantry", "uneven", "uneven, tilted gantry"])
def test_labels_are_read_back(name: str, tmp_path: Path) -> None:
    """From frames in any order, of any series, without the empty ones."""
    series, labels, affine = labelled(name, tmp_path)
    seg = reread(write_seg(labels, affine, series, LABELS, ALGORITHM))
    order = np.random.default_rng(0).permutation(len(seg.PerFrameFunctionalGroupsSequence))
    frames = seg.pixel_array[order]
    seg.PerFrameFunctionalGroupsSequence = [seg.PerFrameFunctionalGroupsSequence[int(k)] for k in order]
    seg.PixelData = as_bits(frames)
    np.testing.assert_array_equal(np.asarray(read_seg(seg, series, LABELS).dataobj), labels)


def as_bits(pixels: np.ndarray) -> bytes:
    """The pixels of a binary segmentation."""
    packed = np.packbits(pixels.ravel(), bitorder="little").tobytes()
    return packed + b"\0" * (len(packed) % 2)


def test_names_of_any_script(tmp_path: Path) -> None:
    """Labels of a bundle that others made, and a patient whose series has another character set."""
    series, labels, affine = labelled("axial", tmp_path)
    for image in series:
        image.SpecificCharacterSet, image.PatientName = "ISO_IR 100", "Müller^Jörg"
    names = dict(zip(["脑", "Ödem", "мозг", "d", "e", "f", "g", "h"], LABELS.values(), strict=True))
    seg = reread(write_seg(labels, affine, [reread(image) for image in series], names, ALGORITHM))
    report = reread(write_report(seg, [reread(image) for image in series]))
    assert [str(segment.SegmentLabel) for segment in seg.SegmentSequence] == list(names)
    assert str(seg.PatientName) == str(report.PatientName) == "Müller^Jörg"
    assert list(read_volumes(report)) == list(names)
    np.testing.assert_array_equal(np.asarray(read_seg(seg, series, names).dataobj), labels)


@pytest.mark.parametrize(("plane", "name"), [(SAGITTAL, "axial"), (([-1, 0, 0], [0, 1, 0]), "multi-frame")])
def test_labels_that_were_drawn_on_other_planes(plane: tuple[Any, Any], name: str, tmp_path: Path) -> None:
    """A viewer may cut the same voxels into slices of another direction."""
    series, labels, _ = labelled(name, tmp_path)
    size, spacing = {0: ((44, 40, 36), (4.0, 4.5, 5.0)), 1: ((40, 36, 44), (4.5, 5.0, 4.0))}[int(plane is SAGITTAL)]
    drawn = plane_series(lambda places: 100 * octant(places), *plane, shape=size, spacing=spacing)
    for image in drawn:
        for keyword in ("FrameOfReferenceUID", "StudyInstanceUID", "SeriesInstanceUID"):
            setattr(image, keyword, getattr(series[0], keyword))
    (tmp_path / "drawn").mkdir()
    voxels, place, _ = read_scan(saved(drawn, tmp_path / "drawn"))
    seg = reread(write_seg((3 * np.rint(voxels / 100)).astype(np.uint8), place, drawn, LABELS, ALGORITHM))
    np.testing.assert_array_equal(np.asarray(read_seg(seg, series, LABELS).dataobj), labels)


def overlapping(seg: pydicom.Dataset) -> None:
    pixels = np.zeros(seg.pixel_array.shape, np.uint8)
    pixels[:, 10, 10] = 1  # in each frame of each segment
    seg.PixelData = as_bits(pixels)


def without_frames(seg: pydicom.Dataset) -> None:
    del seg.PerFrameFunctionalGroupsSequence


def frames_elsewhere(seg: pydicom.Dataset) -> None:
    for group in seg.PerFrameFunctionalGroupsSequence:
        group.PlanePositionSequence[0].ImagePositionPatient[2] += 2


def fewer_pixels(seg: pydicom.Dataset) -> None:
    seg.PixelData = seg.PixelData[:1000]


def a_bomb(seg: pydicom.Dataset) -> None:
    """A small file whose frames would fill the memory."""
    seg.PerFrameFunctionalGroupsSequence = list(seg.PerFrameFunctionalGroupsSequence) * 300
    seg.NumberOfFrames = len(seg.PerFrameFunctionalGroupsSequence)


def undescribed(seg: pydicom.Dataset) -> None:
    for group in seg.PerFrameFunctionalGroupsSequence:
        group.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 77


@pytest.mark.parametrize(
    ("name", "spoil", "sentence"),
    [
        ("axial", overlapping, "overlap"),
        ("axial", without_frames, "cannot be read"),
        ("axial", fewer_pixels, "is not on the grid of its series"),
        ("axial", undescribed, "does not describe its segment 77"),
        ("axial", a_bomb, "has more frames or pixels than its series"),
        ("tilted gantry", overlapping, "overlap"),
        ("tilted gantry", frames_elsewhere, "uneven or tilted, and the segmentation has other slices"),
    ],
)
def test_a_spoilt_segmentation_is_refused(
    name: str, spoil: Callable[[pydicom.Dataset], None], sentence: str, tmp_path: Path
) -> None:
    """By DataError, whatever highdicom raises: training goes on without it."""
    series, labels, affine = labelled(name, tmp_path)
    seg = reread(write_seg(labels, affine, series, LABELS, ALGORITHM))
    spoil(seg)
    with pytest.raises(DataError, match=sentence):
        read_seg(seg, series, LABELS)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("two echoes", r"is a series of volumes \(44x40x36x2\).*They differ in echo time \(3, 90\)"),
        ("two times", r"is a series of volumes \(44x40x36x2\)"),
        ("localizer", "holds slices of different orientations"),
        ("no positions", "has no position, orientation or pixel spacing"),
        ("colour", "has 3 values a voxel"),
    ],
)
def test_a_series_that_is_no_volume(change: str, sentence: str, tmp_path: Path) -> None:
    """One sentence, and no result."""
    first, second = (plane_series(lambda places: 100 * octant(places), *AXIAL) for _ in range(2))
    if change == "localizer":
        second = plane_series(octant, *SAGITTAL)
    for image in second:
        image.SeriesInstanceUID = first[0].SeriesInstanceUID
        image.SOPInstanceUID = generate_uid()
    if change == "two echoes":
        for echo, half in ((3, first), (90, second)):
            for image in half:
                image.EchoTime = echo
    if change == "no positions":
        first, second = without("ImagePositionPatient")(first), []
    if change == "colour":
        for image in first:
            image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
            image.PixelData *= 3
        second = []
    with pytest.raises(DataError, match=sentence):
        read_scan(saved([*first, *second], tmp_path))


def test_codes_and_colours_of_structures() -> None:
    """Each structure has a SNOMED CT code that DICOM knows; sides are modifiers; colours are FreeSurfer's."""
    series = plane_series(octant, *AXIAL)
    structures = {name: code for code, (name, _) in freesurfer.names_and_colours().items()}
    voxels = np.zeros((44, 40, 36), np.uint8)
    voxels.ravel()[: len(structures)] = sorted(structures.values())
    affine = np.diag([-1, -1, 1, 1]) @ geometry(series)
    seg = reread(write_seg(voxels, affine, series, structures, ALGORITHM))
    assert len(seg.SegmentSequence) == 30
    known = {code for names in concepts["SCT"].values() for code in names}
    for number, segment in enumerate(seg.SegmentSequence, start=1):
        name, kind = str(segment.SegmentLabel), segment.SegmentedPropertyTypeCodeSequence[0]
        assert segment.SegmentNumber == number
        assert segment.SegmentDescription.startswith(f"{name}, code {structures[name]} of FreeSurfer.")
        if name.endswith("VentralDC"):
            assert (kind.CodingSchemeDesignator, kind.CodeValue) == ("DCM", "110700")
        else:
            assert kind.CodingSchemeDesignator == "SCT"
            assert kind.CodeValue in known
        side = {"Left": "7771000", "Right": "24028007"}.get(name.split("-")[0])
        modifiers = kind.get("SegmentedPropertyTypeModifierCodeSequence", [])
        assert [modifier.CodeValue for modifier in modifiers] == ([side] if side else [])
        lab = highdicom.color.CIELabColor.from_dicom_value(segment.RecommendedDisplayCIELabValue)
        colour = freesurfer.names_and_colours()[structures[name]][1]
        np.testing.assert_allclose(lab.to_rgb(), colour, atol=1)
        assert segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "a bundle"
    left = next(one for one in seg.SegmentSequence if one.SegmentLabel == "Left-Hippocampus")
    assert left.SegmentedPropertyTypeCodeSequence[0].CodeValue == "5366008"  # PS3.16, CID 7140
    counts = {name: int((voxels == code).sum()) for name, code in structures.items()}
    back = np.asarray(read_seg(seg, series, structures).dataobj)
    assert {name: int((back == code).sum()) for name, code in structures.items()} == counts
    volumes = read_volumes(reread(write_report(seg, series)))
    assert volumes == {name: pytest.approx(0.09 * count, abs=1e-3) for name, count in counts.items()}


def geometry(series: Series) -> np.ndarray:
    """The affine of an axial series, LPS, from its first slice."""
    lowest = min(series, key=lambda image: image.ImagePositionPatient[2])
    affine = np.diag([4, 4.5, 5, 1.0])
    affine[:3, 3] = lowest.ImagePositionPatient
    return affine


@pytest.mark.parametrize("name", ["CSF", "GM", "WM", "NCR", "ED", "ET"])
def test_codes_of_tissues_exist(name: str) -> None:
    assert any(TERMS[name].type.value in names for names in concepts["SCT"].values())


def test_a_label_map_of_another_grid() -> None:
    series = plane_series(octant, *AXIAL)
    affine = np.diag([-1, -1, 1, 1]) @ geometry(series)
    for voxels, other in ((np.zeros((44, 40, 35), np.uint8), affine), (np.zeros((44, 40, 36), np.uint8), np.eye(4))):
        with pytest.raises(DataError, match="is not on the grid of its series"):
            write_seg(voxels, other, series, LABELS, ALGORITHM)


def test_a_report_of_another_kind() -> None:
    with pytest.raises(DataError, match="The report cannot be read"):
        read_volumes(plane_series(octant, *AXIAL)[0])
