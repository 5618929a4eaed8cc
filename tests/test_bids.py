"""The results of a BIDS data set are a valid BIDS derivative, for the BIDS Validator itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from custom.commands.bids import DESCRIPTION, describe
from custom.samples import mni152
from tests.conftest import Brainmri

VALIDATOR = Path(sys.executable).with_name("bids-validator-deno")
RAW = {"Name": "Two heads", "BIDSVersion": "1.10.0", "DatasetType": "raw"}


def data_set(folder: Path, scan: Path, **changes: str) -> Path:
    """The same scan twice, once in a session."""
    for name in ("sub-1/anat/sub-1_T1w.nii.gz", "sub-2/ses-a/anat/sub-2_ses-a_T1w.nii.gz"):
        (folder / name).parent.mkdir(parents=True)
        shutil.copy(scan, folder / name)
    (folder / DESCRIPTION).write_text(json.dumps(RAW | changes))
    return folder


@pytest.mark.slow
def test_the_validator_finds_no_error(mni152_dir: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    if not VALIDATOR.is_file():
        pytest.skip("bids-validator-deno is not installed: pip install bids-validator-deno")
    data_set(tmp_path / "bids", mni152_dir / mni152.T1)
    everything = ("--outputs", "tissues,structures,mask,brain,probabilities", "--wide", "--report")
    words = ("segment", "bids", "--output_dir", "derived", *everything, "--device", "cpu")
    result = brainmri(*words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    errors = errors_of(tmp_path / "derived")
    assert errors == []
    sidecar = tmp_path / "derived/sub-1/anat/sub-1_desc-brain_T1w.json"
    sidecar.unlink()
    assert [error["code"] for error in errors_of(tmp_path / "derived")] == ["SIDECAR_KEY_REQUIRED"]  # it does look


def errors_of(folder: Path) -> list[dict]:
    done = subprocess.run(
        [VALIDATOR, folder, "--format", "json"], capture_output=True, text=True, timeout=120, check=False
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    return [issue for issue in issues if issue["severity"] == "error"]


def test_a_description_of_the_results(tmp_path: Path) -> None:
    source, out = tmp_path / "bids", tmp_path / "bids/derivatives/brainmri"
    (tmp_path / "scan.nii.gz").write_bytes(b"a scan")
    scan = data_set(source, tmp_path / "scan.nii.gz") / "sub-1/anat/sub-1_T1w.nii.gz"
    out.mkdir(parents=True)
    describe(out, [tmp_path / "scan.nii.gz"])  # of no BIDS data set
    assert not any(out.iterdir())
    describe(out, [scan])
    description = json.loads((out / DESCRIPTION).read_text())
    assert description["Name"] == "Brain MRI Bundles: segmentations of Two heads"
    assert description["DatasetType"] == "derivative"
    assert description["SourceDatasets"] == [{"URL": "../.."}]
    assert description["GeneratedBy"][0]["Description"] == "Research use only, not a medical device."
    assert str(tmp_path) not in (out / DESCRIPTION).read_text()
    (out / DESCRIPTION).write_text("the user's")
    describe(out, [scan])
    assert (out / DESCRIPTION).read_text() == "the user's"


def test_a_source_with_an_identifier(tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").write_bytes(b"a scan")
    source = data_set(tmp_path / "bids", tmp_path / "scan.nii.gz", DatasetDOI="doi:10.1/x")
    describe(tmp_path, [source / "sub-1/anat/sub-1_T1w.nii.gz"])
    assert json.loads((tmp_path / DESCRIPTION).read_text())["SourceDatasets"] == [{"DOI": "doi:10.1/x"}]
