"""Series on Orthanc: segmented through MONAI Label, and DICOM SEG back again."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import requests
from dicomweb_client import DICOMwebClient
from monailabel.client import MONAILabelClient

import custom
from custom.errors import DataError
from custom.running.bundles import find_bundles
from custom.serving.dicomweb import DicomWeb
from custom.serving.pacs import Pacs
from custom.serving.seg_reader import read_seg
from tests.label.conftest import INFANT, TISSUE, Orthanc, Server, free_port, wait_for
from tests.label.dicom_series import send

LABELS = {"CSF": 1, "GM": 2, "WM": 3}
SNOMED = {"CSF": ("91720002", "65216001"), "GM": ("85756007", "389081007"), "WM": ("85756007", "389080008")}


def canonical(image: Any) -> np.ndarray:
    return np.asarray(nibabel.as_closest_canonical(image).dataobj)


def instances(orthanc: Orthanc, uid: str) -> list[pydicom.Dataset]:
    """A series, read from Orthanc by its own interface, not by the server's code."""
    query = {"Level": "Series", "Query": {"SeriesInstanceUID": uid}, "Expand": True}
    (found,) = requests.post(f"{orthanc.url}/tools/find", json=query, timeout=30).json()
    files = (requests.get(f"{orthanc.url}/instances/{one}/file", timeout=30).content for one in found["Instances"])
    return [pydicom.dcmread(io.BytesIO(content)) for content in files]


def check_seg(seg: pydicom.Dataset, of: list[pydicom.Dataset], expected: np.ndarray, algorithm_type: str) -> None:
    """Names, codes and words of a SEG, and its voxels read by highdicom alone; `expected` in canonical axes."""
    assert seg.Modality == "SEG"
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == of[0].SeriesInstanceUID
    assert seg.StudyInstanceUID == of[0].StudyInstanceUID
    assert seg.PatientID == of[0].PatientID
    assert seg.SeriesDescription == f"Research use only: CSF, GM, WM by {INFANT}"
    assert seg.ContentDescription == custom.RESEARCH_USE_ONLY
    assert [(one.SegmentNumber, one.SegmentLabel) for one in seg.SegmentSequence] == [(1, "CSF"), (2, "GM"), (3, "WM")]
    for one in seg.SegmentSequence:
        category, kind = one.SegmentedPropertyCategoryCodeSequence[0], one.SegmentedPropertyTypeCodeSequence[0]
        assert (category.CodeValue, kind.CodeValue) == SNOMED[one.SegmentLabel]
        assert category.CodingSchemeDesignator == kind.CodingSchemeDesignator == "SCT"
        assert custom.RESEARCH_USE_ONLY in one.SegmentDescription
        assert one.SegmentAlgorithmType == algorithm_type
        made_by = one.SegmentationAlgorithmIdentificationSequence[0]
        assert made_by.AlgorithmName == INFANT
        assert made_by.AlgorithmVersion.startswith("0.2.0, weights trained ")
    opened = highdicom.seg.Segmentation.from_dataset(seg)
    volume = opened.get_volume(combine_segments=True, dtype=np.uint8)
    whole = highdicom.get_volume_from_series(of).get_geometry()
    np.testing.assert_array_equal(canonical(volume.match_geometry(whole, tol=0.01).to_nibabel()), expected)


def test_a_result_equals_the_one_on_files(
    pacs: Server, series: dict[str, str], pairs: dict[str, Any], runs: Path, tmp_path: Path
) -> None:
    """The pair is found in its study, whichever series the viewer shows; DICOM keeps whole numbers."""
    for name in ("T1w", "T2w"):
        image = pairs[f"sub-01_{name}"]
        rounded = np.round(np.asarray(image.dataobj)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(rounded, image.affine), tmp_path / f"{name}.nii.gz")
    settings = {
        "config_file": find_bundles()[INFANT] / "configs" / "inference.json",
        "data": [{"image": [str(tmp_path / "T1w.nii.gz"), str(tmp_path / "T2w.nii.gz")]}],
        "ckpt_path": runs / INFANT / "model.pt",
        "output_dir": tmp_path / "own",
    }
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    subprocess.run([sys.executable, "-m", "monai.bundle", "run", "inferring", *words], cwd=tmp_path, check=True)
    own = nibabel.load(tmp_path / "own/segmentations/T1w_seg.nii.gz")
    for shown in ("T1w", "T2w"):
        served = pacs.infer(INFANT, series[f"sub-01_{shown}"], tmp_path / "served.nii.gz")
        np.testing.assert_array_equal(canonical(served), canonical(own))
        answer = pacs.ask("POST", f"/infer/{INFANT}?image={series[f'sub-01_{shown}']}&output=json").json()
        described = {"T1w": "T1 MPRAGE sag", "T2w": "t2_tse_tra"}
        assert answer["inputs"] == [f"{text} ({series[f'sub-01_{name}']})" for name, text in described.items()]
        assert answer["warnings"] == ["its voxels are up to 4 mm long: boundaries between them are guessed"]
    np.testing.assert_allclose(nibabel.as_closest_canonical(served).affine, nibabel.as_closest_canonical(own).affine)


def test_seg_goes_back_and_is_read_equal(
    pacs: Server, orthanc: Orthanc, series: dict[str, str], tmp_path: Path
) -> None:
    uid = series["sub-01_T1w"]
    scan = instances(orthanc, uid)
    client = MONAILabelClient(pacs.url, tmpdir=str(tmp_path))
    result = pacs.infer(INFANT, uid, tmp_path / "result.nii.gz")

    automatic = pacs.ask("POST", f"/infer/{INFANT}?image={uid}&output=dicom_seg")
    assert automatic.headers["content-type"] == "application/dicom"
    check_seg(pydicom.dcmread(io.BytesIO(automatic.content)), scan, canonical(result), "AUTOMATIC")

    saved = client.save_label(uid, str(tmp_path / "result.nii.gz"))
    (stored,) = instances(orthanc, saved["params"]["SeriesInstanceUID"])
    check_seg(stored, scan, canonical(result), "SEMIAUTOMATIC")

    # a tissue that is absent leaves the others' names as they are: 2 and 3 stay GM and WM
    without = np.where(np.asarray(result.dataobj) == 1, 0, np.asarray(result.dataobj)).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(without, result.affine), tmp_path / "without.nii.gz")
    saved = client.save_label(uid, str(tmp_path / "without.nii.gz"))
    (stored,) = instances(orthanc, saved["params"]["SeriesInstanceUID"])
    check_seg(stored, scan, canonical(nibabel.Nifti1Image(without, result.affine)), "SEMIAUTOMATIC")
    back = read_seg(stored, scan, LABELS)
    np.testing.assert_array_equal(canonical(back), canonical(nibabel.Nifti1Image(without, result.affine)))
    assert set(np.unique(canonical(back))) == {0, 2, 3}

    empty = np.zeros_like(without)
    nibabel.save(nibabel.Nifti1Image(empty, result.affine), tmp_path / "empty.nii.gz")
    saved = client.save_label(uid, str(tmp_path / "empty.nii.gz"))
    (stored,) = instances(orthanc, saved["params"]["SeriesInstanceUID"])
    check_seg(stored, scan, canonical(nibabel.Nifti1Image(empty, result.affine)), "SEMIAUTOMATIC")


@pytest.mark.parametrize(
    ("name", "status", "sentence"),
    [
        ("alone", 404, "has no T2 scan, which this model needs. Describe its series like 'AX T2'."),
        ("one", 400, "has 2 T2 scans: T2, T2 b. Keep one, or rename the others."),
    ],
)
def test_a_study_that_does_not_fit(pacs: Server, series: dict[str, str], name: str, status: int, sentence: str) -> None:
    answer = pacs.ask("POST", f"/infer/{INFANT}?image={series[name]}")
    assert answer.status_code == status
    assert sentence in answer.json()["detail"]


def test_one_study_is_given_once(pacs: Server, series: dict[str, str]) -> None:
    """Of a pair the T1, which stands for the study, as on disk."""
    given = {pacs.ask("POST", "/activelearning/random", json={}).json()["id"] for _ in range(12)}
    assert given <= {
        series[name] for name in ("sub-01_T1w", "sub-02_T1w", "sub-03_T1w", "alone", "one", "sagittal", "MNI152")
    }
    assert len(given) > 1


def test_training_reads_segs_of_the_pacs(
    orthanc: Orthanc, series: dict[str, str], truths: dict[str, np.ndarray], pairs: dict, runs: Path, tmp_path: Path
) -> None:
    own = shutil.copytree(runs, tmp_path / "runs", ignore=shutil.ignore_patterns("label"))
    words = ("--studies", orthanc.dicomweb, "--runs", own, "--bundles", "iseg", "--allow_simulated")
    server = Server(tmp_path, *words)
    try:
        client = MONAILabelClient(server.url, tmpdir=str(tmp_path))
        for name in ("sub-02_T1w", "sub-03_T1w"):
            shown = server.infer(INFANT, series[name], tmp_path / "shown.nii.gz")
            truth = nibabel.Nifti1Image(truths[name], pairs[name].affine)
            moved = nibabel.orientations.ornt_transform(
                nibabel.io_orientation(truth.affine), nibabel.io_orientation(shown.affine)
            )
            nibabel.save(truth.as_reoriented(moved), tmp_path / "truth.nii.gz")
            client.save_label(series[name], str(tmp_path / "truth.nii.gz"))
        client.train_start(INFANT, {"max_epochs": 1, "roi_size": [32, 32, 32]})
        status = wait_for(
            lambda: (one := client.train_status())["status"] in ("DONE", "ERROR") and one, 240, server.log
        )
        assert status["status"] == "DONE", status["details"]
        (record,) = (json.loads(path.read_text()) for path in own.glob(f"{INFANT}/corrected/*/model.json"))
        labelled = {*record["trained_on"], *record["validated_on"]}
        assert {series["sub-02_T1w"], series["sub-03_T1w"]} <= labelled
        read = next((own / "label" / "dicomweb" / "segs").glob(f"{series['sub-02_T1w']}.nii.gz"))
        expected = canonical(nibabel.Nifti1Image(truths["sub-02_T1w"], pairs["sub-02_T1w"].affine))
        np.testing.assert_array_equal(canonical(nibabel.load(read)), expected)
    finally:
        server.stop()


def test_weights_of_a_sample_are_refused(orthanc: Orthanc, runs: Path, tmp_path: Path) -> None:
    words = ["--studies", orthanc.dicomweb, "--runs", runs, "--bundles", "iseg", "--port", free_port()]
    command = [sys.executable, "-m", "custom.serving", *map(str, words)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=120, check=False)
    assert result.returncode == 1
    assert (
        f"{runs / INFANT / 'model.pt'} were trained on a simulated sample, and the studies are a PACS" in result.stderr
    )
    assert "--allow_simulated" in result.stderr.splitlines()[-1]


def test_the_shipped_weights_are_served_to_a_pacs(
    orthanc: Orthanc, series: dict[str, str], runs: Path, tmp_path: Path
) -> None:
    server = Server(
        tmp_path, "--studies", orthanc.dicomweb, "--runs", tmp_path / "runs", "--bundles", "brain_mri_tissue"
    )
    try:
        result = server.infer(TISSUE, series["sub-01_T1w"], tmp_path / "result.nii.gz")
        assert set(np.unique(canonical(result))) <= {0, 1, 2, 3}
        assert canonical(result).any()
    finally:
        server.stop()


def test_a_pacs_that_stops(runs: Path, tmp_path: Path) -> None:
    words = ("--studies", f"http://127.0.0.1:{free_port()}/dicom-web", "--runs", runs, "--bundles", "iseg")
    server = Server(tmp_path, *words, "--allow_simulated")
    try:
        for method, path in (("GET", "/info/"), ("POST", f"/infer/{INFANT}?image=1.2.3"), ("GET", "/datastore/")):
            answer = server.ask(method, path)
            assert answer.status_code == 502
            assert "does not answer" in answer.json()["detail"]
    finally:
        server.stop()


class Failing(BaseHTTPRequestHandler):
    """A PACS that lists one MR and one SEG series, and fails at all else: status 500, a redirect, an empty answer or a
    page, by `failure`. With "hang" it answers nothing until `released`."""

    failure = "500"
    released = threading.Event()
    running: ClassVar[list[int]] = []  # how many requests hung, at each request

    def do_GET(self) -> None:
        if self.failure == "hang":
            self.running.append(self.running[-1] + 1 if self.running else 1)
            self.released.wait(300)
            return
        modality = "SEG" if "Modality=SEG" in self.path else "MR"
        if "/series?" in self.path:
            listed = {
                "00080060": {"vr": "CS", "Value": [modality]},
                "0020000D": {"vr": "UI", "Value": ["1.2.1"]},
                "0020000E": {"vr": "UI", "Value": [f"1.2.1.{len(modality)}"]},
            }
            self.answer(200, json.dumps([listed]).encode())
        elif self.failure == "redirect":
            self.answer(302, b"", ("Location", "http://127.0.0.1:9/"))
        else:
            self.answer(*{"500": (500, b"x"), "empty": (200, b"[]"), "page": (200, b"<html>")}[self.failure])

    def do_POST(self) -> None:
        self.do_GET()

    def answer(self, status: int, content: bytes, *more: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (("Content-Type", "application/dicom+json"), ("Content-Length", str(len(content))), *more):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture(scope="module")
def behind_failing(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("failing")
    with ThreadingHTTPServer(("127.0.0.1", 0), Failing) as failing:
        threading.Thread(target=failing.serve_forever, daemon=True).start()
        words = ("--studies", f"http://127.0.0.1:{failing.server_port}/dicom-web", "--runs", runs, "--bundles")
        server = Server(folder, *words, "brain_mri_tissue", "--allow_simulated")
        yield server
        server.stop()
        failing.shutdown()


@pytest.mark.parametrize("failure", ["500", "redirect", "empty", "page"])
def test_a_pacs_that_fails(behind_failing: Server, failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Failing, "failure", failure)
    note = {"data": {"info": '{"seen": true}'}}
    for method, path, more in (
        ("POST", f"/infer/{TISSUE}?image=1.2.1.2", {}),
        ("GET", "/datastore/", {}),
        ("PUT", "/datastore/image/info?image=1.2.1.2", note),
        ("GET", "/proxy/dicom/studies/1.2.1/series/1.2.1.2", {}),
    ):
        answer = behind_failing.ask(method, path, **more)
        if path == "/datastore/" or (path.startswith("/proxy") and failure in ("empty", "page")):
            assert answer.status_code == 200  # a broken SEG hides nothing; the viewer itself reads a page
            continue
        assert answer.status_code == 502, (path, answer.text)
        assert re.search(r"The PACS .* could not .*\. See its log\.", answer.json()["detail"])
    assert "Traceback" not in behind_failing.log.read_text()


def test_a_pacs_that_hangs_does_not_stop_the_rest(behind_failing: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """45 requests were more than the server has threads. It calls the PACS 8 times at once, and answers the rest."""
    monkeypatch.setattr(Failing, "failure", "hang")
    with ThreadPoolExecutor(45) as pool:
        paths = ["/proxy/dicom/studies", "/datastore/image?image=1.2.9", "/info/"] * 15
        hanging = [pool.submit(behind_failing.ask, "GET", path) for path in paths]
        wait_for(lambda: len(Failing.running) >= 8, 60, behind_failing.log)
        for path in ("/auth/", "/logs/", "/ohif/", "/"):
            assert requests.get(behind_failing.url + path, timeout=20).status_code == 200, path
        assert len(Failing.running) == 8
        Failing.released.set()
        assert {answer.result().status_code for answer in hanging} <= {200, 404, 502}


def test_a_search_ends_after_30_seconds() -> None:
    """Also where the client of DICOMweb makes it, and not for a scan that takes longer."""
    web = DicomWeb("http://127.0.0.1:9/dicom-web")
    seconds = [client._session.get_adapter("http://x").seconds for client in (web._searching, web._client)]
    assert seconds == [30, 300]


def test_uncertainty_is_measured_by_another_process(
    orthanc: Orthanc, series: dict[str, str], runs: Path, tmp_path: Path
) -> None:
    """It fetches the series; the server then knows them, and what was measured."""
    server = Server(
        tmp_path, "--studies", orthanc.dicomweb, "--runs", tmp_path / "runs", "--bundles", "brain_mri_tissue"
    )
    try:
        assert server.ask("POST", "/scoring/uncertainty").status_code == 200
        status = server.finished("/scoring/", 900)
        assert status["status"] == "DONE", status["details"]
        measured = server.ask("POST", "/activelearning/uncertainty", json={}).json()
        assert measured["measured"] == measured["unlabelled"] > 1
        assert set(series.values()) >= {measured["id"]}
        saved = server.ask(
            "PUT",
            f"/datastore/label?image={measured['id']}&tag=original",
            files={"label": ("label.bin", bytes(np.prod(nibabel.load(measured["path"]).shape)))},
        )
        assert saved.status_code == 200, saved.text
    finally:
        server.stop()


def test_a_series_that_was_still_arriving(orthanc: Orthanc, pairs: dict, runs: Path, tmp_path: Path) -> None:
    own = send(orthanc.url, {"late": (pairs["sub-01_T1w"], "AX T1")}, "late")
    store = Pacs(orthanc.dicomweb, tmp_path, False, True)
    slices = sorted(store.dicom_folder(own["late"]).iterdir())
    first = nibabel.load(store.get_image_uri(own["late"])).shape
    for path in slices[-5:]:
        path.unlink()  # as if the PACS had had fewer by then
    assert nibabel.load(store.get_image_uri(own["late"])).shape == first
    assert len(list(store.dicom_folder(own["late"]).iterdir())) == len(slices)
    assert store.person(own["late"]) == "late"
    assert own["late"] in store.json()["objects"]


def test_a_label_drawn_by_hand(pacs: Server, orthanc: Orthanc, series: dict[str, str], tmp_path: Path) -> None:
    """No network had a part in it, and the object names none."""
    uid = series["other"]
    image = tmp_path / "image.nii.gz"
    image.write_bytes(pacs.ask("GET", f"/datastore/image?image={uid}").content)
    drawn = np.zeros(nibabel.load(image).shape, np.uint8)
    drawn[5:10, 5:10, 5:10] = 2
    nibabel.save(nibabel.Nifti1Image(drawn, nibabel.load(image).affine), tmp_path / "label.nii.gz")
    saved = MONAILabelClient(pacs.url, tmpdir=str(tmp_path)).save_label(uid, str(tmp_path / "label.nii.gz"))
    (stored,) = instances(orthanc, saved["params"]["SeriesInstanceUID"])
    assert {one.SegmentAlgorithmType for one in stored.SegmentSequence} == {"MANUAL"}
    assert "SegmentationAlgorithmIdentificationSequence" not in stored.SegmentSequence[0]
    assert stored.SeriesDescription.startswith("Research use only")


def test_a_note_on_a_series_that_nobody_opened(pacs: Server, series: dict[str, str]) -> None:
    answer = pacs.ask("PUT", f"/datastore/image/info?image={series['other']}", data={"info": '{"seen": true}'})
    assert answer.status_code == 200
    assert pacs.ask("GET", f"/datastore/image/info?image={series['other']}").json()["seen"] is True


def test_two_segments_of_one_name(pacs: Server, series: dict[str, str]) -> None:
    """It would be unclear to which of the two a voxel belongs."""
    answer = pacs.ask("POST", f"/infer/{TISSUE}?image={series['sub-01_T1w']}&output=dicom_seg")
    seg = pydicom.dcmread(io.BytesIO(answer.content))
    seg.SegmentSequence[1].SegmentLabel = seg.SegmentSequence[0].SegmentLabel
    with pytest.raises(DataError, match="Two segments of the segmentation have the same name"):
        read_seg(seg, [], {"CSF": 1, "GM": 2, "WM": 3})


def test_bundles_for_patients_are_served_without_the_others(
    orthanc: Orthanc, series: dict[str, str], runs: Path, tmp_path: Path
) -> None:
    """Nobody named the ones of a sample: they don't keep the server from starting."""
    server = Server(tmp_path, "--studies", orthanc.dicomweb, "--runs", runs)
    try:
        assert list(server.ask("GET", "/info/").json()["models"]) == [TISSUE, f"{TISSUE}_structures", f"{TISSUE}_areas"]
        assert f"{INFANT} is not served: " in server.log.read_text()
    finally:
        server.stop()


def test_a_viewer_stores_by_the_server(pacs: Server, orthanc: Orthanc, series: dict[str, str], tmp_path: Path) -> None:
    """DICOMweb through the server's own address, as OHIF uses it; other paths are not passed on."""
    uid = series["alone"]
    seg = pacs.ask("POST", f"/infer/{TISSUE}?image={uid}&output=dicom_seg")
    viewer = DICOMwebClient(
        f"{pacs.url}/proxy/dicom", qido_url_prefix="qido", wado_url_prefix="wado", stow_url_prefix="stow"
    )
    viewer.store_instances([pydicom.dcmread(io.BytesIO(seg.content))])
    study = str(pydicom.dcmread(io.BytesIO(seg.content)).StudyInstanceUID)
    found = viewer.search_for_series(study_instance_uid=study, search_filters={"Modality": "SEG"})
    assert len(found) == 1  # the query reaches the PACS, which would otherwise list all series
    (stored,) = viewer.retrieve_series(study, found[0]["0020000E"]["Value"][0])
    assert stored.pixel_array.any()
    time.sleep(11)  # the server's lists are kept for 10 s
    query = {"Level": "Instance", "Query": {"Modality": "SEG"}}
    ids = requests.post(f"{orthanc.url}/tools/find", json=query, timeout=30).json()
    segs = [
        pydicom.dcmread(io.BytesIO(requests.get(f"{orthanc.url}/instances/{one}/file", timeout=30).content))
        for one in ids
    ]
    by_hand = [one for one in segs if one.SegmentSequence[0].SegmentAlgorithmType != "AUTOMATIC"]
    labelled = {one.ReferencedSeriesSequence[0].SeriesInstanceUID for one in by_hand}
    assert uid not in labelled  # segmentations that no person has reviewed are no labels
    assert pacs.ask("GET", "/info/").json()["datastore"]["completed"] == len(labelled)
    for path in ("../instances", "system", "instances/..%2f..%2fsystem", "studies/1.2/../../../system", "tools/find"):
        for method in ("GET", "POST"):
            answer = pacs.ask(method, f"/proxy/dicom/{path.replace('../', '..%2f')}")
            assert answer.status_code in (404, 405), path
    assert pacs.ask("POST", "/proxy/dicom/studies/1.2/series").status_code == 405
    assert pacs.ask("DELETE", f"/proxy/dicom/studies/{study}").status_code == 405
