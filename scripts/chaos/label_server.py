"""The rows of the label server, which run in its own environment (.venv-label)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from scripts.chaos.rows import Row

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-label" / "bin" / "python"


def server_rows(work: Path, seconds: float, seed: int) -> list[Row]:
    """One row that says why, where the environment is missing."""
    ready = [str(PYTHON), "-c", "import monailabel, pytest, requests"]
    if not PYTHON.is_file() or subprocess.run(ready, check=False, capture_output=True).returncode:
        words = ". scripts/label_venv.sh; pip install -r tests/label/requirements.txt"
        return [Row("server", notes=[f"not tried: .venv-label is missing or has no pytest ({words})"])]
    work.mkdir()
    call = [str(PYTHON), "-m", "scripts.chaos.label_attacks", str(work), str(seconds), str(seed)]
    done = subprocess.run(call, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
    if done.returncode:
        return [Row("server", other=[f"the attacks ended with exit code {done.returncode}"])]
    return [Row(**content) for content in json.loads((work / "rows.json").read_text())]
