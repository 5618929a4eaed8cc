"""Bundles that this project did not make: from files and from a PACS, one study or many."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import requests
from nibabel.processing import resample_to_output

from custom.errors import ConfigError
from custom.metrics import dice_by_name
from custom.running import Predictor
from custom.serving.batch import segment_studies
from custom.serving.batch_settings import batch_arguments
from tests.label.conftest import Orthanc, Server, wait_for
from tests.label.dicom_series import send
from tests.label.test_pacs import canonical
from tests.own_folders import as_nnunet
from tests.zoo_bundles import MERGED, random_spleen, spleen_bundle, train_tumor, tumor_bundle

ORDER = ("t1ce", "t1", "t2", "flair")  # of the bundle's channels
DESCRIBED = {"t1ce": "AX T1 POST GAD", "t1": "AX T1 SE", "t2": "t2_tse_tra", "flair": "FLAIR sag"}
ZOO = "brats_mri_segmentation"
LABELS = {name: code for code, name in enumerate(MERGED, start=1)}


@pytest.fixture(scope="module")
def patients(tumor_files: list[Path]) -> dict[str, dict[str, Path]]:
    """{"BraTS20_Training_001": {"t1": path, ..., "seg": path}}"""
    found: dict[str, dict[str, Path]] = {}
    for path in tumor_files:
        name, _, kind = path.name.removesuffix(".nii.gz").rpartition("_")
        found.setdefault(name, {})[kind] = path
    return {name: files for name, files in found.items() if "seg" in files}


@pytest.fixture(scope="module")
def zoo(patients: dict[str, dict[str, Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tumor bundle, trained on one patient."""
    folder = tumor_bundle(tmp_path_factory.mktemp("zoo") / ZOO)
    (files, *_) = patients.values()
    return train_tumor(folder, [files[kind] for kind in ORDER], files["seg"])


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory, iseg_dir: Path) -> Path:
    """What `brainmri plan mine` and `train mine` leave: a folder with mine_bundle and runs."""
    from custom.datasets import iseg

    folder = tmp_path_factory.mktemp("planned")
    cases = [case for split in ("training", "validation", "test") for case in iseg.datalist(iseg_dir, split)]
    as_nnunet(cases[:5], folder / "mine", ("T1", "T2"), ("background", "CSF", "grey", "white"), (0, 10, 150, 250))
    words = ["--max_epochs", "1", "--val_interval", "1", "--roi_size", "[32,32,32]", "--samples_per_volume", "1"]
    for call in (["plan", "mine"], ["train", "mine", *words]):
        done = subprocess.run([sys.executable, "-m", "custom.cli", *call], cwd=folder, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        for name in ("train", "inference"):  # the bundle is the user's to edit: a smaller network
            path = folder / "mine_bundle" / "configs" / f"{name}.json"
            config = json.loads(path.read_text())
            config["network_def"] |= {"channels": [4, 8], "strides": [2]}
            path.write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def files_server(
    zoo: Path, planned: Path, patients: dict[str, dict[str, Path]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Three bundles of others on files."""
    folder = tmp_path_factory.mktemp("files")
    studies = folder / "studies"
    studies.mkdir()
    (name, files) = next(iter(patients.items()))
    for kind in ORDER:
        (studies / f"{name}_{kind}.nii.gz").write_bytes(files[kind].read_bytes())
    spleen = random_spleen(spleen_bundle(folder / "spleen_ct_segmentation"))
    bundles = f"{zoo},{spleen},{planned / 'mine_bundle'}"
    one = Server(folder, "--studies", studies, "--runs", planned / "runs", "--bundles", bundles)
    yield one
    one.stop()


def test_bundles_of_others_on_files(
    files_server: Server, zoo: Path, patients: dict[str, dict[str, Path]], tmp_path: Path
) -> None:
    name, files = next(iter(patients.items()))
    info = files_server.ask("GET", "/info/").json()
    assert {model: about["labels"] for model, about in info["models"].items()} == {
        ZOO: LABELS,
        "spleen_ct_segmentation": {"spleen": 1},
        "mine_bundle": {"CSF": 1, "grey": 2, "white": 3},
    }
    assert list(info["trainers"]) == ["mine_bundle"]
    served = np.asarray(files_server.infer(ZOO, f"{name}_t1", tmp_path / "zoo.nii.gz").dataobj)
    own = Predictor([str(zoo / "configs" / "inference.json")], device="cpu")
    np.testing.assert_array_equal(served, own.predict([files[kind] for kind in ORDER])["pred"])
    codes = np.asarray(nibabel.load(files["seg"]).dataobj)
    whole = dice_by_name((served > 0).astype(np.uint8), (codes > 0).astype(np.uint8), {0: "background", 1: "tumor"})
    assert whole["tumor"] > 0.6
    for model, most in (("mine_bundle", 3), ("spleen_ct_segmentation", 1)):
        label = files_server.infer(model, f"{name}_t1", tmp_path / f"{model}.nii.gz")
        assert np.asarray(label.dataobj).max() <= most
        assert label.shape == codes.shape
    refused = files_server.ask("POST", f"/train/{ZOO}", json={})
    assert refused.status_code == 404
    assert refused.json()["detail"] == f"There is no model to train '{ZOO}'. Use one of: mine_bundle."
    sample = files_server.ask("POST", "/activelearning/uncertainty", json={}).json()
    assert sample["id"] == f"{name}_t1"
    assert sample["uncertainty"] > 0


def upload(orthanc: Orthanc, files: dict[str, Path], patient: str) -> dict[str, str]:
    """A study of four series; FLAIR is on a grid of its own. {"t1": SeriesInstanceUID, ...}"""
    images = {}
    for kind, text in DESCRIBED.items():
        image = nibabel.load(files[kind])
        if kind == "flair":
            image = resample_to_output(nibabel.as_closest_canonical(image), (5, 5, 5), order=1)
        voxels = np.asarray(image.dataobj, dtype=np.float32)
        images[kind] = (nibabel.Nifti1Image(np.maximum(voxels, 0), image.affine), text)
    return send(orthanc.url, images, patient)


def segs_of(orthanc: Orthanc, patient: str, modality: str = "SEG") -> list[pydicom.Dataset]:
    """The SEG objects of a patient, or those of another modality, read by Orthanc's own interface."""
    query = {"Level": "Instance", "Query": {"PatientID": patient, "Modality": modality}}
    found = requests.post(f"{orthanc.url}/tools/find", json=query, timeout=30).json()
    files = (requests.get(f"{orthanc.url}/instances/{one}/file", timeout=30).content for one in found)
    return [pydicom.dcmread(io.BytesIO(content)) for content in files]


def test_four_series_of_a_pacs(
    orthanc: Orthanc, zoo: Path, patients: dict[str, dict[str, Path]], tmp_path: Path
) -> None:
    (files, *_) = patients.values()
    series = upload(orthanc, files, "zoo-1")
    server = Server(tmp_path, "--studies", orthanc.dicomweb, "--bundles", zoo, "--runs", tmp_path / "runs")
    try:
        answer = server.ask("POST", f"/infer/{ZOO}?image={series['t1']}&output=json").json()
        assert answer["inputs"] == [f"{DESCRIBED[kind]} ({series[kind]})" for kind in ORDER]
        (resampled,) = answer["resampled"]
        assert re.search("was resampled to the grid of", resampled)
        result = server.infer(ZOO, series["t1"], tmp_path / "result.nii.gz")
        with (tmp_path / "result.nii.gz").open("rb") as file:
            saved = server.ask(
                "PUT",
                f"/datastore/label?image={series['t1']}",
                files={"label": ("result.nii.gz", file)},
                data={"params": f'{{"model": "{ZOO}"}}'},
            )
        assert saved.status_code == 200, saved.text
    finally:
        server.stop()
    voxels = canonical(result)
    codes = canonical(nibabel.load(files["seg"]))
    assert dice_by_name(voxels > 0, codes > 0, {0: "background", 1: "tumor"})["tumor"] > 0.6
    (stored,) = segs_of(orthanc, "zoo-1")
    assert [(one.SegmentNumber, one.SegmentLabel) for one in stored.SegmentSequence] == [*enumerate(MERGED, start=1)]
    assert stored.ReferencedSeriesSequence[0].SeriesInstanceUID == series["t1"]
    volume = highdicom.seg.Segmentation.from_dataset(stored).get_volume(combine_segments=True, dtype=np.uint8)
    back = canonical(volume.to_nibabel())
    assert {code: int((back == code).sum()) for code in LABELS.values()} == {
        code: int((voxels == code).sum()) for code in LABELS.values()
    }


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_all_studies_of_a_pacs_go_on_after_a_kill(
    orthanc: Orthanc, zoo: Path, patients: dict[str, dict[str, Path]], tmp_path: Path
) -> None:
    for number, files in enumerate(list(patients.values())[:2], start=1):
        upload(orthanc, files, f"batch-{number}")
    image = nibabel.load(next(iter(patients.values()))["t1"])
    send(orthanc.url, {"t1": (image, "AX T1")}, "batch-3")  # lacks three contrasts
    output = tmp_path / "results"
    common = {"studies": orthanc.dicomweb, "query": "StudyDate=20260101-&PatientID=batch-*", "bundle": str(zoo)}
    words = [word for name, value in (common | {"output_dir": str(output)}).items() for word in (f"--{name}", value)]

    def run(*more: str) -> list[dict[str, Any]]:
        return segment_studies(batch_arguments().parse_args([*words, *more]))

    def states(rows: list[dict[str, Any]]) -> list[str]:
        return sorted(row["state"] for row in rows)

    killed = subprocess.Popen([sys.executable, "-m", "custom.serving.batch", *words], cwd=tmp_path)
    wait_for(lambda: list(output.glob("[0-9]*.dcm")) or killed.poll() is not None, 180, output)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (first,) = output.glob("[0-9]*.dcm")
    made = first.stat().st_mtime_ns
    assert list(output.glob(".partial-*"))  # scans that the killed process had fetched

    rows = run()
    assert states(rows) == ["done", "failed", "skipped"]
    assert first.stat().st_mtime_ns == made
    assert not list(output.glob(".partial-*"))
    (failed,) = (row for row in rows_of(output / "studies.csv") if row["state"] == "failed")
    assert "has no T1ce scan, which this model needs" in failed["why"]
    assert segs_of(orthanc, "batch-1") == segs_of(orthanc, "batch-2") == []  # nothing is stored without --store

    content, other = first.read_bytes(), pydicom.dcmread(first)
    other.ManufacturerModelName = "another bundle"
    for spoil, sentence in (
        (lambda: first.write_bytes(content[:2000]), f"{first} is no DICOM SEG that can be read"),
        (
            lambda: other.save_as(first),
            f"{first} is a result of another bundle for the study {first.stem}.",
        ),
    ):
        spoil()
        (row,) = (row for row in run("--store", "--query", f"StudyInstanceUID={first.stem}"))
        assert row["state"] == "failed"
        assert sentence in row["why"]
    first.write_bytes(content)
    assert segs_of(orthanc, "batch-1") == segs_of(orthanc, "batch-2") == []

    assert states(run("--store")) == ["done", "done", "failed"]
    for patient in ("batch-1", "batch-2"):
        (seg,) = segs_of(orthanc, patient)
        assert {one.SegmentAlgorithmType for one in seg.SegmentSequence} == {"AUTOMATIC"}
        (report,) = segs_of(orthanc, patient, "SR")
        (evidence,) = report.CurrentRequestedProcedureEvidenceSequence
        assert seg.SOPInstanceUID in str(evidence)
    began = time.monotonic()
    assert states(run("--store")) == ["failed", "skipped", "skipped"]
    assert time.monotonic() - began < 30
    assert len(segs_of(orthanc, "batch-1")) == 1
    assert {path.name for path in output.iterdir()} == {"studies.csv", *(f"{row['study']}.dcm" for row in rows)} - {
        f"{failed['study']}.dcm"
    }
    none = batch_arguments().parse_args([*words, "--query", "StudyDate=-20251231"])
    assert segment_studies(none) == []


def test_a_batch_without_a_folder_for_results(tmp_path: Path) -> None:
    """Said before weights are loaded or a PACS is asked."""
    (tmp_path / "file").touch()
    words = ["--studies", "http://127.0.0.1:1/dicom-web", "--output_dir", str(tmp_path / "file" / "results")]
    with pytest.raises(ConfigError, match=r"Cannot write to .*file/results \(Not a directory\). Use another"):
        segment_studies(batch_arguments().parse_args(words))
