"""`brainmri train FOLDER`: from labelled scans to a bundle that goes on, packs, and runs by plain MONAI."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pandas
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from custom.commands.plan import what_to_plan
from custom.commands.scoring import score_table
from custom.datasets import iseg, msd
from custom.serving.bundles import load_bundles
from tests.conftest import Brainmri
from tests.own_folders import ISEG_CODES, as_bids, as_nnunet

SMALL = ("--roi_size", "[32,32,32]", "--network_def#channels", "[4,8,8]", "--network_def#strides", "[2,2]")
SHORT = ("--max_epochs", 2, "--val_interval", 1)


@pytest.fixture(scope="module")
def infants(iseg_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six subjects of two channels in nnU-Net's form."""
    cases = [case for split in ("training", "validation", "test") for case in iseg.datalist(iseg_dir, split)]
    folder = tmp_path_factory.mktemp("nnunet") / "infants"
    return as_nnunet(cases[:6], folder, ("T1", "T2"), ("background", "CSF", "GM", "WM"), ISEG_CODES)


def test_two_channels_from_a_folder_to_plain_monai(infants: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    shutil.copytree(infants, tmp_path / "mine")
    words = ("mine", *SHORT, *SMALL)
    verified = brainmri("verify", "mine", cwd=tmp_path)
    assert verified.stdout.splitlines()[-1] == "mine: no problem found."
    trained = brainmri("train", *words, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    for text in ("2 channels, and the any-scan network takes one", "training      3: ", "test          2: ", "low"):
        assert text in trained.stdout
    run, bundle = tmp_path / "runs/mine_bundle", tmp_path / "mine_bundle"
    assert (bundle / "models/model.pt").read_bytes() == (run / "model.pt").read_bytes()
    curves = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [point.step for point in curves.Scalars("validation/loss")] == [1, 2]
    state = json.loads((run / "training.json").read_text())
    assert (state["finished"], len(state["split"]["test"])) == (True, 2)
    again = brainmri("train", *words, cwd=tmp_path)
    assert again.returncode == 0
    assert "is finished: it is not repeated" in again.stdout
    other = brainmri("train", *words, "--learning_rate", 0.01, cwd=tmp_path)
    assert other.returncode == 1
    assert "holds a training with another learning_rate: 0.001, now 0.01" in other.stderr
    served = load_bundles([str(bundle)], tmp_path / "nowhere")["mine_bundle"]
    assert (served.channels, served.labels) == (("T1", "T2"), {"CSF": 1, "GM": 2, "WM": 3})
    assert served.choose_weights().path == bundle / "models/model.pt"
    case = [shutil.copy(path, tmp_path) for path in sorted((tmp_path / "mine/imagesTr").glob("*"))[:2]]
    shutil.rmtree(tmp_path / "mine")
    shutil.rmtree(run)
    packed = brainmri("pack", "mine_bundle", "--output_dir", "packed", cwd=tmp_path)
    assert packed.returncode == 0, packed.stderr
    with zipfile.ZipFile(tmp_path / "packed/mine_bundle.zip") as archive:
        archive.extractall(tmp_path / "elsewhere")
        texts = [archive.read(name).decode() for name in archive.namelist() if name.endswith(".json")]
    assert not any(str(tmp_path) in text for text in texts)
    results = []
    for place, path in ((bundle, os.environ.get("PYTHONPATH", "")), (tmp_path / "elsewhere/mine_bundle", "")):
        config = str(place / "configs/inference.json")
        call = [sys.executable, "-m", "monai.bundle", "run", "--config_file", config, "--data", str([{"image": case}])]
        call += ["--output_dir", str(tmp_path / f"out{len(results)}"), "--roi_size", "[32,32,32]"]
        small = ["--network_def#channels", "[4,8,8]", "--network_def#strides", "[2,2]"] if not results else []
        done = subprocess.run([*call, *small], cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, check=False,
                              capture_output=True, encoding="utf-8")  # fmt: skip
        assert done.returncode == 0, done.stderr
        (written,) = (tmp_path / f"out{len(results)}/segmentations").iterdir()
        results.append(np.asarray(nibabel.load(written).dataobj))
    np.testing.assert_array_equal(*results)
    assert results[0].shape == nibabel.load(case[0]).shape


def test_what_train_plans(own_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A folder by its name, or as the data of the any-scan bundle, which takes labelled scans in no other way."""
    for name, dataset_dir, planned in (
        (str(own_dir), None, str(own_dir)),
        ("brain_mri_tissue", own_dir, str(own_dir)),
        ("brain_mri_tissue", None, ""),
        ("brain_mri_tissue", tmp_path, ""),  # label maps, or nothing yet
        ("brats_mri_tumor", own_dir, ""),
        ("no_such", own_dir, ""),
    ):
        assert what_to_plan(name, dataset_dir) == planned
    assert capsys.readouterr().out == f"{own_dir} has labelled scans, so this is: brainmri train {own_dir}\n"


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.thorough)])
def test_killed_it_is_the_same_run(
    kills: int, infants: Path, brainmri: Brainmri, start_brainmri: Callable, tmp_path: Path
) -> None:
    """At random moments: while it plans, trains or scores."""
    words = ("train", "mine", "--max_epochs", 8, "--val_interval", 2, *SMALL)
    for name in ("whole", "killed"):
        shutil.copytree(infants, tmp_path / name / "mine")
    assert brainmri(*words, cwd=tmp_path / "whole").returncode == 0
    draw = random.Random(0)
    for number in range(kills):
        said = [tmp_path / f"{stream}{number}" for stream in ("stdout", "stderr")]
        process = start_brainmri(words, tmp_path / "killed", *said)
        time.sleep(draw.uniform(0.5, 6.0))
        process.kill()
        process.join()
    last = brainmri(*words, cwd=tmp_path / "killed")
    assert last.returncode == 0, last.stderr
    runs = [tmp_path / name / "runs/mine_bundle" for name in ("whole", "killed")]
    for file in ("model.pt", "last.pt"):
        whole, killed = (torch.load(run / file, weights_only=True) for run in runs)
        whole, killed = (content.get("network", content) for content in (whole, killed))
        assert whole.keys() == killed.keys()
        assert all(torch.equal(whole[name], killed[name]) for name in whole)
    whole, killed = (json.loads((run / "training.json").read_text()) for run in runs)
    assert killed["finished"] is True
    assert killed["split"] == whole["split"]
    scores = [(run / "evaluation/scores.csv").read_bytes() for run in runs]
    assert scores[0] == scores[1]
    assert not list(runs[1].rglob(".partial*"))


def test_four_channels_of_the_decathlon(msd_dir: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    """Task01's form: one 4D file for each patient."""
    shutil.copytree(msd_dir, tmp_path / "tumors")
    trained = brainmri("train", "tumors", "--max_epochs", 1, "--val_interval", 1, *SMALL, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    labels = pandas.read_csv(tmp_path / "runs/tumors_bundle/evaluation/scores.csv")["label"].unique()
    assert labels.tolist() == list(msd.labels(msd_dir).values())[1:]


def test_one_channel_of_a_head_starts_from_the_any_scan_weights(
    own_dir: Path, brainmri: Brainmri, tmp_path: Path
) -> None:
    words = ("train", own_dir, "--max_epochs", 1, "--val_interval", 1, "--roi_size", "[32,32,32]", "--spacing", 4.0)
    trained = brainmri(*words, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "any-scan weights" in trained.stdout
    assert trained.stdout.count("Epoch 1/1: loss") == 1
    assert "Post-processing, chosen on the validation subjects: " in trained.stdout
    (curves,) = tmp_path.glob("runs/*/tensorboard")
    assert len(EventAccumulator(str(curves)).Reload().Scalars("validation/loss")) == 1
    (bundle,) = tmp_path.glob("*_bundle")
    start, end = (torch.load(bundle / f"models/{name}.pt", weights_only=True) for name in ("start", "model"))
    assert set(start) == set(end)
    moved = [float((start[name] - end[name]).abs().max()) for name in start if start[name].is_floating_point()]
    assert 0 < max(moved) < 0.1  # one epoch of a low learning rate away from the start
    served = load_bundles([str(bundle)], tmp_path / "nowhere")[bundle.name]
    assert (served.channels, served.labels) == (("T1",), {"CSF": 1, "GM": 2, "WM": 3})
    served.check(served.choose_weights())


def test_bids_with_codes_of_its_own(brainmri: Brainmri, tmp_path: Path) -> None:
    as_bids(tmp_path / "study", ("sub-1", "sub-2", "sub-3"), codes=(7, 41), channels=("T1w", "T2w"))
    trained = brainmri("train", "study", "--max_epochs", 1, "--val_interval", 1, *SMALL, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    scores = pandas.read_csv(tmp_path / "runs/study_bundle/evaluation/scores.csv")
    assert scores["label"].tolist() == ["label 7", "label 41"]


def test_a_mixin_from_anywhere(infants: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    network = {"_target_": "SegResNet", "spatial_dims": 3, "init_filters": 8}
    network |= {"in_channels": "@in_channels", "out_channels": "@out_channels", "blocks_down": [1, 1], "blocks_up": [1]}
    (tmp_path / "mine.json").write_text(json.dumps({"network_def": network}))
    shutil.copytree(infants, tmp_path / "infants")
    words = ("--network", "mine.json", "--max_epochs", 1, "--val_interval", 1, "--roi_size", "[32,32,32]")
    trained = brainmri("train", "infants", *words, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    record = json.loads((tmp_path / "runs/infants_bundle/model.json").read_text())
    assert record["network"] == str(tmp_path / "mine.json")
    assert record["options"]["network_def"]["_target_"] == "SegResNet"


def test_scores_by_hand() -> None:
    """The mean over both sessions of a subject counts each scan; a label that a subject lacks does not count."""
    rows = [("sub-1_ses-1", "a", 0.5), ("sub-1_ses-2", "a", 0.7), ("sub-2", "a", 0.9), ("sub-1_ses-1", "b", 0.1)]
    table = score_table(pandas.DataFrame(rows, columns=["subject", "label", "dice"])).set_index("label")
    assert table["n"].to_dict() == {"a": 3, "b": 1, "mean": 3}
    assert table["dice"].to_dict() == pytest.approx({"a": 0.7, "b": 0.1, "mean": (0.3 + 0.7 + 0.9) / 3})
    assert table.loc["a", ["low", "high"]].tolist() == pytest.approx(
        [0.6, 0.9]
    )  # all draws are of one subject at worst
    assert table.loc["b", ["low", "high"]].tolist() == [0.1, 0.1]
