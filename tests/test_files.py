"""Files that appear whole or not at all, with other processes about."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from custom.files import written_whole

ROOT = Path(__file__).parents[1]
SIZE = 300_000
WRITER = """
import sys
from custom.files import written_whole
for _ in range(40):
    with written_whole(sys.argv[1]) as partial, partial.open("w") as file:
        for _ in range(3):
            file.write(sys.argv[2] * 100_000)
            file.flush()
"""
HALF = """
import os, sys
from custom.files import written_whole
with written_whole(sys.argv[1]) as partial:
    partial.write_text("half of a")
    print(partial.name, flush=True)
    sys.stdin.readline()
    partial.write_text("all of it")
"""


def start(code: str, *words: object) -> subprocess.Popen[str]:
    call = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(call, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")


@pytest.fixture
def halfway(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that writes to x.json, has written one half and waits for a line; and its temporary file."""
    with start(HALF, tmp_path / "x.json") as process:
        assert process.stdout is not None
        yield process, tmp_path / process.stdout.readline().strip()
        process.kill()


def test_two_processes_write_one_file(tmp_path: Path) -> None:
    target, seen = tmp_path / "x.txt", set()
    writers = [start(WRITER, target, letter) for letter in "ab"]
    while any(writer.poll() is None for writer in writers):
        if target.is_file():
            seen.add(target.read_text())
    assert [writer.communicate() and writer.returncode for writer in writers] == [0, 0]
    assert seen | {target.read_text()} <= {"a" * SIZE, "b" * SIZE}
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


def test_what_a_killed_process_left_is_removed(halfway: tuple[subprocess.Popen[str], Path], tmp_path: Path) -> None:
    process, partial = halfway
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert partial.read_text() == "half of a"
    elsewhere = tmp_path / f".partial-other-{socket.gethostname()}.pid{process.pid}-x.json"
    of_another_file = tmp_path / f".partial-{socket.gethostname()}.pid{process.pid}-y.json"
    for path in (elsewhere, of_another_file):
        path.write_text("kept")
    with written_whole(tmp_path / "x.json") as mine:
        assert str(os.getpid()) in mine.name
        mine.write_text("whole")
    assert (tmp_path / "x.json").read_text() == "whole"
    assert {path.name for path in tmp_path.iterdir()} == {"x.json", elsewhere.name, of_another_file.name}


def test_what_a_living_process_writes_stays(halfway: tuple[subprocess.Popen[str], Path], tmp_path: Path) -> None:
    process, partial = halfway
    with written_whole(tmp_path / "x.json") as mine:
        mine.write_text("whole")
    assert partial.read_text() == "half of a"
    assert (tmp_path / "x.json").read_text() == "whole"
    process.communicate("\n")
    assert process.returncode == 0
    assert (tmp_path / "x.json").read_text() == "all of it"
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_failed_block_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("old")

    def fail() -> None:
        with written_whole(tmp_path / "x.json") as partial:
            partial.write_text("half")
            raise OSError("No space")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x.json": "old"}
