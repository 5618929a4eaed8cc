"""brainmri compare: trains, scores, sums up, and doesn't run twice what is done."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas
import pytest

from tests.conftest import Brainmri

SMALL = (
    "--roi_size",
    "[64,64]",
    "--network_def#n_filters",
    4,
    "--middle_slices",
    4,
    "--max_epochs",
    2,
    "--batch_size",
    2,
)


@pytest.mark.slow
def test_two_networks(brats_slices_dir: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    def compare(networks: str, *more: object) -> object:
        words = ("--networks", networks, "--dataset_dir", brats_slices_dir, "--output_dir", "out", *SMALL, *more)
        return brainmri("compare", "brats_mri_slice", *words, cwd=tmp_path)

    assert compare("classic").returncode == 0
    done = (tmp_path / "out/classic-seed0/cost.json").stat().st_mtime_ns
    result = compare("classic,attention")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out/classic-seed0/cost.json").stat().st_mtime_ns == done
    assert "== attention with seed 0" in result.stdout
    assert "== classic" not in result.stdout
    assert "not a medical device" in result.stdout
    table = pandas.read_csv(tmp_path / "out/comparison.csv").set_index("network")
    assert list(table.index) == ["classic", "attention"]
    cost = json.loads((tmp_path / "out/attention-seed0/cost.json").read_text())
    assert table.loc["attention", "parameters"] == cost["parameters"] < table.loc["classic", "parameters"]
    assert (table[["seconds_an_epoch", "gflops", "peak_memory_mb"]] > 0).all(axis=None)
    scores = pandas.read_csv(tmp_path / "out/classic-seed0/evaluation/scores.csv")
    assert table.loc["classic", "accuracy"] == pytest.approx(scores["accuracy"].mean(), abs=1e-4)
    labels = pandas.read_csv(tmp_path / "out/by_label.csv")
    assert labels["label"].tolist() == ["NCR", "ED", "ET"] * 2
    assert (tmp_path / "out/comparison.png").read_bytes().startswith(b"\x89PNG")
    assert compare("classic", "--max_epoch", 1).returncode == 1  # misspelt: nothing is written or refused later
    assert "seeds must be whole numbers, got 'x'" in compare("classic", "--seeds", "x").stderr
    other = compare("classic", "--learning_rate", 0.1)
    assert other.returncode == 1
    assert "holds a comparison with" in other.stderr
    assert "has no file resnet.json" in compare("resnet").stderr
    words = ("--network", "attention", "--dataset_dir", brats_slices_dir, "--output_dir", "out/attention-seed0", *SMALL)
    assert brainmri("report", "brats_mri_slice", *words, cwd=tmp_path).returncode == 0
    pictures = {path.name for path in (tmp_path / "out/attention-seed0/report").iterdir()}
    assert {"channels.png", "overlay.png", "attention.png", "attention.gif", "axial.gif"} <= pictures
    (tmp_path / "out/classic-seed0/evaluation/scores.csv").unlink()
    again = compare("classic", "--summary", False)  # scored again, not trained again
    assert "--run_id evaluating" in again.stdout
    assert "--run_id training" not in again.stdout
    assert (tmp_path / "out/classic-seed0/cost.json").stat().st_mtime_ns == done
    assert "seed is set for each run" in compare("classic", "--seed", 3).stderr
    assert np.isfinite(table["dice"]).all()
