"""What the attacks of one row found, and the checks that they share."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas
import torch
from PIL import Image

from custom.checkpoints.load import load_checkpoint

APPENDED = ("run.log", "events.out.tfevents")  # these are written line by line, not whole

WITH_PLACES_OR_TIMES = ("volumes.csv", "comparison.csv")


@dataclass
class Row:
    """A line of the table."""

    name: str
    tried: int = 0
    lost: list[str] = field(default_factory=list)
    half_written: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        cells = [self.name, self.tried, *map(len, (self.lost, self.half_written, self.other)), "; ".join(self.notes)]
        return f"| {' | '.join(map(str, cells))} |"

    def faults(self) -> list[str]:
        kinds = {"lost": self.lost, "half-written": self.half_written, "other": self.other}
        return [f"{self.name}: {kind}: {text}" for kind, texts in kinds.items() for text in texts]


class Attack:
    """One row's attacks: `once` is called until the time is over, and until something was tried."""

    can_be_tried = True  # on this machine

    def __init__(self, name: str, work: Path, rng: random.Random) -> None:
        self.row, self.work, self.rng = Row(name), work / name.replace(" ", "_"), rng
        self.work.mkdir(parents=True)

    def once(self) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        """What is left to do when the time is over."""


HEAD = "| what | tried | lost | half-written | other faults | notes |\n|---|---|---|---|---|---|"


def files(folder: Path, hidden: bool = False) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and (hidden or not any(part[0] == "." for part in path.relative_to(folder).parts)):
            yield path


def problem_of(path: Path) -> str:
    """Why a file is not whole; "" if it is, or if nothing is known about its format."""
    try:
        if path.stat().st_size == 0:
            return "is empty"
        if path.name.endswith((".nii.gz", ".nii", ".hdr")):
            np.asarray(nibabel.load(path).dataobj)
        elif path.suffix == ".pt":
            load_checkpoint(path)
        elif path.suffix == ".ts":
            torch.jit.load(path)
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix in (".csv", ".tsv"):
            pandas.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",")
        elif path.suffix in (".png", ".gif"):
            with Image.open(path) as image:
                image.load()
        elif path.suffix == ".zip":
            return zipfile.ZipFile(path).testzip() or ""
        elif path.suffix == ".npy":
            np.load(path)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def half_written(folder: Path) -> list[str]:
    checked = (path for path in files(folder) if not path.name.startswith(APPENDED) and path.suffix != ".txt")
    return [f"{path}: {problem}" for path in checked if (problem := problem_of(path))]


def content(path: Path) -> Any:
    """What must be equal in two runs; None for files that hold times or paths."""
    if path.name.endswith((".nii.gz", ".nii", ".hdr")):
        return hashlib.sha256(np.ascontiguousarray(nibabel.load(path).dataobj).tobytes()).hexdigest()
    if path.suffix == ".pt":
        return _digest(load_checkpoint(path))
    if path.suffix in (".csv", ".tsv", ".npy") and path.name not in WITH_PLACES_OR_TIMES:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return None


def _digest(state: Any) -> str:
    if isinstance(state, dict):
        return repr([(name, _digest(value)) for name, value in state.items()])
    return hashlib.sha256(state.cpu().numpy().tobytes()).hexdigest() if torch.is_tensor(state) else repr(state)


def fingerprint(folder: Path) -> dict[str, Any]:
    """{path: content} of all results; what was moved to earlier/ is left out."""
    own = (path for path in files(folder) if "earlier" not in path.relative_to(folder).parts)
    return {str(path.relative_to(folder)): content(path) for path in own if not path.name.startswith(APPENDED)}


def size_of(folder: Path) -> int:
    """Bytes on a disk with pages of 4 kB."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in files(folder, hidden=True))


def processes_in(folder: Path) -> list[int]:
    """Living processes whose command line names a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line, status = (entry / "cmdline").read_bytes(), (entry / "status").read_text()
            except OSError:
                continue
            if os.fsencode(folder) in line and "State:\tZ" not in status:
                found.append(int(entry.name))
    return found


class Disk:
    """A tmpfs of some bytes. Raises RuntimeError where none can be mounted."""

    def __init__(self, folder: Path, size: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._mount("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)

    def grow(self, size: int) -> None:
        self._mount("mount", "-o", f"remount,size={size}", self.folder)

    def close(self) -> None:
        self._mount("umount", "--lazy", self.folder)

    def _mount(self, *words: object) -> None:
        try:
            done = subprocess.run(list(map(str, words)), check=False, capture_output=True, text=True)
        except OSError as error:
            raise RuntimeError(str(error)) from error
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
