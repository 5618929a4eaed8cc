"""`brainmri label` and scripts/serve_label.sh, from the command to the first answer."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import pytest
import requests

import custom
from tests.label.conftest import TISSUE, free_port, skip_or_fail, wait_for

ROOT = Path(__file__).parents[2]
WAYS = {
    "brainmri": [sys.executable, "-m", "custom.cli", "label", "--environment", sys.prefix],
    "script": ["bash", str(ROOT / "scripts" / "serve_label.sh")],
}


@pytest.mark.parametrize("way", WAYS)
def test_from_the_command_to_an_answer(way: str, pairs: dict[str, Any], tmp_path: Path) -> None:
    if not (Path(sys.prefix) / "installed").is_file():
        skip_or_fail("These tests must run in an environment that custom/serving/environment.py made.")
    nibabel.save(pairs["sub-01_T1w"], tmp_path / "brain.nii.gz")
    port = free_port()
    words = ["--studies", str(tmp_path), "--port", str(port), "--bundles", "brain_mri_tissue"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "PYTHON": sys.executable
    }
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [*WAYS[way], *words], cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT, env=environment
        )

    def answers() -> Any:
        assert process.poll() is None, (tmp_path / "log").read_text()
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"http://127.0.0.1:{port}/info/", timeout=5).json()
        return None

    try:
        info = wait_for(answers, 120, tmp_path / "log")
        assert list(info["models"]) == [TISSUE, f"{TISSUE}_structures", f"{TISSUE}_areas"]
        assert info["datastore"]["total"] == 1
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
    log = (tmp_path / "log").read_text()
    assert f"http://127.0.0.1:{port}/ serves {tmp_path}. {custom.RESEARCH_USE_ONLY}" in log
    if way == "brainmri":
        command = (
            f"{sys.prefix}/bin/python -m custom.serving --studies {tmp_path} --bundles brain_mri_tissue --port {port}"
        )
        assert command in log
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"brain.nii.gz", "log", "labels", "runs", "datastore_v2.json", ".lock", ".changing"}
