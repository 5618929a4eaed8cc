"""Kills, full disks, several processes, and names of any bytes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas
import pytest

from custom.checkpoints.record import sha256_of
from custom.commands.segment import segment
from custom.commands.segment_jobs import Options
from custom.datasets import brats_slices
from custom.datasets.near_duplicates import hashes
from custom.errors import DataError, WriteError
from custom.reading.containers import files_of
from custom.reading.scans import find_scans
from custom.running import Predictor, log
from custom.samples import mni152
from custom.transforms import KeepOnDiskd
from tests.conftest import ROOT, Brainmri
from tests.kills import killed_everywhere


def scans_of(folder: Path, scan: Path, *names: bytes) -> Path:
    folder.mkdir()
    for name in names:
        shutil.copy(scan, folder / os.fsdecode(name))
    return folder


class Canned:
    """A predictor that has segmented its one scan already."""

    def __init__(self, predictor: Predictor, scan: Path) -> None:
        self.predictor, self.item, self.sha256 = predictor, predictor([scan], None), predictor.sha256

    def __call__(self, *_: Any, **__: Any) -> dict[str, Any]:
        return dict(self.item)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.predictor, name)


def test_a_kill_loses_no_label_of_segment(
    predictor: Predictor,
    mni152_dir: Path,
    tmp_path: Path,
) -> None:
    """A label that was corrected, then segmented anew with other weights: there is a whole one at every moment."""
    scan, label, record = (
        mni152_dir / mni152.T1,
        *(tmp_path / f"sub-mni152_desc-T1w_dseg.{end}" for end in ("nii.gz", "json")),
    )
    canned, states = Canned(predictor, scan), []
    canned.sha256 = "other weights"
    assert segment(canned, [str(scan)], tmp_path, Options(["tissues", "structures"], figure=False)) == 0
    label.write_bytes(b"corrected by hand")
    canned.sha256 = predictor.sha256

    def check() -> None:
        corrected = label.read_bytes() == b"corrected by hand"
        states.append("corrected" if corrected else "new")
        if not corrected:
            assert np.asarray(nibabel.load(label).dataobj).max() == 3
            assert b"corrected by hand" in [path.read_bytes() for path in tmp_path.glob(f"earlier/*/{label.name}")]
        if record.is_file():
            weights = json.loads(record.read_text())["weights_sha256"]
            assert weights == ("other weights" if corrected else predictor.sha256)

    work = lambda: segment(canned, [str(scan)], tmp_path, Options(figure=False))  # noqa: E731
    assert killed_everywhere(work, tmp_path, check) > 20
    assert [states[0], states[-1]] == ["corrected", "new"]
    assert record.is_file()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {label.name, record.name, label.name.replace("nii.gz", "tsv"), "volumes.csv", "earlier"}


@pytest.mark.slow
def test_two_processes_share_the_scans(mni152_dir: Path, start_brainmri: Callable, tmp_path: Path) -> None:
    scans_of(tmp_path / "scans", mni152_dir / mni152.T1, b"a.nii.gz", b"b.nii.gz", b"c.nii.gz")
    said = [[tmp_path / f"{name}{number}" for name in ("out", "err")] for number in range(2)]
    words = ["segment", "scans", "--output_dir", "results", "--device", "cpu"]
    processes = [start_brainmri(words, tmp_path, *files) for files in said]
    for process in processes:
        process.join(600)
    assert [process.exitcode for process in processes] == [0, 0], [files[1].read_text() for files in said]
    lines = [line for files in said for line in files[0].read_text().splitlines()]
    assert sum("expected Dice" in line for line in lines) == 3  # each is segmented once
    assert sum("done already" in line for line in lines) == 3  # and each process has seen all
    names = {path.name for path in (tmp_path / "results").iterdir()}
    assert names == {"run.log", "volumes.csv"} | {f"{name}_seg.{end}" for name in "abc" for end in ENDS}
    assert pandas.read_csv(tmp_path / "results/volumes.csv")["scan"].nunique() == 3


ENDS = ("nii.gz", "tsv", "png", "json")


@pytest.mark.slow
def test_names_of_any_bytes_and_pipes(mni152_dir: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    names = (b"caf\xe9.nii.gz", "ä$^{$.nii.gz".encode())
    os.mkfifo(scans_of(tmp_path / "scans", mni152_dir / mni152.T1, *names) / "pipe.nii.gz")
    result = brainmri("segment", "scans", "--output_dir", "out", "--device", "cpu", cwd=tmp_path)
    assert result.returncode == 1
    assert f"1 of 3 scans failed:\npipe.nii.gz: {tmp_path}/scans/pipe.nii.gz is a pipe or a device" in result.stderr
    assert "Traceback" not in result.stderr
    made = {os.fsencode(path.name) for path in (tmp_path / "out").iterdir()}
    assert {name.replace(b".nii.gz", b"_seg.png") for name in names} < made
    assert pandas.read_csv(tmp_path / "out/volumes.csv")["scan"].nunique() == 2
    assert "caf" in (tmp_path / "out/run.log").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_full_disk_hides_no_failures(mni152_dir: Path, brainmri: Brainmri, small_disk: Path, tmp_path: Path) -> None:
    scans_of(tmp_path / "scans", mni152_dir / mni152.T1, b"a.nii.gz", b"b.nii.gz")
    with (small_disk / "filled").open("wb") as file:
        file.write(bytes(4 * 2**20 - 100_000))
    result = brainmri("segment", "scans", "--output_dir", small_disk / "out", "--device", "cpu", cwd=tmp_path)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    failed = [line for line in result.stderr.splitlines() if "because the disk is full. Free some space" in line]
    assert failed[-2:][0].startswith(("a.nii.gz: ", "b.nii.gz: "))
    assert not list(small_disk.rglob(".partial-*"))


def test_prepare_on_a_full_disk(brats_slices_dir: Path, small_disk: Path) -> None:
    with pytest.raises(WriteError, match=r"npy could not be written, because the disk is full\. Free some space"):
        brats_slices.prepare(brats_slices_dir, small_disk / "out")
    assert not list(small_disk.rglob(".partial-*"))
    assert not (small_disk / "out/prepared.json").exists()


def test_prepare_after_a_kill(brats_slices_dir: Path, tmp_path: Path) -> None:
    """The first file was not whole yet."""
    (tmp_path / ".partial-plan.json").write_text("{")
    assert brats_slices.prepare(brats_slices_dir, tmp_path) == tmp_path
    assert (tmp_path / "prepared.json").is_file()


def test_prepare_with_an_empty_plan(brats_slices_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.json").touch()
    with pytest.raises(DataError, match=r"plan\.json is no JSON file .* Delete it, or use another folder"):
        brats_slices.prepare(brats_slices_dir, tmp_path)


@pytest.mark.parametrize("lists", [{"a": "a.txt"}, {"a": "b.txt", "b": "c.txt", "c": "./a.txt"}])
def test_a_list_that_names_itself(lists: dict[str, str], tmp_path: Path) -> None:
    for name, content in lists.items():
        (tmp_path / f"{name}.txt").write_text(f"{content}\n")
    with pytest.raises(DataError, match=r"a\.txt names itself, directly or by another list\. Remove that line"):
        find_scans(tmp_path / "a.txt")


def test_a_list_with_names_of_any_bytes(tmp_path: Path) -> None:
    scan = tmp_path / os.fsdecode(b"caf\xe9.nii")
    scan.touch()
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.nii\n")
    assert [path for path, _ in find_scans(tmp_path / "list.txt")] == [scan]


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_no_file(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    make(path)
    for read in (find_scans, files_of):
        with pytest.raises(DataError, match=r"x\.nii\.gz is a pipe or a device, and no file\. Leave it out"):
            read(path)


@pytest.mark.parametrize("words", [("segment", "n" * 300 + ".nii"), ("sample", "iseg", "n" * 300)])
def test_a_long_name_is_one_sentence(words: tuple[str, ...], brainmri: Brainmri, tmp_path: Path) -> None:
    result = brainmri(*words, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].endswith("is too long for the file system. Use a shorter one.")
    assert "Traceback" not in result.stderr


def same_size_and_time(path: Path, change: Callable[[], None]) -> None:
    status = path.stat()
    change()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)


def test_a_change_is_seen_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("one")
    first = sha256_of(path)
    same_size_and_time(path, lambda: path.write_text("two") and None)
    assert sha256_of(path) != first


def test_kept_preprocessing_of_a_changed_scan(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.zeros(3))
    keep = KeepOnDiskd([ReadArray()], tmp_path / "cache")
    assert keep({"image": str(path)})["image"].tolist() == [0, 0, 0]
    same_size_and_time(path, lambda: np.save(path, np.ones(3)))
    assert keep({"image": str(path)})["image"].tolist() == [1, 1, 1]


class ReadArray:
    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        return {"image": np.load(item["image"])}


def test_hashes_of_a_changed_image(tumor_images_dir: Path, tmp_path: Path) -> None:
    images = sorted(tumor_images_dir.rglob("*.jpg"))
    folder = tmp_path / "images"
    folder.mkdir()
    size = max(images[0].stat().st_size, images[-1].stat().st_size)
    first, other = (image.read_bytes().ljust(size, b"\0") for image in (images[0], images[-1]))
    (folder / "x.jpg").write_bytes(first)
    before, _ = hashes(folder, ["x.jpg"], tmp_path / "cache")
    same_size_and_time(folder / "x.jpg", lambda: (folder / "x.jpg").write_bytes(other) and None)
    after, _ = hashes(folder, ["x.jpg"], tmp_path / "cache")
    assert before != after


def test_the_log_takes_names_of_any_bytes(tmp_path: Path, capfdbinary: pytest.CaptureFixture) -> None:
    with log.run_log(tmp_path):
        print(os.fsdecode(b"caf\xe9"))
    assert "caf\\udce9\n" in (tmp_path / "run.log").read_text(encoding="utf-8")
    assert b"caf\\udce9\n" in capfdbinary.readouterr().out


def test_a_full_disk_takes_no_log_and_stops_no_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "run.log").symlink_to("/dev/full")
    with log.run_log(tmp_path):
        print("first")
        print("second")
    assert capsys.readouterr().out == "first\nsecond\n"


def test_compare_trains_in_no_folder_of_another(
    holder: subprocess.Popen,
    tmp_path: Path,
) -> None:
    words = ["brats_mri_slice", "classic", "0", str(tmp_path), "", "{}"]
    call = [sys.executable, "-m", "custom.commands.compare", *words]
    with subprocess.Popen(call, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert f"brainmri: {tmp_path} is used by process {holder.pid} on" in process.stderr.read()
    assert process.returncode == 1
