"""What all tests share: a small sample, a trained run of it, and the command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
os.environ["MPLBACKEND"] = "Agg"

from custom.samples import iseg as iseg_sample

SHARED = Path(__file__).parents[2] / "shared" / "data"
Brainmri = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="session")
def iseg_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The iSeg sample at 4 mm (49x58x47). Read only: copy it before changing anything."""
    return iseg_sample.write(tmp_path_factory.mktemp("sample") / "iseg", spacing=4)


@pytest.fixture
def iseg_copy(iseg_dir: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(iseg_dir, tmp_path / "iseg"))


@pytest.fixture(scope="session")
def brainmri() -> Brainmri:
    """Runs `brainmri ...` in another process and folder, and returns what it printed."""

    def call(*words: object, cwd: Path, timeout: int = 300) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "custom.cli", *map(str, words)]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False)

    return call


SMALL_RUN = ("--roi_size", "[32,32,32]", "--samples_per_volume", "1")


@pytest.fixture(scope="session")
def trained(iseg_dir: Path, brainmri: Brainmri, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output_dir of a run of two epochs. Read only."""
    folder = tmp_path_factory.mktemp("trained")
    words = ("--dataset_dir", iseg_dir, "--output_dir", folder / "run", "--max_epochs", 2, "--val_interval", 1)
    result = brainmri("train", "iseg", *words, *SMALL_RUN, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder / "run"
