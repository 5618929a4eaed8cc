"""What of the MONAI Label server runs without MONAI Label; the server itself is tested in tests/label."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.bundle import ConfigParser

from custom.checkpoints.find import check_for_patients, choose, find_weights
from custom.checkpoints.record import read_record, write_record
from custom.cli import main
from custom.datasets import brats_slices
from custom.errors import CheckpointError, ConfigError
from custom.serving import bundles as serving_bundles
from custom.serving.batch_settings import filters_of
from custom.serving.bundles import load_bundles
from custom.serving.contrasts import contrast_of, study_and_contrast
from custom.serving.environment import PINS, pip_calls
from custom.serving.outputs import OUTPUTS, label_map
from custom.serving.start import command_line, start
from custom.serving.uncertainty import uncertainty_of
from tests.conftest import Brainmri

ROOT = Path(__file__).parents[1]


def test_codes_of_further_outputs_fit_a_byte() -> None:
    """Areas of the right side, 2001 to 2035 in FreeSurfer, follow 100; structures and a bundle's own labels stay."""
    areas = np.array([[[0, 1001, 1035, 2001, 2035, 1000]]], np.int16)
    assert label_map("areas", {"areas": areas}).tolist() == [[[0, 1, 35, 101, 135, 0]]]
    for output in ("pred", "structures"):
        assert label_map(output, {output: np.array([0, 3, 58], np.int16)}).tolist() == [0, 3, 58]
    for output in OUTPUTS.values():
        assert len(set(output.labels.values())) == len(output.labels)
        assert 1 <= min(output.labels.values()) <= max(output.labels.values()) <= 255


@pytest.mark.parametrize(
    ("text", "contrast"),
    [
        ("T1w", "T1"),
        ("Sag MPRAGE", "T1"),
        ("t1_mprage_sag_p2_iso", "T1"),
        ("AX T1 POST GAD", "T1ce"),
        ("T1 MPRAGE +C", "T1ce"),
        ("AX T1 C+", "T1ce"),
        ("T1gd", "T1ce"),
        ("t1c", "T1ce"),
        ("post contrast T1", "T1ce"),
        ("SAG MPRAGE POST GAD", "T1ce"),
        ("MPRAGE +C", "T1ce"),
        ("BRAVO POST", "T1ce"),
        ("SPGR GAD", "T1ce"),
        ("t1_vibe_km", "T1ce"),
        ("AX T1 with contrast", "T1ce"),
        ("AX T1 PRE CONTRAST", "T1"),
        ("AX T1 W/O CONTRAST", "T1"),
        ("T1 non contrast", "T1"),
        ("PRE GAD T1", "T1"),
        ("T1 nativ", "T1"),
        ("post op T1", "T1"),
        ("sT1W_3D_TFE", "T1"),
        ("AX T1 FLAIR", None),
        ("t2_tse_tra", "T2"),
        ("AX T2 FLAIR", "FLAIR"),
        ("t2_flair_dark-fluid", "FLAIR"),
        ("T2* GRE", "T2*"),
        ("Ax SWI", "T2*"),
        ("ep2d_dwi", None),
        ("3-plane localizer", None),
        ("any MRI contrast", None),
        ("", None),
    ],
)
def test_contrasts(text: str, contrast: str | None) -> None:
    assert contrast_of(text) == contrast


@pytest.mark.parametrize(
    ("file", "study", "contrast"),
    [
        ("sub-01_T1w.nii.gz", "sub-01", "T1"),
        ("sub-01_ses-2_acq-mprage_T2w.nii.gz", "sub-01_ses-2_acq-mprage", "T2"),  # the suffix says it
        ("sub-t1_T2w.nii", "sub-t1", "T2"),
        ("BraTS20_Training_001_flair.nii.gz", "BraTS20_Training_001", "FLAIR"),
        ("BraTS-GLI-00001-000-t1c.nii.gz", "BraTS-GLI-00001-000", "T1ce"),
        ("BraTS-GLI-00001-000-t2f.nii.gz", "BraTS-GLI-00001-000", "FLAIR"),
        ("subject-1-T1.nii.gz", "subject-1", "T1"),
        ("brain.nii.gz", "brain", None),
        ("T1.nii.gz", "T1", "T1"),
    ],
)
def test_files_of_a_study(file: str, study: str, contrast: str | None) -> None:
    assert study_and_contrast(file) == (study, contrast)


@given(st.from_regex(r"[a-z]{1,5}-[0-9]{1,4}", fullmatch=True).filter(lambda name: contrast_of(name) is None))
def test_four_files_of_one_patient_are_one_study(patient: str) -> None:
    names = [study_and_contrast(f"{patient}_{one}.nii.gz") for one in ("flair", "t1", "t1ce", "t2")]
    assert {study for study, _ in names} == {patient}
    assert [contrast for _, contrast in names] == ["FLAIR", "T1", "T1ce", "T2"]


def save(path: Path, value: float, date: str, **record: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"weight": torch.tensor([value])}, path)
    if record or date:
        write_record(path, path.parent, date=date, **record)


@pytest.fixture
def bundle_and_runs(tmp_path: Path) -> tuple[Path, Path]:
    """A bundle with shipped weights; its user's, and three trainings from corrected labels of which one got worse."""
    shipped = tmp_path / "bundle" / "models" / "model.pt"
    save(shipped, 0, "")
    runs = tmp_path / "runs"
    save(runs / "model.pt", 1, "2026-01-01T10:00:00+00:00", simulated=True)
    save(runs / "corrected/20260102-100000/model.pt", 2, "2026-01-02T10:00:00+00:00", good=True, simulated=False)
    save(runs / "corrected/20260103-100000/model.pt", 3, "2026-01-03T10:00:00+00:00", good=False, simulated=False)
    save(runs / "corrected/20260104-100000/model.pt", 4, "2026-01-04T10:00:00+00:00")  # stopped: no word on how good
    return tmp_path / "bundle", runs


def test_the_newest_good_weights_are_served(bundle_and_runs: tuple[Path, Path]) -> None:
    bundle, runs = bundle_and_runs
    found = find_weights(bundle, runs)
    assert [one.name for one in found] == ["20260103-100000", "20260102-100000", "trained", "shipped"]
    assert choose(found, "newest", "iseg").name == "20260102-100000"
    for name in ("shipped", "trained", "20260103-100000"):
        assert choose(found, name, "iseg").name == name
    with pytest.raises(ConfigError, match=r"iseg has no weights '../x'\. Use newest or one of \['20260103-100000', "):
        choose(found, "../x", "iseg")
    with pytest.raises(CheckpointError, match=r"iseg has no weights\. Train it first"):
        choose([], "newest", "iseg")
    save(runs / "model.pt", 5, "2026-02-01T10:00:00+00:00", simulated=True)  # the user trains anew
    assert choose(find_weights(bundle, runs), "newest", "iseg").name == "trained"
    shutil.rmtree(runs)
    assert choose(find_weights(bundle, runs), "newest", "iseg").name == "shipped"


def test_weights_for_patients(bundle_and_runs: tuple[Path, Path]) -> None:
    named = {one.name: one for one in find_weights(*bundle_and_runs)}
    for name in ("shipped", "20260102-100000"):
        check_for_patients(named[name], "iseg")
    with pytest.raises(
        ConfigError, match=r"were trained on a simulated sample, and the studies are a PACS\. Train on real"
    ):
        check_for_patients(named["trained"], "iseg")
    path = named["trained"].path
    torch.save({"weight": torch.tensor([9.0])}, path)  # other weights under the same record
    assert read_record(path) == {}
    (unknown,) = (one for one in find_weights(*bundle_and_runs) if one.name == "trained")
    with pytest.raises(ConfigError, match="have no record of what they were trained on"):
        check_for_patients(unknown, "iseg")


def test_a_training_says_what_it_saw(trained: Path, iseg_dir: Path) -> None:
    record = json.loads((trained / "model.json").read_text())
    assert (record["simulated"], record["dataset_dir"]) == (True, str(iseg_dir))
    assert read_record(trained / "model.pt") == record


def test_prepared_slices_of_a_sample_stay_a_sample(brats_slices_dir: Path, tmp_path: Path) -> None:
    brats_slices.prepare(brats_slices_dir, tmp_path / "prepared")
    torch.save({}, tmp_path / "model.pt")
    assert write_record(tmp_path / "model.pt", tmp_path / "prepared")["simulated"] is True
    assert write_record(tmp_path / "model.pt", tmp_path)["simulated"] is False


def test_bundles_to_serve(tmp_path: Path) -> None:
    served = load_bundles([], tmp_path)
    # the only one with shipped weights, and its structures
    assert list(served) == [f"brain_mri_tissue_segmentation{more}" for more in ("", "_structures", "_areas")]
    structures = served["brain_mri_tissue_segmentation_structures"]
    assert (structures.labels["Left-Thalamus"], structures.labels["Right-Thalamus"]) == (10, 49)
    assert structures.find_weights() == served["brain_mri_tissue_segmentation"].find_weights()
    assert not structures.is_trained
    assert served["brain_mri_tissue_segmentation"].channels == (None,)
    assert served["brain_mri_tissue_segmentation"].labels == {"CSF": 1, "GM": 2, "WM": 3}
    others = load_bundles(["iseg:vnet", "brats_mri_slice"], tmp_path, check=lambda bundle: None)
    assert others["iseg_mri_tissue_segmentation"].channels == ("T1", "T2")
    assert others["iseg_mri_tissue_segmentation"].files("inference.json")[1].endswith("networks/vnet.json")
    assert others["brats_mri_slice_segmentation"].channels == ("FLAIR", "T1", "T1ce", "T2")
    assert others["brats_mri_slice_segmentation"].labels == {"NCR": 1, "ED": 2, "ET": 3}
    with pytest.raises(ConfigError, match=r"'brats' matches several bundles: brats_.*\. Use a unique part of one of"):
        load_bundles(["brats"], tmp_path)


def test_a_classifier_is_not_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = tmp_path / "brain_tumor_classification"
    (classifier / "configs").mkdir(parents=True)
    (classifier / "configs/metadata.json").write_text(json.dumps({"kind": "classification"}))
    monkeypatch.setattr(serving_bundles, "find_bundles", lambda: {classifier.name: classifier})
    with pytest.raises(ConfigError, match="'tumor' matches no segmentation bundle"):
        load_bundles(["tumor"], tmp_path)


@pytest.mark.parametrize(
    ("logits", "masks", "value"),
    [
        # two voxels: one certainly label 1, one between background and label 1: 1 bit for 1 labelled voxel
        ([[-50.0, 0.0], [50.0, 0.0]], False, 1.0),
        # nothing is labelled: 2 voxels of 1 bit, for the one voxel that counts at least
        ([[0.0, 0.0], [0.0, 0.0]], False, 2.0),
        # two masks and two voxels, each certain: no entropy
        ([[50.0, -50.0], [-50.0, -50.0]], True, 0.0),
        # one voxel is in mask 1 surely, and in mask 2 with even chances
        ([[50.0, -50.0], [0.0, -50.0]], True, 1.0),
    ],
)
def test_uncertainty(logits: list[list[float]], masks: bool, value: float) -> None:
    given = torch.tensor(logits)[None, :, :, None, None]
    assert uncertainty_of(given, masks) == pytest.approx(value, abs=1e-5)
    further = torch.cat([given, torch.full_like(given, 7.0)], dim=1)  # channels that are no classes
    assert uncertainty_of(further, masks, num_classes=len(logits)) == pytest.approx(value, abs=1e-5)


def test_weights_are_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second image of the same bundle uses the same network; weights that a training has replaced are loaded."""
    served = load_bundles(["iseg"], tmp_path, check=lambda bundle: None)["iseg_mri_tissue_segmentation"]
    images = []
    for number in range(4):
        voxels = np.random.default_rng(number).uniform(1, 100, (24, 24, 24)).astype(np.float32)
        images.append(str(tmp_path / f"{number}.nii.gz"))
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2, 2, 2, 1])), images[-1])
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        parser = ConfigParser()
        parser.read_config(served.files("inference.json"))
        served.output_dir.mkdir(exist_ok=True)
        torch.save(parser.get_parsed_content("network_def").state_dict(), served.output_dir / "model.pt")
        loads = []
        load = torch.load
        with monkeypatch.context() as patch:
            patch.setattr(
                torch, "load", lambda *args, load=load, loads=loads, **words: loads.append(args) or load(*args, **words)
            )
            for pair in (images[:2], images[2:], images[:2]):
                found = served.segment(pair, tmp_path, served.choose_weights(), "cpu", measured=True)
                path, uncertainty = found.labels, found.uncertainty
                results.append((np.asarray(nibabel.load(path).dataobj), uncertainty))
        assert len(loads) == 1
    (first, second, again), (other, _, _) = results[:3], results[3:]
    np.testing.assert_array_equal(again[0], first[0])
    assert again[1] == first[1] != second[1]
    assert (other[0] != first[0]).any()
    assert serving_bundles._predictor.cache_info().currsize <= 4


def test_the_pins_agree() -> None:
    """Both environments run the same code: what is in both has one version."""
    pins, own = (
        dict(line.lower().split("==") for line in path.read_text().splitlines() if re.match(r"[\w\-]+==", line))
        for path in (PINS, ROOT / "constraints.txt")
    )
    assert {name: own[name] for name in pins.keys() & own.keys()} == {
        name: pins[name] for name in pins.keys() & own.keys()
    }
    assert {"torch", "monai", "numpy", "nibabel", "itk", "monailabel", "highdicom", "pydicom"} <= pins.keys()
    first, everything, alone = pip_calls(PINS.read_text())
    assert (first, alone) == (["torch==2.13.0"], ["--no-deps", "monailabel==0.8.5"])
    assert len(everything) == len(pins) - 1


@pytest.mark.parametrize(("ci", "status", "word"), [("true", 1, "FAILED"), ("", 0, "SKIPPED")])
def test_a_missing_environment_fails_in_ci_only(ci: str, status: int, word: str) -> None:
    command = ["bash", str(ROOT / "scripts" / "test_label.sh")]
    environment = os.environ | {"CI": ci, "PYTHON": "false"}  # `false` always fails
    result = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, env=environment)
    assert result.returncode == status
    assert f"{word} tests/label: the environment of MONAI Label could not be made" in result.stdout + result.stderr


@pytest.mark.parametrize(("ci", "error"), [("true", "Failed"), ("", "Skipped")])
def test_missing_tools_fail_in_ci_only(ci: str, error: str) -> None:
    """tests/label/conftest.py needs MONAI Label's environment, so that only this function is run."""
    source = (ROOT / "tests" / "label" / "conftest.py").read_text()
    (function,) = (node for node in ast.parse(source).body if getattr(node, "name", "") == "skip_or_fail")
    script = "import os, pytest\nfrom typing import NoReturn\n" + ast.unparse(function)
    script += "\ntry:\n    skip_or_fail('Orthanc')\nexcept BaseException as error:\n    print(type(error).__name__)"
    command, environment = [sys.executable, "-c", script], os.environ | {"CI": ci}
    result = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, env=environment)
    assert result.stdout.strip() == error


@pytest.mark.parametrize(
    ("settings", "words", "token"),
    [
        (
            {"studies": "s", "bundles": ("iseg", "brats_mri_tumor")},
            ["--studies", "s", "--bundles", "iseg,brats_mri_tumor"],
            "",
        ),
        ({"studies": "s", "bundles": "", "port": 8001}, ["--studies", "s", "--port", "8001"], ""),
        (
            {"studies": "s", "token": "secret", "allow_simulated": True},
            ["--studies", "s", "--allow_simulated"],
            "secret",
        ),
        ({"studies": "s", "allow_simulated": False}, ["--studies", "s"], ""),
        ({"studies": "s", "allow_simulated": "true"}, ["--studies", "s", "--allow_simulated"], ""),
    ],
)
def test_the_servers_command(settings: dict[str, Any], words: list[str], token: str) -> None:
    assert command_line(settings) == (words, token)


def test_studies_are_looked_for_before_the_environment_is_made(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"The folder nowhere does not exist\. Give a folder with NIfTI files, or the"
    ):
        start({"studies": "nowhere"}, tmp_path / "environment")
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_setting(brainmri: Brainmri, tmp_path: Path) -> None:
    result = brainmri("label", "--studies", tmp_path, "--prot", 8000, cwd=tmp_path)
    assert result.returncode == 1
    assert re.search(r"brainmri label has no option 'prot'\. Its options are: .*port, .*weights\.", result.stderr)
    assert not list(tmp_path.iterdir())


def test_another_python_is_refused(tmp_path: Path) -> None:
    """MONAI Label imports what Python 3.13 has no more."""
    script = f"import sys; sys.version_info = (3, 13); sys.path.insert(0, {str(PINS.parent)!r})\n"
    script += f"import environment; environment.make({str(tmp_path / 'venv')!r})"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=False)
    assert "MONAI Label 0.8.5 needs Python 3.11 or 3.12, but this is 3.13. Use one of these." in result.stderr
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--studies", "scans"], "must be the URL of a DICOMweb server, got 'scans'"),
        (["--query", "StudyDate=20260101-"], "must be the URL of a DICOMweb server, got ''"),
        (["head.nii.gz", "--studies", "http://pacs"], "Name scans or --studies, not both: got 'head.nii.gz' too"),
        (["--studies", "http://pacs", "--query", "StudyDate"], "--query has 'StudyDate'. Write it like StudyDate="),
        (["--studies", "http://pacs", "--query", "A=1&=2"], "--query has '=2'"),
        (["--studies", "http://pacs", "--figur", "False"], "brainmri segment --studies has no option 'figur'"),
    ],
)
def test_wrong_calls_of_a_batch(words: list[str], sentence: str) -> None:
    """All end before the environment is made."""
    with pytest.raises(SystemExit) as caught:
        main(["segment", *words])
    assert sentence in str(caught.value)


def test_the_query_of_a_batch() -> None:
    asked = filters_of("StudyDate=20260101-20260131&PatientID=sub-*")
    assert asked == {"StudyDate": "20260101-20260131", "PatientID": "sub-*"}
    assert filters_of("") == {}
