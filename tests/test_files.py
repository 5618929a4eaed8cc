"""Files that appear whole or not at all, with other processes about."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from custom.errors import DataError, WriteError, find_cause
from custom.files import keep_earlier, read_json, sample_written_whole, set_aside, written_whole
from custom.transforms.write_atomically import AtomicNibabelWriter
from tests.kills import killed_everywhere

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
    living = tmp_path / partial.name.replace(str(process.pid), "1")
    of_another_file = tmp_path / partial.name.replace("x.json", "y.json")
    sample = tmp_path / partial.name.replace("x.json", "iseg")
    sample.mkdir()
    for path in (elsewhere, living, of_another_file, sample / "T1.nii"):
        path.write_text("kept")
    with written_whole(tmp_path / "x.json") as mine:
        assert str(os.getpid()) in mine.name
        mine.write_text("whole")
    assert (tmp_path / "x.json").read_text() == "whole"
    assert {path.name for path in tmp_path.iterdir()} == {"x.json", elsewhere.name, living.name}


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


def contents(folder: Path) -> dict[str, str]:
    """The text of all files but hidden ones, without the times in the names of folders."""
    files = (path for path in folder.rglob("[!.]*") if path.is_file())
    return {f"{path.parent.parent.name}/{path.name}": path.read_text() for path in files}


def test_a_kill_loses_no_file_that_is_replaced(tmp_path: Path) -> None:
    """The name always has a whole file, and the old file is kept before it loses its name."""
    target = tmp_path / "label.txt"
    target.write_text("old")
    os.utime(target, (1e9, 1e9))
    seen = []

    def save() -> None:
        with written_whole(target, keep_old=True) as partial:
            partial.write_text("new")

    def check() -> None:
        seen.append(target.read_text())
        assert seen[-1] in ("old", "new")
        assert seen[-1] == "old" or "old" in [path.read_text() for path in tmp_path.glob("earlier/*/label.txt")]

    assert killed_everywhere(save, tmp_path, check) > 4
    assert [seen[0], seen[-1]] == ["old", "new"]
    assert {path.name for path in tmp_path.iterdir()} == {"label.txt", "earlier"}  # no part of a killed one


def test_a_kill_loses_no_label_map(tmp_path: Path) -> None:
    target, values = tmp_path / "label.nii.gz", []
    nibabel.save(nibabel.Nifti1Image(np.ones((2, 2, 2), np.uint8), np.eye(4)), target)

    def save() -> None:
        writer = AtomicNibabelWriter(output_dtype=np.uint8)
        writer.set_data_array(MetaTensor(torch.full((1, 2, 2, 2), 2.0)), channel_dim=0)
        writer.set_metadata({"affine": np.eye(4)}, resample=False)
        writer.write(target)

    def check() -> None:
        values.append(int(np.asarray(nibabel.load(target).dataobj).max()))
        kept = [np.asarray(nibabel.load(path).dataobj).max() for path in tmp_path.glob("earlier/*/label.nii.gz")]
        assert values[-1] == 1 or 1 in kept

    assert killed_everywhere(save, tmp_path, check) > 4
    assert [values[0], values[-1]] == [1, 2]


def test_old_files_are_kept(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (1e9, 1e9))
    first = keep_earlier(tmp_path, ["a", "b", "c"])
    assert first is not None
    assert contents(tmp_path) == {f"{tmp_path.parent.name}/{name}": name for name in "ab"} | {
        f"earlier/{name}": name for name in "ab"
    }
    assert keep_earlier(tmp_path, ["a"]) == first  # it is there already
    with written_whole(tmp_path / "a") as partial:
        partial.write_text("new")
    os.utime(tmp_path / "a", (1e9, 1e9))
    assert keep_earlier(tmp_path, ["a"]) == first.with_name(f"{first.name}-2")
    assert (first / "a").read_text() == "a"
    assert set_aside(tmp_path, ["a"]) == first.with_name(f"{first.name}-2")  # the same file under its second name
    assert not (tmp_path / "a").exists()
    assert keep_earlier(tmp_path, ["a"]) is set_aside(tmp_path, []) is None


@pytest.mark.parametrize("name", ["n" * 251 + ".txt", "ä" * 125 + ".txt"])
def test_the_longest_names(name: str, tmp_path: Path) -> None:
    with written_whole(tmp_path / name) as partial:
        assert partial.name.endswith(".txt")
        partial.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long") as caught, written_whole(tmp_path / ("n" * 300)) as partial:
        partial.write_text("whole")
    sentence = f"The name {tmp_path}/{'n' * 300} is too long for the file system. Use a shorter one."
    assert str(find_cause(caught.value)) == sentence


FULL = r"could not be written, because the disk is full\. Free some space"


@pytest.mark.parametrize("library", ["python", "numpy", "torch", "nibabel"])
def test_a_full_disk(library: str, small_disk: Path) -> None:
    """Libraries raise errors of other kinds, some without the system's number."""
    values = np.arange(2_000_000, dtype=np.uint32).reshape(200, 100, 100)
    save = {
        "python": lambda path: path.write_bytes(values.tobytes()),
        "numpy": lambda path: np.save(path.open("wb"), values),
        "torch": lambda path: torch.save(torch.as_tensor(values), path),
        "nibabel": lambda path: nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path),
    }[library]
    with pytest.raises(WriteError, match=FULL), written_whole(small_disk / "x.nii") as partial:
        save(partial)
    assert list(small_disk.iterdir()) == []
    with pytest.raises(WriteError, match=FULL), sample_written_whole(small_disk / "sample", {}) as folder:
        save(folder / "x.nii")
    assert list(small_disk.iterdir()) == []


def test_the_system_says_that_a_disk_is_full() -> None:
    with pytest.raises(OSError, match="No space") as caught, Path("/dev/full").open("w") as file:
        file.write("x")
    assert caught.value.errno == errno.ENOSPC
    assert str(find_cause(caught.value)).startswith("A file could not be written, because the disk is full.")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff"])
def test_json_files_that_are_cut_short(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(DataError, match=r"plan\.json is no JSON file \(.*\)\. Delete it, or use another folder"):
        read_json(tmp_path / "plan.json")
