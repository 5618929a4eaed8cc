"""A NIfTI volume as an MR series."""

from __future__ import annotations

import io

import nibabel
import numpy as np
import pydicom
import requests
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid


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
        one = pydicom.Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = MRImageStorage
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = generate_uid()
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, frame
        one.PatientID, one.PatientName = patient, f"{patient}^"
        one.PatientBirthDate = one.PatientSex = one.AccessionNumber = one.ReferringPhysicianName = ""
        one.StudyID, one.StudyDate, one.StudyTime = "1", "20260101", "120000"
        one.StudyDescription = "Brain"
        one.Modality, one.SeriesDescription, one.SeriesNumber = "MR", description, number
        one.ScanningSequence, one.SequenceVariant, one.ScanOptions, one.MRAcquisitionType = "SE", "NONE", "", "3D"
        one.EchoTime = one.EchoTrainLength = ""
        one.Manufacturer = "simulated"
        one.ImageType = ["ORIGINAL", "PRIMARY"]
        one.InstanceNumber = int(index) + 1
        place = origin.copy()
        place[between] += index * spacing[between]
        one.ImagePositionPatient = [float(value) for value in place]
        one.ImageOrientationPatient = orientation
        one.PixelSpacing = [float(value) for value in within]
        one.SliceThickness = one.SpacingBetweenSlices = float(spacing[between])
        one.PositionReferenceIndicator = ""
        one.Rows, one.Columns = frames.shape[:2]
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated = one.BitsStored = 16
        one.HighBit, one.PixelRepresentation = 15, 0
        one.WindowCenter, one.WindowWidth = float(voxels.max()) / 2, float(max(1, voxels.max()))
        one.PixelData = np.ascontiguousarray(frames[:, :, index]).tobytes()
        made.append(one)
    return made


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
