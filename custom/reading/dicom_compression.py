"""How the pixels of a DICOM file are compressed, and what of it GDCM, which reads them, can and cannot decode.

Source: DICOM PS3.5, A.4 (encapsulated pixels) and G (RLE); PS3.6, A (names of transfer syntaxes).
"""

from __future__ import annotations

import struct
from pathlib import Path

from custom.errors import DataError
from custom.reading.dicom_header import BITS, SAMPLES, SYNTAX, DicomHeader

RLE = "1.2.840.10008.1.2.5"
_ROOT = "1.2.840.10008.1.2."
# What GDCM decodes; tests/test_dicom.py and tests/label/test_dicom_objects.py try the lossless ones.
DECODED = {"", _ROOT.rstrip("."), *(_ROOT + end for end in ("1", "1.99", "2", "4.50", "4.51", "4.57", "4.70"))}
DECODED |= {RLE, "1.2.840.113619.5.2", *(_ROOT + end for end in ("4.80", "4.81", "4.90", "4.91"))}
NAMES = {
    "1.98": "encapsulated pixels", "8.1": "deflated frames",
    "4.92": "JPEG 2000 Part 2", "4.93": "JPEG 2000 Part 2", "4.94": "JPIP", "4.95": "JPIP",
    "4.100": "MPEG-2", "4.101": "MPEG-2", "4.102": "MPEG-4", "4.103": "MPEG-4", "4.104": "MPEG-4", "4.105": "MPEG-4",
    "4.106": "MPEG-4", "4.107": "HEVC", "4.108": "HEVC", "4.110": "JPEG XL", "4.111": "JPEG XL", "4.112": "JPEG XL",
    "4.201": "High-Throughput JPEG 2000", "4.202": "High-Throughput JPEG 2000", "4.203": "High-Throughput JPEG 2000",
    "4.204": "JPIP", "4.205": "JPIP",
}  # fmt: skip


def check_compression(header: DicomHeader) -> None:
    """Raises DataError if the pixels of a file are compressed in a way that GDCM cannot decode, or would crash on."""
    syntax = header.text(SYNTAX)
    if syntax not in DECODED:
        name = NAMES.get(syntax.removeprefix(_ROOT), "an unknown way")
        raise DataError(
            f"{header.path} is compressed by {name} (transfer syntax {syntax}), which cannot be decoded. Export the "
            "series again without compression (Explicit VR Little Endian), or as JPEG 2000 Lossless."
        )
    if syntax == RLE and header.pixels is not None and not _is_rle(header):
        raise DataError(f"{header.path} says that its pixels are RLE, but they are not. Export the file again.")


def _is_rle(header: DicomHeader) -> bool:
    """Whether each fragment begins as RLE does, with one segment for each byte of a voxel. GDCM divides by it."""
    wanted = header.integer(SAMPLES, 1) * -(-header.integer(BITS, 16) // 8)
    return all(len(start) == 64 and struct.unpack_from("<I", start)[0] == wanted for start in _fragments(header))


def _fragments(header: DicomHeader) -> list[bytes]:
    """The first 64 bytes of each fragment, without the table of offsets that comes first."""
    at, end = header.pixels or (0, 0)
    starts: list[bytes] = []
    with Path(header.path).open("rb") as file:
        while at + 8 <= end:
            file.seek(at)
            tag, length = struct.unpack("<II", file.read(8))
            if tag == 0xE0DDFFFE:  # the end of the sequence: group and number, each little endian
                break
            starts.append(file.read(min(length, 64)))
            at += 8 + length
    return starts[1:]
