"""Which handlers run on which process of a run on several GPUs; processes that a command starts end with it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from monai.bundle import ConfigParser
from monai.handlers import StatsHandler

from custom.running.bundles import config_files, find_bundles
from custom.running.processes import on_first, run_child

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("rank", "runs"), [(None, True), ("0", True), ("1", False)])  # None: not started by torchrun
def test_only_the_first_process_prints(rank: str | None, runs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if rank is None:
        monkeypatch.delenv("RANK", raising=False)
    else:
        monkeypatch.setenv("RANK", rank)
    handlers = [StatsHandler()]
    assert on_first(handlers) == (handlers if runs else None)


@pytest.mark.parametrize("bundle", find_bundles())
def test_every_process_has_the_handlers_of_the_training(bundle: str) -> None:
    """EpochLog, which comes first, is silent on all processes but the first; the others validate, seed and restore."""
    content = ConfigParser.load_config_files(config_files(bundle, "train.json", "multi_gpu_train.json"))
    assert content["train"]["handlers"][0]["_target_"] == "custom.handlers.EpochLog"
    assert not any(handler["_target_"].endswith("ProgressBar") for handler in content["train"]["handlers"])
    assert content["train"]["trainer"]["train_handlers"] == "@train#handlers"
    assert content["validate"]["evaluator"]["val_handlers"].endswith("on_first(@validate#handlers)")


CHILD = """
import os, sys, time
from custom.running.processes import end_with_parent
end_with_parent()
print(os.getpid(), flush=True)
time.sleep(600)
"""
PARENT = f"""
import sys
from custom.running.processes import run_child
try:
    sys.exit(run_child([sys.executable, "-c", {CHILD!r}]))
except KeyboardInterrupt:
    sys.exit(130)
"""


def is_running(number: int) -> bool:
    status = Path(f"/proc/{number}/status")
    return status.is_file() and "State:\tZ" not in status.read_text()


@pytest.mark.parametrize(
    ("ending", "code"),
    [(signal.SIGKILL, -9), (signal.SIGTERM, -15), (signal.SIGHUP, -1), (signal.SIGINT, 130)],
    ids=["SIGKILL", "SIGTERM", "SIGHUP", "SIGINT"],
)
def test_a_child_ends_with_its_parent(ending: signal.Signals, code: int) -> None:
    def heed() -> None:  # what nohup or a shell in the background ignores
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    call = [sys.executable, "-c", PARENT]
    with subprocess.Popen(call, cwd=ROOT, stdout=subprocess.PIPE, text=True, preexec_fn=heed) as parent:
        try:
            assert parent.stdout is not None
            child = int(parent.stdout.readline())
            assert is_running(child)
            parent.send_signal(ending)
            assert parent.wait(60) == code
            end = time.monotonic() + 60
            while ending == signal.SIGKILL and is_running(child) and time.monotonic() < end:
                time.sleep(0.05)
            assert not is_running(child)  # other signals wait for the child
        finally:
            parent.kill()


def test_the_childs_exit_code() -> None:
    script = "from custom.running.processes import end_with_parent; end_with_parent(); raise SystemExit(7)"
    assert run_child([sys.executable, "-c", script]) == 7
