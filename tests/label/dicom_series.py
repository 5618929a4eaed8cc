"""A NIfTI volume as an MR series."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import nibabel
import numpy as np
import pydicom
import requests
from pydicom.dataset import FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid


def dicom_series(
    image: nibabel.Nifti1Image,
    description: str,
    study: str,
    frame: str,
    patient: str = "sub-01",
    number: int = 1,
    sagittal: bool = False,
) -> list[pydicom.Dataset]:
    """Slices, 16 bits, of an image whose axes are along the patient's; they come in a shuffled order.

    Axial ones go up, with rows to the left; sagittal ones go to the right, with rows to the back and columns down.
    """
    lps = nibabel.as_closest_canonical(image)
    voxels, affine = np.asarray(lps.dataobj)[::-1, ::-1], lps.affine.copy()  # x to the left, y to the back
    spacing, origin = np.diag(affine)[:3], affine[:3, 3].copy()
    origin[:2] = -(origin[:2] + spacing[:2] * (np.array(voxels.shape[:2]) - 1))
    voxels = np.round(voxels).astype(np.uint16)
    if sagittal:  # (row, column, slice) as (z down, y, x)
        frames, between, within = voxels.transpose(2, 1, 0)[::-1], 0, (spacing[2], spacing[1])
        origin[2] += spacing[2] * (voxels.shape[2] - 1)
        orientation = [0, 1, 0, 0, 0, -1]
    else:
        frames, between, within = voxels.transpose(1, 0, 2), 2, (spacing[1], spacing[0])
        orientation = [1, 0, 0, 0, 1, 0]
    series, made = generate_uid(), []
    for index in np.random.default_rng(0).permutation(frames.shape[2]):
        place = origin.copy()
        place[between] += index * spacing[between]
        one = one_slice(frames[:, :, index], place, orientation, within, float(spacing[between]))
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, frame
        one.PatientID, one.PatientName = patient, f"{patient}^"
        one.SeriesDescription, one.SeriesNumber, one.InstanceNumber = description, number, int(index) + 1
        one.WindowCenter, one.WindowWidth = float(voxels.max()) / 2, float(max(1, voxels.max()))
        made.append(one)
    return made


def one_slice(
    pixels: np.ndarray, position: np.ndarray, orientation: list[float], within: tuple[float, float], between: float
) -> pydicom.Dataset:
    """An MR image with every tag but those of its patient, study and series.

    Args:
        pixels: (rows, columns), uint16.
        position: of the first pixel, mm, LPS.
        orientation: the directions of a row and of a column, LPS.
        within: distance of rows and of columns, mm.
        between: distance of slices, mm.
    """
    one = pydicom.Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = MRImageStorage
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = generate_uid()
    one.PatientBirthDate = one.PatientSex = one.AccessionNumber = one.ReferringPhysicianName = ""
    one.StudyID, one.StudyDate, one.StudyTime = "1", "20260101", "120000"
    one.StudyDescription = "Brain"
    one.Modality = "MR"
    one.ScanningSequence, one.SequenceVariant, one.ScanOptions, one.MRAcquisitionType = "SE", "NONE", "", "3D"
    one.EchoTime = one.EchoTrainLength = ""
    one.Manufacturer = "simulated"
    one.ImageType = ["ORIGINAL", "PRIMARY"]
    one.ImagePositionPatient = [float(f"{value:.6f}") for value in position]
    one.ImageOrientationPatient = [float(f"{value:.8f}") for value in orientation]
    one.PixelSpacing = [float(value) for value in within]
    one.SliceThickness = one.SpacingBetweenSlices = between
    one.PositionReferenceIndicator = ""
    one.Rows, one.Columns = pixels.shape
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated = one.BitsStored = 16
    one.HighBit, one.PixelRepresentation = 15, 0
    one.PixelData = np.ascontiguousarray(pixels).tobytes()
    return one


def plane_series(
    value_at: Callable[[np.ndarray], np.ndarray],
    row: Sequence[float],
    column: Sequence[float],
    shift: float = 0.0,
    shape: tuple[int, int, int] = (44, 40, 36),
    spacing: tuple[float, float, float] = (4.0, 4.5, 5.0),
) -> list[pydicom.Dataset]:
    """A series of slices of any direction around the origin, in a shuffled order.

    Args:
        value_at: from places (N, 3), mm, LPS, to pixels (N,).
        row, column: the directions of a row and of a column, LPS.
        shift: how far each slice lies along `column` after the one before, mm, as in a tilted gantry.
        shape: (columns, rows, slices).
        spacing: between columns, rows and slices, mm.
    """
    across, down = np.asarray(row, float), np.asarray(column, float)
    step = np.cross(across, down) * spacing[2] + down * shift
    i, j = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]))  # (rows, columns)
    corner = -0.5 * (across * spacing[0] * (shape[0] - 1) + down * spacing[1] * (shape[1] - 1) + step * (shape[2] - 1))
    series, study, frame, made = generate_uid(), generate_uid(), generate_uid(), []
    for index in np.random.default_rng(1).permutation(shape[2]):
        position = corner + index * step
        places = position + i[..., None] * across * spacing[0] + j[..., None] * down * spacing[1]
        pixels = value_at(places.reshape(-1, 3)).reshape(shape[1], shape[0]).astype(np.uint16)
        one = one_slice(pixels, position, [*across, *down], spacing[1::-1], spacing[2])
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, frame
        one.PatientID, one.PatientName, one.SeriesDescription = "odd", "odd^", "T1"
        one.SeriesNumber, one.InstanceNumber = 1, int(index) + 1
        made.append(one)
    return made


def enhanced(series: Sequence[pydicom.Dataset]) -> pydicom.Dataset:
    """The same series as one multi-frame image, with its frames in the order of the slices that are given."""
    first = series[0]
    one = pydicom.Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.update({element.tag: element for element in first if element.tag.group < 0x7FE0})
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        del one[name]
    del one.SpacingBetweenSlices
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = EnhancedMRImageStorage
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = generate_uid()
    one.ImageType = ["ORIGINAL", "PRIMARY", "M", "NONE"]
    one.NumberOfFrames, one.InstanceNumber = len(series), 1
    orientation, measures, shared = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    orientation.ImageOrientationPatient = first.ImageOrientationPatient
    measures.PixelSpacing, measures.SliceThickness = first.PixelSpacing, first.SliceThickness
    measures.SpacingBetweenSlices = first.SpacingBetweenSlices
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    one.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for number, image in enumerate(series, start=1):
        group, place, content = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
        place.ImagePositionPatient = image.ImagePositionPatient
        content.StackID, content.InStackPositionNumber, content.DimensionIndexValues = "1", number, [1, number]
        group.PlanePositionSequence, group.FrameContentSequence = [place], [content]
        groups.append(group)
    one.PerFrameFunctionalGroupsSequence = groups
    one.PixelData = b"".join(image.PixelData for image in series)
    return one


def send(
    orthanc: str, images: dict[str, tuple[nibabel.Nifti1Image, str]], patient: str, sagittal: bool = False
) -> dict[str, str]:
    """Uploads {name: (image, series description)} as one study to Orthanc; {name: SeriesInstanceUID}."""
    study, frame, found = generate_uid(), generate_uid(), {}
    for number, (name, (image, description)) in enumerate(images.items(), start=1):
        for one in dicom_series(image, description, study, frame, patient, number, sagittal):
            content = io.BytesIO()
            one.save_as(content, enforce_file_format=True)
            requests.post(f"{orthanc}/instances", data=content.getvalue(), timeout=60).raise_for_status()
            found[name] = str(one.SeriesInstanceUID)
    return found
