"""A scan's size and extent are checked in its header, before its voxels take memory."""

from __future__ import annotations

import gzip
import math
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from custom.errors import ConfigError, DataError, find_cause
from custom.reading.limits import MAX_VOXELS, check_size
from custom.reading.scans import read_scan
from custom.reading.volumes import open_volume, read_problem


def write_header(path: Path, shape: tuple[int, ...], mm: float = 1.0) -> Path:
    """A .nii.gz with zeros for the voxels of this shape, and the length that its header promises."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(shape)
    header.set_sform(np.diag([mm, mm, mm, 1]), 1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    with gzip.open(path, "wb", compresslevel=6) as file:
        file.write(header.binaryblock + bytes(4 + math.prod(shape)))
    return path


def write_nrrd(path: Path, shape: tuple[int, ...], mm: float = 1.0) -> Path:
    """The same as NRRD; ITK reads the voxels later than the header."""
    lines = ["NRRD0004", "type: uchar", f"dimension: {len(shape)}", f"sizes: {' '.join(map(str, shape))}"]
    lines += ["space: left-posterior-superior", f"space directions: ({mm},0,0) (0,{mm},0) (0,0,{mm})"]
    content = gzip.compress(bytes(math.prod(shape)), 6)
    path.write_bytes("\n".join([*lines, "encoding: gzip", "", ""]).encode() + content)
    return path


@pytest.mark.parametrize(("write", "name"), [(write_header, "a.nii.gz"), (write_nrrd, "a.nrrd")])
def test_too_many_voxels(write: object, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MAX_VOXELS, "1000000")
    path = write(tmp_path / name, (100, 100, 101))  # type: ignore[operator]
    sentence = (
        r"a\.\w+(\.gz)? has 100x100x101 voxels, 1\.01 million; the limit is 1 million\. Resample it, or set the "
        "environment variable BRAINMRI_MAX_VOXELS"
    )
    for read in (read_scan, open_volume):
        with pytest.raises(DataError, match=sentence):
            read(path)
    assert "1.01 million" in str(read_problem(path))
    monkeypatch.setenv(MAX_VOXELS, "1010000")
    with pytest.raises(DataError, match="holds the value 0 everywhere"):  # it is read now
        read_scan(path)


@pytest.mark.parametrize(("write", "name"), [(write_header, "a.nii.gz"), (write_nrrd, "a.nrrd")])
def test_an_extent_is_refused_before_the_voxels_are_read(write: object, name: str, tmp_path: Path) -> None:
    """A file of 700 x 60 x 60 mm that is also cut short: its extent is what the user reads."""
    path = write(tmp_path / name, (700, 60, 60))  # type: ignore[operator]
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match="spans 700 x 60 x 60 mm, which no scan of a head does"):
        read_scan(path)


@pytest.mark.parametrize("shape", [(512, 512, 400), (512, 512, 512), (384, 512, 512)])
def test_heads_at_half_a_millimetre_pass(shape: tuple[int, int, int]) -> None:
    check_size(Path("a.nii.gz"), shape)


def test_the_default_limit() -> None:
    with pytest.raises(DataError, match="has 600x600x600 voxels, 216 million; the limit is 150 million"):
        check_size(Path("a.nii.gz"), (600, 600, 600))


@pytest.mark.parametrize("given", ["x", "0", "-1", "1.5"])
def test_a_limit_that_is_no_number(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MAX_VOXELS, given)
    with pytest.raises(ConfigError, match=f"BRAINMRI_MAX_VOXELS must be a whole number above 0, got '{given}'"):
        check_size(Path("a.nii.gz"), (2, 2, 2))


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process's memory are those of Linux")
def test_too_little_memory_is_said(tmp_path: Path) -> None:
    path = write_header(tmp_path / "a.nii.gz", (400, 400, 300), 0.6)
    words = (
        "import resource, sys; from custom.errors import DataError; from custom.reading.scans import read_scan\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 60 * 2**20,) * 2)\n"
        "try:\n    read_scan(sys.argv[1])\nexcept DataError as error:\n    print(error)"
    )
    result = subprocess.run([sys.executable, "-c", words, path], capture_output=True, encoding="utf-8", check=True)
    assert result.stdout.startswith(f"There is not enough memory to read {path} (")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
)
def test_missing_memory_anywhere_is_a_sentence(error: Exception) -> None:
    assert str(find_cause(error)).startswith("The memory is not enough (")
    assert find_cause(RuntimeError("shape mismatch")) is None
