"""Files that promise more than a machine has, or are no files: one sentence, little memory, no long wait."""

from __future__ import annotations

import gzip
import json
import os
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path

from scripts.chaos import start
from scripts.chaos.rows import Attack

SECONDS, MEGABYTES = 120, 3000


def nifti(shape: tuple[int, ...], datatype: int = 64, bits: int = 64, size: float = 1.0) -> bytes:
    """A NIfTI-1 header, and no voxels."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    struct.pack_into("<2h", header, 70, datatype, bits)
    struct.pack_into("<8f", header, 76, 1, *[size] * 7)
    struct.pack_into("<f", header, 108, 352)
    struct.pack_into("<2h", header, 252, 0, 1)
    for row in range(3):
        struct.pack_into("<4f", header, 280 + 16 * row, *[size if column == row else 0 for column in range(4)])
    header[344:348] = b"n+1\0"
    return bytes(header)


def zeros(path: Path, header: bytes, n: int) -> None:
    """A small file that unpacks to n bytes of zeros."""
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(header)
        block = bytes(2**20)
        for _ in range(n // 2**20):
            file.write(block)


def huge_header(folder: Path, rng: random.Random) -> list[object]:
    shape = tuple(rng.choice([2000, 20_000, 32_767]) for _ in range(3))
    (folder / "x.nii").write_bytes(nifti(shape) + bytes(1000))
    return ["segment", folder / "x.nii"]


def packed_zeros(folder: Path, rng: random.Random) -> list[object]:
    n = rng.choice([1000, 1300])
    size = rng.choice([0.2, 0.45])  # a head of 0.2 mm voxels; no impossible extent
    zeros(folder / "x.nii.gz", nifti((n, n, n), 2, 8, size), n**3)
    return ["segment", folder / "x.nii.gz"]


def cut_packed(folder: Path, rng: random.Random) -> list[object]:
    zeros(folder / "x.nii.gz", nifti((700, 700, 700), 16, 32, 0.3), rng.randrange(2**20, 2**26))
    return ["segment", folder / "x.nii.gz"]


def odd_numbers(folder: Path, rng: random.Random) -> list[object]:
    header = bytearray(nifti((60, 60, 60), 2, 8))
    offset, value = rng.choice([(40, b"\xff\xff"), (42, b"\xff\xff"), (70, b"\xff\x7f"), (108, b"\0\0\x80\x7f")])
    header[offset : offset + len(value)] = value
    (folder / "x.nii").write_bytes(bytes(header) + bytes(60**3))
    return ["segment", folder / "x.nii"]


def huge_nrrd(folder: Path, rng: random.Random) -> list[object]:
    sizes = " ".join(str(rng.choice([5000, 100_000])) for _ in range(3))
    text = f"NRRD0004\ntype: double\ndimension: 3\nsizes: {sizes}\nencoding: raw\nendian: little\n\n"
    (folder / "x.nrrd").write_bytes(text.encode() + bytes(1000))
    return ["segment", folder / "x.nrrd"]


def huge_meta_image(folder: Path, rng: random.Random) -> list[object]:
    size = " ".join(str(rng.choice([5000, 100_000])) for _ in range(3))
    text = f"ObjectType = Image\nNDims = 3\nDimSize = {size}\nElementType = MET_DOUBLE\nElementDataFile = LOCAL\n"
    (folder / "x.mha").write_bytes(text.encode() + bytes(1000))
    return ["segment", folder / "x.mha"]


def huge_mgh(folder: Path, rng: random.Random) -> list[object]:
    header = struct.pack(">7i", 1, *(rng.choice([5000, 100_000]) for _ in range(3)), 1, 3, 0)
    (folder / "x.mgh").write_bytes(header + bytes(2000))
    return ["segment", folder / "x.mgh"]


def no_file(folder: Path, rng: random.Random) -> list[object]:
    if rng.random() < 0.5:
        os.mkfifo(folder / "x.nii.gz")
    else:
        (folder / "x.nii.gz").symlink_to("/dev/zero")
    return ["segment", folder if rng.random() < 0.5 else folder / "x.nii.gz"]


def list_of_itself(folder: Path, _: random.Random) -> list[object]:
    (folder / "a.txt").write_text("b.txt\n")
    (folder / "b.txt").write_text("a.txt\n")
    return ["segment", folder / "a.txt"]


def long_name(folder: Path, rng: random.Random) -> list[object]:
    return ["segment", folder / ("n" * rng.randrange(256, 4000))]


def nested_json(folder: Path, rng: random.Random) -> list[object]:
    depth = rng.choice([2000, 100_000])
    (folder / "dataset.json").write_text('{"training": ' + "[" * depth + "]" * depth + "}")
    return ["verify", "msd", folder]


def large_json(folder: Path, rng: random.Random) -> list[object]:
    number = rng.randrange(10_000, 100_000)
    training = [{"image": f"./{i}.nii.gz", "label": f"./{i}.nii.gz"} for i in range(number)]
    (folder / "dataset.json").write_text(json.dumps({"labels": {"0": "background"}, "training": training}))
    return ["verify", "msd", folder]


BOMBS: list[Callable[[Path, random.Random], list[object]]] = [
    huge_header, packed_zeros, cut_packed, odd_numbers, huge_nrrd, huge_meta_image, huge_mgh, no_file, list_of_itself,
    long_name, nested_json, large_json,
]  # fmt: skip


class Bombs(Attack):
    def __init__(self, work: Path, rng: random.Random) -> None:
        super().__init__("bombs", work, rng)
        self.longest, self.largest = 0.0, 0

    def once(self) -> None:
        make = BOMBS[self.row.tried % len(BOMBS)]
        folder, log = self.work / f"bomb{self.row.tried}", self.work / f"bomb{self.row.tried}.txt"
        folder.mkdir()
        words = make(folder, self.rng)
        out = ["--output_dir", folder / "out", "--device", "cpu"] if words[0] == "segment" else []
        began = time.monotonic()
        code = start.run([*words, *out], folder, log, SECONDS)
        seconds, memory = time.monotonic() - began, start.memory_of(log)
        self.row.tried += 1
        self.longest, self.largest = max(self.longest, seconds), max(self.largest, memory)
        said = log.read_text(encoding="utf-8")
        if code is None or code <= 0 or "Traceback" in said or memory > MEGABYTES:
            what = "no end" if code is None else f"exit code {code}, {memory} MB, {seconds:.0f} s"
            self.row.other.append(f"{make.__name__}: {what}, see {log}")
        self.row.notes = [f"longest {self.longest:.1f} s, largest memory {self.largest} MB"]
