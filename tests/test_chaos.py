"""The short form of scripts/chaos.sh: some rows, each once or a little more."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def chaos(*words: object, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    call = [sys.executable, "-m", "scripts.chaos", *map(str, words)]
    return subprocess.run(call, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_nothing_is_lost() -> None:
    result = chaos(0.3, 0, "kill sample", "kill prepare", "kill segment", "kill train", "bombs")
    assert result.returncode == 0, result.stdout + result.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in result.stdout.splitlines() if line[:2] == "| "]
    head, *rows = rows
    assert head[:5] == ["what", "tried", "lost", "half-written", "other faults"]
    assert [row[0] for row in rows] == ["kill sample", "kill prepare", "kill segment", "kill train", "bombs"]
    assert [row[2:5] for row in rows] == [["0", "0", "0"]] * 5
    assert min(int(row[1]) for row in rows) > 0
    assert re.search(r"\d minutes, seed 0", result.stdout)
