"""The SLURM array of a comparison, with local processes in place of a cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts" / "slurm"


@pytest.mark.slow
def test_an_array_of_two_tasks(hcp_dir: Path, tmp_path: Path) -> None:
    """Two tasks at once train a seed each; then the last command trains nothing again, and writes the table."""
    binaries = Path(sys.executable).parent
    if not (binaries / "brainmri").is_file():
        pytest.skip(f"the command brainmri is not installed in {binaries}")
    environment = os.environ | {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    words = ["--dataset_dir", str(hcp_dir), "--target", "Ventricles", "--max_epochs", "1", "--roi_size", "[48,48,48]"]
    call = ["bash", str(SCRIPTS / "compare.sbatch"), "hcp", "default", "0,1", "out", *words]
    tasks = [
        subprocess.Popen(
            call, cwd=tmp_path, env=environment | {"SLURM_ARRAY_TASK_ID": str(number)}, stdout=subprocess.DEVNULL
        )
        for number in range(2)
    ]
    assert [task.wait(timeout=900) for task in tasks] == [0, 0]
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("default-seed*/model.pt")}
    assert sorted(path.parent.name for path in written) == ["default-seed0", "default-seed1"]
    assert not (tmp_path / "out/comparison.csv").exists()
    last = [binaries / "brainmri", "compare", "hcp", "--networks", "default", "--seeds", "0,1", "--output_dir", "out"]
    done = subprocess.run([*last, *words], cwd=tmp_path, env=environment, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in written} == written
    table = pandas.read_csv(tmp_path / "out/comparison.csv")
    assert table["network"].tolist() == ["default"]
    assert table.loc[0, "n"] > 0


def test_scripts_name_what_exists() -> None:
    """The workflow that MONAI imports, and valid bash."""
    text = (SCRIPTS / "train.sbatch").read_text(encoding="utf-8")
    assert "--workflow_name custom.running.StrictWorkflow" in text
    for path in SCRIPTS.glob("*.sbatch"):
        subprocess.run(["bash", "-n", path], check=True)
