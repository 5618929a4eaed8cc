"""The shipped bundle's structures, end to end: a T2-only study on Orthanc, OHIF's button, SEG and report back."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import requests
from requests_toolbelt import MultipartDecoder
from selenium import webdriver
from selenium.webdriver.common.by import By

import custom
from custom.datasets import freesurfer
from custom.serving.dicom_sr import read_volumes
from custom.serving.seg_reader import read_seg
from tests.label.conftest import TISSUE, Orthanc, Server
from tests.label.dicom_series import dicom_series, enhanced, send
from tests.label.test_ohif import check_shown, run, text_of, until
from tests.label.test_pacs import canonical, instances

STRUCTURES, AREAS = f"{TISSUE}_structures", f"{TISSUE}_areas"
CODES = {name: code for code, (name, _) in freesurfer.names_and_colours().items()}
SNOMED = {  # PS3.16, CID 7140 and 244
    "Left-Hippocampus": ("5366008", "7771000"),
    "Right-Hippocampus": ("5366008", "24028007"),
    "Left-Thalamus": ("119406000", "7771000"),
    "Right-Lateral-Ventricle": ("66720007", "24028007"),
    "4th-Ventricle": ("35918002", None),
    "Brain-Stem": ("119238007", None),
}


@pytest.fixture(scope="module")
def t2(mni152: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """The template with its contrast turned around, as T2 shows it: fluid bright, white matter dark."""
    voxels = np.asarray(mni152.dataobj)
    return nibabel.Nifti1Image(np.where(voxels > 0, 1100 - voxels, 0).astype(np.float32), mni152.affine)


@pytest.fixture(scope="module")
def study(orthanc: Orthanc, t2: nibabel.Nifti1Image) -> dict[str, str]:
    """A study of T2 only, and one of several series."""
    small = t2.slicer[::2, ::2, ::2]
    several = {"flair": "AX FLAIR", "t1ce": "T1 MPRAGE post Gd", "t1": "T1 MPRAGE", "map": "ADC"}
    only = send(orthanc.url, {"T2": (t2, "t2_tse_tra")}, "only-T2")
    return only | send(orthanc.url, {name: (small, text) for name, text in several.items()}, "several")


@pytest.fixture(scope="module")
def served(orthanc: Orthanc, study: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("structures")
    one = Server(folder, "--studies", orthanc.dicomweb, "--runs", folder / "runs", "--bundles", "brain_mri_tissue")
    yield one
    one.stop()


def study_of(orthanc: Orthanc, uid: str) -> str:
    return str(instances(orthanc, uid)[0].StudyInstanceUID)


def check_stored(orthanc: Orthanc, stored: dict[str, str], scan: str, expected: np.ndarray, ml: float) -> None:
    """Codes, sides and voxels of the SEG, and volumes of the report, both read from Orthanc."""
    series = instances(orthanc, scan)
    (seg,) = instances(orthanc, stored["SeriesInstanceUID"])
    (report,) = instances(orthanc, stored["ReportSeriesInstanceUID"])
    for segment in seg.SegmentSequence:
        kind = segment.SegmentedPropertyTypeCodeSequence[0]
        side = [modifier.CodeValue for modifier in kind.get("SegmentedPropertyTypeModifierCodeSequence", [])] or [None]
        if segment.SegmentLabel in SNOMED:
            assert (kind.CodeValue, side[0]) == SNOMED[segment.SegmentLabel]
            assert kind.CodingSchemeDesignator == "SCT"
    assert len([one for one in seg.SegmentSequence if one.SegmentNumber]) == len(CODES)  # a label map counts background
    np.testing.assert_array_equal(canonical(read_seg(seg, series, CODES)), expected)
    counted = {name: float((expected == code).sum()) * ml for name, code in CODES.items()}
    assert read_volumes(report) == {name: pytest.approx(volume, abs=1e-3) for name, volume in counted.items()}
    assert (report.Modality, report.StudyInstanceUID) == ("SR", series[0].StudyInstanceUID)
    assert report.ContentSequence[-1].TextValue == custom.RESEARCH_USE_ONLY
    referenced = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert {one.SeriesInstanceUID for one in referenced} == {scan, seg.SeriesInstanceUID}


def test_a_study_of_t2_only(
    browser: webdriver.Chrome, served: Server, orthanc: Orthanc, study: dict[str, str], tmp_path: Path, request: Any
) -> None:
    """A person opens it in OHIF, chooses the structures and "store", and presses Run."""
    pictures = Path(request.config.getoption("--pictures") or tmp_path)
    models = served.ask("GET", "/info/").json()["models"]
    assert list(models) == [TISSUE, STRUCTURES, AREAS]
    assert models[STRUCTURES]["labels"] == CODES
    assert models[STRUCTURES]["label_colors"]["Left-Thalamus"] == [0, 118, 14]
    assert models[STRUCTURES]["config"]["store"] is False

    address = f"{served.url}/ohif/monai-label?StudyInstanceUIDs={study_of(orthanc, study['T2'])}"
    assert run(browser, address, STRUCTURES) == [TISSUE, STRUCTURES, AREAS]
    until(browser, lambda one: "Running Segmentation - Successful" not in text_of(one))
    for button in browser.find_elements(By.TAG_NAME, "button"):
        if "Confirm and Hide" in button.text:
            button.click()
    browser.save_screenshot(pictures / "ohif-segmentation.png")

    params, result = segment_and_store(served, study["T2"], tmp_path)
    check_shown(browser, result, CODES)
    expected = canonical(result)
    assert len(np.unique(expected)) == len(CODES) + 1
    check_stored(orthanc, params["stored"], study["T2"], expected, 0.008)


def segment_and_store(
    server: Server, uid: str, folder: Path, model: str = STRUCTURES
) -> tuple[dict[str, Any], nibabel.Nifti1Image]:
    """What the server says of a result that it stored, and the label map."""
    data = {"params": json.dumps({"store": True})}
    answer = server.ask("POST", f"/infer/{model}?image={uid}", data=data)
    assert answer.status_code == 200, answer.text
    params, image = MultipartDecoder.from_response(answer).parts
    path = folder / f"{model}-{uid}.nii.gz"
    path.write_bytes(image.content)
    return json.loads(params.content), nibabel.load(path)


def test_areas_of_the_cortex(served: Server, orthanc: Orthanc, study: dict[str, str], tmp_path: Path) -> None:
    """They fill the cortex of the structures, each on its side; SEG and report name all 68."""
    params, result = segment_and_store(served, study["T2"], tmp_path, AREAS)
    areas = np.asarray(result.dataobj)
    structures = np.asarray(served.infer(STRUCTURES, study["T2"], tmp_path / "structures.nii.gz").dataobj)
    np.testing.assert_array_equal(np.isin(areas, range(1, 36)), structures == CODES["Left-Cerebral-Cortex"])
    np.testing.assert_array_equal(areas > 100, structures == CODES["Right-Cerebral-Cortex"])
    assert len(np.unique(areas)) == 69
    (seg,) = instances(orthanc, params["stored"]["SeriesInstanceUID"])
    terms = {}
    for segment in seg.SegmentSequence:
        kind = segment.SegmentedPropertyTypeCodeSequence[0]
        terms[segment.SegmentLabel] = kind.CodeValue, kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue
    assert len(terms) == 68
    assert terms["ctx-rh-insula"] == ("36169008", "24028007")
    assert terms["ctx-lh-cuneus"] == ("40146001", "7771000")
    (report,) = instances(orthanc, params["stored"]["ReportSeriesInstanceUID"])
    assert read_volumes(report)["ctx-rh-insula"] == pytest.approx((areas == 135).sum() * 0.008, abs=1e-3)


def test_the_best_series_of_a_study(served: Server, orthanc: Orthanc, study: dict[str, str]) -> None:
    uid = study_of(orthanc, study["t1"])
    answer = served.ask("POST", f"/infer/{TISSUE}?image={uid}&output=json").json()
    assert answer["inputs"] == [f"T1 MPRAGE ({study['t1']})"]
    assert answer["chosen"] == f"T1 MPRAGE ({study['t1']}) was chosen of 4 MR series: T1, 3D, slices of 4 mm."
    assert answer["chosen"] in served.log.read_text()
    assert served.log.read_text().count("Loading ") == 1  # one network for both models
    nothing = served.ask("POST", f"/infer/{TISSUE}?image=1.2.3.4.5")
    assert nothing.status_code == 404
    assert "The PACS has no MR series or study '1.2.3.4.5'" in nothing.json()["detail"]


def test_what_is_not_stored_or_trained(served: Server, study: dict[str, str]) -> None:
    answer = served.ask("POST", f"/train/{STRUCTURES}", json={})
    assert answer.status_code == 404
    assert answer.json()["detail"] == f"There is no model to train {STRUCTURES!r}. Use one of: {TISSUE}."
    data = {"params": json.dumps({"store": "yes"})}
    assert served.ask("POST", f"/infer/{TISSUE}?image={study['T2']}", data=data).status_code == 400


def test_a_multi_frame_image_of_the_pacs(
    served: Server, orthanc: Orthanc, t2: nibabel.Nifti1Image, study: dict[str, str], tmp_path: Path
) -> None:
    """The same structures at the same places as in the series of single frames."""
    image = enhanced(dicom_series(t2, "T2 3D", pydicom.uid.generate_uid(), pydicom.uid.generate_uid(), "enhanced"))
    content = io.BytesIO()
    image.save_as(content, enforce_file_format=True)
    requests.post(f"{orthanc.url}/instances", data=content.getvalue(), timeout=60).raise_for_status()
    params, result = segment_and_store(served, str(image.SeriesInstanceUID), tmp_path)
    single, _ = segment_and_store(served, study["T2"], tmp_path)
    (seg,) = instances(orthanc, single["stored"]["SeriesInstanceUID"])
    expected = canonical(read_seg(seg, instances(orthanc, study["T2"]), CODES))
    np.testing.assert_array_equal(canonical(result), expected)
    check_stored(orthanc, params["stored"], str(image.SeriesInstanceUID), expected, 0.008)


def test_results_by_c_store(orthanc: Orthanc, study: dict[str, str], tmp_path: Path) -> None:
    """A server that sends label maps to Orthanc's DICOM port."""
    words = ("--studies", orthanc.dicomweb, "--runs", tmp_path / "runs", "--bundles", "brain_mri_tissue")
    node = f"ORTHANC@127.0.0.1:{orthanc.dicom_port}"
    server = Server(tmp_path, *words, "--format", "labelmap", "--store_to", node)
    try:
        params, result = segment_and_store(server, study["T2"], tmp_path)
        stored = params["stored"]
        (seg,) = instances(orthanc, stored["SeriesInstanceUID"])
        assert seg.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.7"  # Label Map Segmentation Storage
        check_stored(orthanc, stored, study["T2"], canonical(result), 0.008)
    finally:
        server.stop()
