"""One process at a time in a run's folder."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from custom import locks
from custom.errors import ConfigError
from tests.conftest import HOLDER, ROOT


def test_another_process_holds_the_folder(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    sentence = rf"is used by process {holder.pid} on {socket.gethostname()}\. Wait until it ends, or use another"
    with pytest.raises(ConfigError, match=sentence), locks.run_locked(tmp_path):
        raise AssertionError("two processes in one folder")
    assert not locks.take(tmp_path / ".lock")
    holder.communicate("\n")
    assert list(tmp_path.iterdir()) == []
    with locks.run_locked(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_holds_nothing(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / ".lock").is_file()
    with locks.run_locked(tmp_path):
        assert (tmp_path / ".lock").is_file()
    assert list(tmp_path.iterdir()) == []


def test_a_process_may_take_a_lock_twice(tmp_path: Path) -> None:
    path = tmp_path / "new" / ".lock"
    assert locks.take(path)
    assert locks.take(path)
    locks.release(path)
    call = [sys.executable, "-c", HOLDER, str(path.parent)]
    other = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "is used by process" in other.stderr
    locks.release(path)
    locks.release(path)  # it is not held any more
    assert not path.exists()
