"""What a run prints, and its run.log."""

from __future__ import annotations

import logging
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events
from torch.utils.data import DataLoader, Dataset

from custom.errors import CheckpointError, DataError, MissingDataError, find_cause
from custom.files import without_partial, written_whole
from custom.handlers.epoch_log import EpochLog, as_time
from custom.running import log
from tests.conftest import SMALL_RUN, Brainmri


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (150, "2 min"), (3599, "1 h 0 min"), (9000, "2 h 30 min"),
     (100000, "1 d 3 h")],
)  # fmt: skip
def test_as_time(seconds: float, text: str) -> None:
    assert as_time(seconds) == text


def test_a_line_for_each_epoch(caplog: pytest.LogCaptureFixture) -> None:
    """Losses 1 and 3, then 5 and 7; validated after the second epoch."""
    losses = iter([1.0, 3.0, 5.0, 7.0])
    trainer = Engine(lambda engine, batch: [{"loss": torch.tensor(next(losses))}])
    evaluator = Engine(lambda engine, batch: None)
    evaluator.state.key_metric_name, evaluator.state.best_metric, evaluator.state.best_metric_epoch = "dice", 0.75, 2
    EpochLog(evaluator).attach(trainer)

    def validate(engine: Engine) -> None:
        if engine.state.epoch == 2:
            evaluator.run([0])
            evaluator.state.metrics["dice"] = 0.5

    trainer.add_event_handler(Events.EPOCH_COMPLETED, validate)
    with caplog.at_level(logging.INFO, "custom"):
        trainer.run([0, 0], max_epochs=2)
    lines = [re.sub(r"\d+ s ", "0 s ", record.getMessage()) for record in caplog.records if "Epoch " in record.msg]
    assert [line for line in lines if line.startswith("Epoch ") and "Complete" not in line] == [
        "Epoch 1/2: loss 2.0000, 0 s left",
        "Epoch 2/2: loss 6.0000, dice 0.5000 (best 0.7500 of epoch 2), 0 s in all",
    ]


def test_the_remaining_time_of_a_resumed_training(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """50 epochs are done and 10 are left, each of which takes two minutes; reading the checkpoint takes an hour."""
    clock = [1000.0]
    monkeypatch.setattr("custom.handlers.epoch_log.time", SimpleNamespace(monotonic=lambda: clock[0]))

    def step(engine: Engine, batch: int) -> list[dict[str, torch.Tensor]]:
        clock[0] += 60
        return [{"loss": torch.tensor(1.5)}]

    def resume(engine: Engine) -> None:
        clock[0] += 3600
        engine.state.epoch, engine.state.iteration = 50, 100

    trainer = Engine(step)
    EpochLog(Engine(lambda engine, batch: None)).attach(trainer)
    trainer.add_event_handler(Events.STARTED, resume)  # as Checkpoint does
    with caplog.at_level(logging.INFO, "custom"):
        trainer.run([0, 0], max_epochs=60)
    lines = [record.getMessage() for record in caplog.records if record.name == "custom.handlers.epoch_log"]
    assert lines == [
        *(f"Epoch {epoch}/60: loss 1.5000, {2 * (60 - epoch)} min left" for epoch in range(51, 60)),
        "Epoch 60/60: loss 1.5000, 20 min in all",
    ]


def messages() -> None:
    logging.getLogger("custom.x").info("ours")
    logging.getLogger("custom.x").warning("our warning")
    logging.getLogger("monai.x").warning("theirs")
    print("printed")


@pytest.mark.parametrize(
    ("mode", "out", "err"),
    [
        ({}, ["ours", "our warning", "printed"], []),
        ({"quiet": True}, [], ["our warning"]),
        ({"verbose": True}, ["ours", "our warning", "theirs", "printed"], []),
    ],
)
def test_console(mode: dict, out: list[str], err: list[str], capsys: pytest.CaptureFixture) -> None:
    handlers = list(logging.getLogger().handlers)
    with log.console(**mode):
        messages()
    captured = capsys.readouterr()
    assert [line.split(": ")[-1] for line in captured.out.splitlines()] == out
    assert [line for line in captured.err.splitlines() if line in ("ours", "our warning", "theirs", "printed")] == err
    assert logging.getLogger().handlers == handlers


def test_run_log_has_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        monkeypatch.setattr(sys, "argv", ["brainmri", f"command{number}"])
        with log.run_log(tmp_path / "run"):
            messages()
            print("a scan failed", file=sys.stderr)
            print("\r50%", file=sys.stderr, end="")
            logging.getLogger("monai.x").info("writes %s", tmp_path / ".partial-host.pid12-x.nii")
    text = (tmp_path / "run/run.log").read_text()
    for line in (
        "brainmri command0",
        "brainmri command1",
        "ours",
        "our warning",
        "theirs",
        "printed",
        "x.nii",
        "a scan failed",
    ):
        assert line in text
    assert ".partial" not in text
    assert "50%" not in text


@pytest.mark.parametrize("begun", [False, True])
def test_run_log_of_a_failure(begun: bool, tmp_path: Path) -> None:
    def fail() -> None:
        with log.run_log(tmp_path / "run"):
            logging.getLogger("custom.x").info("step", extra={log.BEGUN: begun})
            raise DataError("bad scan")

    with pytest.raises(DataError):
        fail()
    assert (tmp_path / "run").exists() == begun
    if begun:
        assert "DataError: bad scan" in (tmp_path / "run/run.log").read_text()


def test_temporary_names(tmp_path: Path) -> None:
    with written_whole(tmp_path / "2024-a.nii") as partial:
        partial.write_text("x")
        assert without_partial(f"No space: {partial}") == f"No space: {tmp_path / '2024-a.nii'}"


def in_a_new_process(words: list[object], cwd: Path) -> subprocess.CompletedProcess:
    """As a user starts it: tqdm reads whether to draw bars when it is imported."""
    call = [sys.executable, "-m", "custom.cli", *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(Path(log.__file__).parents[2])}
    environment.pop("TQDM_DISABLE", None)
    return subprocess.run(call, cwd=cwd, env=environment, capture_output=True, encoding="utf-8", check=False)


def words(iseg_dir: Path, *more: object) -> list[object]:
    return ["--dataset_dir", iseg_dir, "--output_dir", "study#2", "--max_epochs", 1, "--val_interval", 1,
            *SMALL_RUN, *more]  # fmt: skip


def test_a_training_prints_a_line_an_epoch(iseg_dir: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    default = in_a_new_process(["train", "iseg", *words(iseg_dir)], tmp_path)
    assert default.returncode == 0, default.stderr
    call, *lines = default.stdout.splitlines()
    assert call.startswith("python -m monai.bundle run_workflow")
    assert re.fullmatch(
        r"Epoch 1/1: loss \d\.\d{4}, dice_mean 0\.\d{4} \(best 0\.\d{4} of epoch 1\), \d+ s in all", lines[0]
    )
    assert lines[1] == "The weights are in study#2/model.pt. Score them on the test split with:"
    assert lines[2] == f"brainmri evaluate iseg --dataset_dir {iseg_dir} --output_dir 'study#2'"
    assert len(lines) == 3
    assert not default.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"study#2"}
    text = (tmp_path / "study#2/run.log").read_text()
    for part in ("python -m monai.bundle", "Epoch 1/1", "Engine run finished"):
        assert part in text

    scored = brainmri("evaluate", "iseg", *words(iseg_dir), cwd=tmp_path)
    assert re.search(r"GM +\d\.\d{3}", scored.stdout)
    assert "Research use only" in scored.stdout
    assert "Engine run" not in scored.stdout
    quiet = in_a_new_process(["evaluate", "iseg", *words(iseg_dir, "--quiet")], tmp_path)
    assert quiet.returncode == 0, quiet.stderr
    assert not quiet.stdout
    assert not quiet.stderr
    verbose = brainmri("evaluate", "iseg", *words(iseg_dir, "--verbose"), cwd=tmp_path)
    assert "Engine run starting" in verbose.stdout or "Engine run resuming" in verbose.stdout
    assert ".partial" not in verbose.stdout + verbose.stderr + (tmp_path / "study#2/run.log").read_text()


class Broken(Dataset):
    """Raises as MONAI does: an error of ours inside another one."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> None:
        try:
            raise MissingDataError("scan-1.nii does not exist.\nPut it back.")
        except DataError as error:
            raise RuntimeError("applying transform") from error


@pytest.mark.parametrize("workers", [0, 1])
def test_causes_come_out_of_data_loaders(workers: int) -> None:
    with pytest.raises(RuntimeError) as caught:
        next(iter(DataLoader(Broken(), num_workers=workers)))
    cause = find_cause(caught.value)
    assert type(cause) is MissingDataError
    assert str(cause) == "scan-1.nii does not exist.\nPut it back."


def test_other_errors_have_no_cause() -> None:
    assert find_cause(RuntimeError("custom.errors.DataError: text of somebody else")) is None
    error = pickle.loads(pickle.dumps(CheckpointError("x")))
    assert find_cause(error) is error
    assert sys.modules["custom.errors"]
