"""What only a CUDA device can show."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from custom.files import load_checkpoint
from tests.conftest import SMALL_RUN, Brainmri

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")]


def test_trains_resumes_and_evaluates_in_half_precision(iseg_dir: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    where = ("--dataset_dir", iseg_dir, "--output_dir", "run")
    for epochs in (1, 2):
        words = (*where, "--max_epochs", epochs, "--val_interval", 1, "--resume", "True", *SMALL_RUN)
        result = brainmri("train", "iseg", *words, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    state = load_checkpoint(tmp_path / "run/last.pt")
    assert state["trainer"]["epoch"] == 2
    assert "scaler" in state
    result = brainmri("evaluate", "iseg", *where, "--roi_size", "[32,32,32]", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
