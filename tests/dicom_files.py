"""DICOM files written byte by byte, so that tests can spoil whatever they want."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

SHAPE, MM = (40, 48, 24), 5.0
EXPLICIT, IMPLICIT, BIG, DEFLATED = (f"1.2.840.10008.1.2{end}" for end in (".1", "", ".2", ".1.99"))
MR, ENHANCED, REPORT = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("4", "4.1", "88.11"))
LONG = ("OB", "OW", "SQ", "UN", "UT")
UNDEFINED = 0xFFFFFFFF
Tags = dict[int, tuple[str, Any]]


def phantom() -> np.ndarray:
    """(x, y, z), uint16: a ball of two shells, other values in each octant."""
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), -1)
    radius = np.linalg.norm((grid - np.array(SHAPE) / 2) / (np.array(SHAPE) * 0.4), axis=-1)
    return (np.select([radius < 0.6, radius < 1], [800, 500], 0) + grid @ [1, 2, 3] * (radius < 1)).astype(np.uint16)


VOXELS = phantom()


def element(tag: int, kind: str, value: Any, syntax: str = EXPLICIT) -> bytes:
    """One element; the value of a sequence is a list of items, each a dictionary of tags."""
    order = ">" if syntax == BIG else "<"
    if kind == "SQ":
        items = [data_set(item, syntax) for item in value]
        head = struct.pack(f"{order}HH", 0xFFFE, 0xE000)
        content = b"".join(head + struct.pack(f"{order}I", len(item)) + item for item in items)
    elif kind in ("US", "UL", "FD"):
        content = struct.pack(order + {"US": "H", "UL": "I", "FD": "d"}[kind], value)
    elif isinstance(value, bytes):
        content = value
    else:
        content = str(value).encode()
        content += (b"\0" if kind == "UI" else b" ") * (len(content) % 2)
    head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    if syntax == IMPLICIT:
        return head + struct.pack("<I", len(content)) + content
    length = struct.pack(f"{order}HI", 0, len(content)) if kind in LONG else struct.pack(f"{order}H", len(content))
    return head + kind.encode() + length + content


def data_set(tags: Tags, syntax: str = EXPLICIT) -> bytes:
    return b"".join(element(tag, *tags[tag], syntax) for tag in sorted(tags))


def write(path: Path, tags: Tags, syntax: str = EXPLICIT, preamble: bool = True) -> Path:
    body = data_set(tags, syntax)
    if syntax == DEFLATED:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        body = packer.compress(body) + packer.flush()
    meta = element(0x00020001, "OB", b"\0\1") + element(0x00020002, "UI", tags[0x00080016][1])
    meta += element(0x00020003, "UI", tags[0x00080018][1]) + element(0x00020010, "UI", syntax)
    head = b"\0" * 128 + b"DICM" + element(0x00020000, "UL", len(meta)) + meta
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((head if preamble else b"") + body)
    return path


def slice_tags(k: int, pixels: np.ndarray | None = None, syntax: str = EXPLICIT, instance: Any = None) -> Tags:
    """The tags of slice k, which lies at z = 5 k - 60 mm; x to the left, y to the back, 5 mm each."""
    values = (VOXELS[:, :, k] if pixels is None else pixels).T.astype(">u2" if syntax == BIG else "<u2")
    return {
        0x00080008: ("CS", r"ORIGINAL\PRIMARY\M\ND"), 0x00080016: ("UI", MR),
        0x00080018: ("UI", f"1.2.3.{k + 1 if instance is None else instance}"), 0x00080060: ("CS", "MR"),
        0x00180050: ("DS", "5"), 0x00180081: ("DS", "3"), 0x0020000E: ("UI", "1.2.3"), 0x00200013: ("IS", k + 1),
        0x00200032: ("DS", rf"-100\-120\{MM * k - 60:g}"), 0x00200037: ("DS", r"1\0\0\0\1\0"),
        0x00280002: ("US", 1), 0x00280004: ("CS", "MONOCHROME2"), 0x00280010: ("US", SHAPE[1]),
        0x00280011: ("US", SHAPE[0]), 0x00280030: ("DS", r"5\5"), 0x00280100: ("US", 16), 0x00280101: ("US", 16),
        0x00280102: ("US", 15), 0x00280103: ("US", 0), 0x7FE00010: ("OW", values.tobytes()),
    }  # fmt: skip


def write_slice(path: Path, k: int, pixels: np.ndarray | None = None, **options: Any) -> Path:
    """One slice; `tags` changes some, the other options are `syntax`, `preamble` and `instance`."""
    syntax, preamble = options.get("syntax", EXPLICIT), options.get("preamble", True)
    tags = slice_tags(k, pixels, syntax, options.get("instance")) | options.get("tags", {})
    return write(path, tags, syntax, preamble)


def encapsulated(path: Path, syntax: str, fragments: list[bytes]) -> Path:
    """Puts compressed pixels, a fragment for each frame, in the place of those of a file."""
    head, mark, _ = path.read_bytes().rpartition(element(0x7FE00010, "OW", b"")[:8])
    assert mark
    old, new = (element(0x00020010, "UI", each) for each in (EXPLICIT, syntax))
    length = head[140:144]
    longer = struct.pack("<I", struct.unpack("<I", length)[0] + len(new) - len(old))
    head = head[:140] + longer + head[144:].replace(old, new, 1)
    items = b"".join(b"\xfe\xff\0\xe0" + struct.pack("<I", len(each)) + each for each in (b"", *fragments))
    path.write_bytes(head + b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff" + items + b"\xfe\xff\xdd\xe0\0\0\0\0")
    return path


def as_rle(pixels: np.ndarray) -> bytes:
    """One frame (rows, columns), uint16, as RLE: runs of equal bytes, and other bytes as they are (PS3.5, G.3)."""
    segments = []
    for plane in (pixels >> 8, pixels & 255):  # the high bytes come first
        packed = b""
        for row in plane.astype(np.uint8):
            for part in np.split(row, np.flatnonzero(np.diff(row)) + 1):
                for start in range(0, len(part), 128):
                    length = len(part[start : start + 128])
                    packed += bytes([257 - length if length > 1 else 0, part[0]])
        segments.append(packed + b"\0" * (len(packed) % 2))
    return struct.pack("<16I", 2, 64, 64 + len(segments[0]), *[0] * 13) + b"".join(segments)


def as_jpeg(pixels: np.ndarray, compressor: str, folder: Path) -> bytes:
    """One frame (rows, columns) as "JPEG" (Lossless) or "JPEG2000" (lossless), by GDCM in SimpleITK."""
    writer = SimpleITK.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.SetUseCompression(True)
    writer.SetCompressor(compressor)
    writer.SetFileName(str(folder / "frame.dcm"))
    writer.Execute(SimpleITK.GetImageFromArray(pixels))
    content = (folder / "frame.dcm").read_bytes()
    (folder / "frame.dcm").unlink()
    at = content.index(b"\xe0\x7f\x10\0OB") + 12
    at += 8 + struct.unpack_from("<I", content, at + 4)[0]  # the table of offsets
    return content[at + 8 : at + 8 + struct.unpack_from("<I", content, at + 4)[0]]


def write_series(folder: Path, name: str = "IM{:03d}", slices: range | None = None, **options: Any) -> Path:
    for k in range(SHAPE[2]) if slices is None else slices:
        write_slice(folder / name.format(k), k, **options)
    return folder


def write_enhanced(path: Path, frames: list[tuple[int, Tags]], syntax: str = EXPLICIT) -> Path:
    """A multi-frame file: for each frame the slice k that it shows, and tags of its functional groups."""
    tags = slice_tags(0, syntax=syntax)
    for tag in (0x00200032, 0x00200037, 0x00280030, 0x00180050, 0x00180081):
        del tags[tag]
    groups = []
    for k, more in frames:
        place = {0x00200032: ("DS", rf"-100\-120\{MM * k - 60:g}")}
        groups.append({0x00209113: ("SQ", [place])} | more)
    shared = {
        0x00209116: ("SQ", [{0x00200037: ("DS", r"1\0\0\0\1\0")}]),
        0x00289110: ("SQ", [{0x00180050: ("DS", "5"), 0x00280030: ("DS", r"5\5")}]),
    }
    pixels = np.stack([VOXELS[:, :, k].T for k, _ in frames]).astype("<u2")
    tags |= {
        0x00080016: ("UI", ENHANCED), 0x00280008: ("IS", len(frames)), 0x52009229: ("SQ", [shared]),
        0x52009230: ("SQ", groups), 0x7FE00010: ("OW", pixels.tobytes()),
    }  # fmt: skip
    return write(path, tags, syntax)
