"""A run that is killed, interrupted, resumed or spread over processes is still the same run."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from monai.utils import set_determinism

from custom.checkpoints.load import load_checkpoint
from custom.running.bundles import config_files
from tests.conftest import SMALL_RUN, Brainmri

EPOCHS = 12


def train_words(iseg_dir: Path, output: Path, epochs: int = EPOCHS) -> list[str]:
    settings = ["--dataset_dir", iseg_dir, "--output_dir", output, "--max_epochs", epochs, "--val_interval", 2]
    return ["train", "iseg", *map(str, settings), *SMALL_RUN]


def wait_for(process: subprocess.Popen, words: str) -> None:
    assert process.stdout
    for line in process.stdout:
        if words in line:
            return
    raise AssertionError(f"the training ended without saying {words!r}")


def assert_same_weights(first: Path, second: Path) -> None:
    one, two = (load_checkpoint(path)["network"] for path in (first, second))
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.thorough)])
def test_killed_and_resumed(
    kills: int, iseg_dir: Path, brainmri: Brainmri, start_brainmri: Callable, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert brainmri(*train_words(iseg_dir, whole), cwd=tmp_path).returncode == 0
    draw, resumed = random.Random(0), [*train_words(iseg_dir, killed), "--resume", "--verbose"]
    for number in range(kills):
        said = [tmp_path / f"stdout{number}", tmp_path / f"stderr{number}"]
        process = start_brainmri(resumed, tmp_path, *said)
        while not any(path.is_file() and "Engine run resuming" in path.read_text("utf-8") for path in said):
            assert process.is_alive(), said[1].read_text("utf-8")
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 1.0))
        process.kill()
        process.join()
        for path in killed.glob("[!.]*.pt"):  # a killed one leaves a part under a hidden name
            load_checkpoint(path)
    assert brainmri(*resumed, cwd=tmp_path).returncode == 0
    assert load_checkpoint(killed / "last.pt")["trainer"] == {"epoch": EPOCHS, "iteration": EPOCHS * 7}
    assert_same_weights(whole / "last.pt", killed / "last.pt")
    schedules = [load_checkpoint(path / "last.pt")["lr_scheduler"] for path in (whole, killed)]
    assert schedules[0] == schedules[1]
    best, other = (torch.load(path / "model.pt", weights_only=True) for path in (whole, killed))
    assert all(torch.equal(best[name], other[name]) for name in best)


def test_interrupted(iseg_dir: Path, tmp_path: Path) -> None:
    call = [sys.executable, "-m", "custom.cli", *train_words(iseg_dir, tmp_path / "run", 500)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # What a shell starts in the background ignores the interrupt, and so would its children.
    heed = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
    process = subprocess.Popen(call, **pipes, cwd=tmp_path, preexec_fn=heed)
    wait_for(process, "Epoch 1/500")
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT)  # a shell says 130 for both
    assert errors.strip().splitlines()[-1] == (
        "brainmri: stopped. What finished epochs learned is kept; the same command with --resume True goes on with it."
    )
    assert "Traceback" not in errors
    assert set(load_checkpoint(tmp_path / "run/last.pt")) >= {"network", "optimizer", "lr_scheduler", "trainer"}


def test_a_new_run_keeps_the_earlier_one(trained: Path, iseg_dir: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    words = ("--dataset_dir", iseg_dir, "--output_dir", "run", "--max_epochs", 1, "--val_interval", 1, *SMALL_RUN)
    for _ in range(2):
        assert brainmri("train", "iseg", *words, cwd=tmp_path).returncode == 0
    (earlier,) = (tmp_path / "run/earlier").iterdir()
    assert {path.name for path in earlier.iterdir()} == {"last.pt", "model.pt", "model.json", "tensorboard", "run.log"}
    assert_same_weights(earlier / "last.pt", tmp_path / "run/last.pt")


def test_a_longer_run_stretches_the_schedule(trained: Path, iseg_dir: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    """Two epochs of seven steps, resumed with seven subjects to a step: the position is the epoch's, not the step's."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/last.pt").write_bytes((trained / "last.pt").read_bytes())
    words = ("--dataset_dir", iseg_dir, "--output_dir", "run", "--max_epochs", 8, "--val_interval", 4, *SMALL_RUN)
    result = brainmri("train", "iseg", *words, "--batch_size", 7, "--resume", "True", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    state = load_checkpoint(tmp_path / "run/last.pt")
    assert state["trainer"] == {"epoch": 8, "iteration": 8}
    assert state["lr_scheduler"]["last_epoch"] == state["lr_scheduler"]["t_total"] == 8
    assert state["optimizer"]["param_groups"][0]["lr"] == 0


@pytest.mark.slow
def test_two_processes_learn_what_one_does(iseg_dir: Path, tmp_path: Path) -> None:
    """Same global batch and order, no augmentation, nothing that couples a batch's subjects."""
    mixin = tmp_path / "plain.json"
    crop = {"_target_": "CenterSpatialCropd", "keys": ["image", "label"], "roi_size": "@roi_size"}
    plain = {"train#sampling_transforms": [crop], "network_def#norm": "instance", "loss#batch": False}
    # Adam would make large steps of the rounding errors of biases whose true gradient is zero
    plain["optimizer"] = {"_target_": "torch.optim.SGD", "params": "$@network.parameters()", "lr": "@learning_rate"}
    mixin.write_text(json.dumps(plain))
    shared = ["--dataset_dir", iseg_dir, "--max_epochs", 2, "--val_interval", 1, "--fold", 4, "--amp", False]
    shared += ["--roi_size", "[32,32,32]", "--learning_rate", 0.1]
    train, several = (config_files("iseg", name)[0] for name in ("train.json", "multi_gpu_train.json"))
    run = ["-m", "monai.bundle", "run", "training"]
    one = [sys.executable, *run, "--config_file", f"['{train}','{mixin}']", "--batch_size", 2]
    one += ["--train#dataloader#shuffle", False, "--output_dir", "one"]
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2, *run]
    two += ["--config_file", f"['{train}','{several}','{mixin}']", "--train#sampler#shuffle", False]
    two += ["--output_dir", "two"]
    for call in (one, two):
        subprocess.run([str(word) for word in (*call, *shared)], cwd=tmp_path, check=True, capture_output=True)
    first, second = (load_checkpoint(tmp_path / name / "last.pt") for name in ("one", "two"))
    assert first["trainer"] == second["trainer"] == {"epoch": 2, "iteration": 8}
    for name, weights in first["network"].items():
        torch.testing.assert_close(second["network"][name], weights, rtol=1e-3, atol=1e-5, msg=name)
    assert second["evaluator"]["best_metric"] == pytest.approx(first["evaluator"]["best_metric"], abs=2e-3)
    set_determinism(seed=0)
    configs = ConfigParser.load_config_files([train, str(mixin)])
    untrained = ConfigParser(configs).get_parsed_content("network_def").state_dict()
    assert any(not torch.equal(untrained[name], first["network"][name]) for name in untrained)
