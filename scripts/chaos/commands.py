"""Commands that are killed at random moments, or meet a full disk, and are then run to their end."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np

from custom.samples import brats, brats_slices, iseg, mni152
from scripts.chaos import start
from scripts.chaos.rows import Attack, Disk, fingerprint, half_written, problem_of, processes_in, size_of

SMALL = ["--roi_size", "[32,32,32]", "--samples_per_volume", 1]
MINE = "written by the user"


@dataclass(frozen=True)
class Command:
    """Words of a command for an output folder, and whether a trained run must lie there first."""

    words: Callable[[Path], list[object]]
    needs_run: bool = False
    kills: int = 5  # before it is run to its end


def make_inputs(folder: Path) -> Path:
    """Data sets of a few MB, two scans, and a trained run."""
    iseg.write(folder / "iseg", spacing=4)
    brats.write(folder / "brats", spacing=4, labelled=3)
    brats_slices.write(folder / "slices", spacing=4, labelled=3)
    template = mni152.write(folder / "mni152", spacing=4) / mni152.T1
    (folder / "scans").mkdir()
    for name in ("head", "sub-1_T1w"):
        shutil.copy(template, folder / "scans" / f"{name}.nii.gz")
    words = ["train", "iseg", "--dataset_dir", folder / "iseg", "--output_dir", folder / "run", "--max_epochs", 2]
    if start.run([*words, "--val_interval", 1, *SMALL], folder, folder / "log.txt") != 0:
        raise RuntimeError((folder / "log.txt").read_text(encoding="utf-8")[-3000:])
    return folder


def commands(inputs: Path) -> dict[str, Command]:
    data = ["--dataset_dir", inputs / "iseg"]
    short = ["--val_interval", 1, *SMALL]

    def on_run(name: str, *more: object) -> Command:
        return Command(lambda out: [name, "iseg", *data, *more, "--output_dir", out / "run"], needs_run=True)

    return {
        "sample": Command(lambda out: ["sample", "iseg", out / "iseg", "--spacing", 4]),
        "prepare": Command(lambda out: ["prepare", "brats_slices", inputs / "slices", "--output_dir", out / "slices"]),
        "segment": Command(lambda out: ["segment", inputs / "scans", "--output_dir", out / "seg", "--device", "cpu"]),
        "train": Command(
            lambda out: ["train", "iseg", *data, "--output_dir", out, "--max_epochs", 3, *short, "--resume", "True"]
        ),
        "evaluate": on_run("evaluate"),
        "infer": on_run("infer", "--split", "unlabelled"),
        "export": Command(lambda out: ["export", "iseg", "--output_dir", out / "run"], needs_run=True),
        "pack": Command(lambda out: ["pack", "iseg", "--output_dir", out / "run"], needs_run=True),
        "report": on_run("report"),
        "baseline": Command(
            lambda out: ["baseline", "brats_mri_tumor", "--dataset_dir", inputs / "brats", "--output_dir", out / "base"]
        ),
        "compare": Command(
            lambda out: ["compare", "iseg", *data, "--output_dir", out / "compare", "--max_epochs", 2, *short], kills=3
        ),
        "quickstart": Command(lambda out: ["quickstart", out / "quickstart", "--max_epochs", 1], kills=4),
    }


class Kills(Attack):
    """Kills one command again and again; after some kills it must end as if nothing had happened."""

    def __init__(self, name: str, command: Command, inputs: Path, work: Path, rng: random.Random) -> None:
        super().__init__(f"kill {name}", work, rng)
        self.command, self.inputs, self.rounds, self.left = command, inputs, 0, 0
        self.folder = self.log = self.work
        self.seconds, self.before, self.after = 0.0, 0, 0
        self.reference: dict[str, object] = {}

    def set_up(self, folder: Path) -> None:
        """What lies in a user's output folder before the command runs."""
        folder.mkdir(exist_ok=True)
        if self.command.needs_run:
            shutil.copytree(self.inputs / "run", folder / "run")
        (folder / "notes.txt").write_text(MINE)
        if self.row.name == "kill segment":
            (folder / "seg").mkdir()
            corrected = nibabel.Nifti1Image(np.full((5, 5, 5), 7, np.uint8), np.eye(4))
            nibabel.save(corrected, folder / "seg" / "head_seg.nii.gz")

    def measure(self) -> None:
        """One run without a fault: its results, duration and size."""
        if self.reference:
            return
        folder = self.work / "whole"
        self.set_up(folder)
        self.before, began = size_of(folder), time.monotonic()
        if (code := start.run(self.command.words(folder), self.work, self.work / "whole.txt")) != 0:
            self.row.other.append(f"exit code {code} without a fault, see {self.work}/whole.txt")
        self.seconds, self.after = time.monotonic() - began, size_of(folder)
        self.reference = fingerprint(folder)

    def once(self) -> None:
        self.measure()
        if self.folder == self.work:
            self.rounds += 1
            self.folder, self.left = self.work / f"round{self.rounds}", self.command.kills
            self.log = self.work / f"round{self.rounds}.txt"
            self.set_up(self.folder)
        if self.left:
            self.left -= 1
            self._kill()
        else:
            self.finish()

    def _kill(self) -> None:
        began = time.monotonic()
        process = start.start(self.command.words(self.folder), self.work, self.log)
        process.join(self.rng.uniform(0, 1.05 * self.seconds))
        if process.exitcode is not None:
            self.left = 0  # it was quicker than the first, which read its modules from the disk
            self.seconds = time.monotonic() - began
        else:
            self.row.tried += 1
            os.kill(process.pid, self.rng.choice([signal.SIGKILL] * 4 + [signal.SIGTERM]))
            process.join(60)
            if process.exitcode is None:
                self.row.other.append(f"did not end within 60 s, see {self.log}")
                process.kill()
        self._check()

    def _check(self) -> None:
        end = time.monotonic() + 20
        while (living := processes_in(self.folder)) and time.monotonic() < end:
            time.sleep(0.1)
        for number in living:
            self.row.other.append(f"process {number} goes on without its parent")
            os.kill(number, signal.SIGKILL)
        self.row.half_written += half_written(self.folder)
        if self.row.half_written:
            self.left = 0
        self.row.lost += lost_files(self.folder, self.row.name == "kill segment")

    def finish(self) -> None:
        """Runs the command to its end in the folder of the kills, and compares."""
        if self.folder == self.work:
            return
        self.row.lost += differences(self.command, self.folder, self.work, self.log, self.reference)
        left = [path.name for path in self.folder.rglob(".partial-*")]
        self.row.other += [f"{name} was left in {self.folder}" for name in left]
        self._check()
        if not self.row.faults():
            shutil.rmtree(self.folder)
        self.folder = self.work
        self.row.notes = [f"{self.rounds} runs ended as without kills" if not self.row.lost else "see above"]


def lost_files(folder: Path, has_label: bool) -> list[str]:
    """What the user made and is no more."""
    lost = [] if (folder / "notes.txt").read_text() == MINE else [f"{folder}/notes.txt"]
    whole = [path for path in folder.rglob("head_seg.nii.gz") if not problem_of(path)]
    labels = [path for path in whole if nibabel.load(path).shape == (5, 5, 5)]
    return lost + ([f"{folder}: the corrected label"] if has_label and not labels else [])


def differences(command: Command, folder: Path, cwd: Path, log: Path, reference: dict[str, object]) -> list[str]:
    """Runs the command to its end: in what its results differ from the reference."""
    if (code := start.run(command.words(folder), cwd, log)) != 0:
        return [f"exit code {code} of the last run in {folder}, see {log}"]
    found = fingerprint(folder)
    return [
        f"{folder}/{name} differs" for name in sorted({*found, *reference}) if found.get(name) != reference.get(name)
    ]


class FullDisk(Attack):
    """A command on a disk that is too small: one sentence; with more space it ends as on any other disk."""

    COMMANDS = ("sample", "prepare", "segment", "train", "evaluate", "infer", "export", "pack", "baseline")

    def __init__(self, kills: dict[str, Kills], work: Path, rng: random.Random) -> None:
        super().__init__("full disk", work, rng)
        self.kills = [kills[name] for name in self.COMMANDS]
        self.full = 0

    def once(self) -> None:
        attack = self.kills[self.row.tried % len(self.kills)]
        attack.measure()
        folder, log = self.work / f"disk{self.row.tried}", self.work / f"disk{self.row.tried}.txt"
        try:
            disk = Disk(folder, 2**28)
        except RuntimeError as error:
            self.row.notes = [f"not tried: a tmpfs cannot be mounted here ({error})"]
            self.can_be_tried = False
            return
        try:
            attack.set_up(folder)
            self._fill(attack, disk, folder, log)
        finally:
            disk.close()
        self.row.tried += 1
        self.row.notes = [f"{self.full} were full"]

    def _fill(self, attack: Kills, disk: Disk, folder: Path, log: Path) -> None:
        used, needed = shutil.disk_usage(folder).used, attack.after - attack.before
        disk.grow(used + int(self.rng.uniform(0.05, 0.95) * needed) + 4096)
        code, said = start.run(attack.command.words(folder), self.work, log), log.read_text(encoding="utf-8")
        self.full += code != 0
        if code is None or "Traceback" in said or (code and "disk is full" not in said and "No space" not in said):
            self.row.other.append(f"{attack.row.name[5:]}: no plain sentence, see {log}")
        self.row.half_written += half_written(folder)
        disk.grow(2**28)
        self.row.lost += lost_files(folder, attack.row.name == "kill segment")
        self.row.lost += differences(attack.command, folder, self.work, log, attack.reference)
