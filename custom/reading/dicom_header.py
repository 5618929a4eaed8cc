"""The header of one DICOM file, and whether the file is whole.

ITK reads the pixels, but it silently drops files that were cut short, and it hides the functional groups of an enhanced
file, which hold the place of each frame. Source: DICOM PS3.5, sections 7 (data set) and A (transfer syntaxes).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from custom.errors import DataError
from custom.reading.limits import max_voxels

UNDEFINED = 0xFFFFFFFF  # the length of what ends with a delimiter
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
SHORT = {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL"}
SHORT |= {b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
PIXELS = (0x7FE00010, 0x7FE00008, 0x7FE00009)
SHARED_GROUPS, FRAME_GROUPS = 0x52009229, 0x52009230
SYNTAX, SERIES, INSTANCE, SOP_CLASS, META_CLASS = 0x00020010, 0x0020000E, 0x00080018, 0x00080016, 0x00020002
ROWS, COLUMNS, FRAMES, SAMPLES, BITS = 0x00280010, 0x00280011, 0x00280008, 0x00280002, 0x00280100
HEADER_BYTES = 2**26  # of a deflated file, beside its voxels: at most
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
# Reports, presentation states, waveforms, spectra and the like have no pixels. Source: DICOM PS3.4, B.5.
STORAGE = "1.2.840.10008.5.1.4.1.1."
NO_PIXELS = ("4.2", "9.", "11.", "66", "67", "88.", "104.", "200.", "481.")
NO_IMAGE = ("1.2.840.10008.1.3.10", *(STORAGE + kind for kind in NO_PIXELS))
Elements: TypeAlias = "dict[int, bytes | list[Elements]]"  # by tag; a sequence is a list of items


class _CutShortError(Exception):
    """The file ends inside an element."""


@dataclass
class DicomHeader:
    """The header of one DICOM file.

    Attributes:
        path: of the file.
        elements: {tag: bytes, or for a sequence a list of such dictionaries}, without the pixels.
        pixels: where the pixels lie, (first byte, byte after the last one); None for a file without an image.
        order: "<" for little and ">" for big endian numbers.
    """

    path: Path
    elements: Elements
    pixels: tuple[int, int] | None = None
    order: str = "<"

    def text(self, tag: int, elements: Elements | None = None) -> str:
        """The text of a tag, "" where the tag is missing; of an item's `elements` where these are given."""
        value = (self.elements if elements is None else elements).get(tag, b"")
        return value.decode("latin-1").strip(" \0\r\n\t") if isinstance(value, bytes) else ""

    def decimals(self, tag: int, elements: Elements | None = None) -> tuple[float, ...]:
        """The numbers of a tag that DICOM writes as text, () if there are none.

        Raises:
            DataError: the text holds no numbers.
        """
        text = self.text(tag, elements)
        try:
            return tuple(float(part.replace(",", ".")) for part in text.split("\\") if part.strip(" \0"))
        except ValueError as error:
            name = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
            raise DataError(
                f"{self.path} has {text!r} in the tag {name}, which is no number. Export it again."
            ) from error

    def integer(self, tag: int, default: int = 0, elements: Elements | None = None) -> int:
        """The first whole number of a tag that DICOM writes in binary form (US, UL)."""
        number = self.binary(tag, {2: "H", 4: "I"}, elements)
        return default if number is None else int(number)

    def real(self, tag: int, elements: Elements | None = None) -> float | None:
        """The first number of a tag that DICOM writes as a float (FL, FD); None where the tag is missing."""
        return self.binary(tag, {4: "f", 8: "d"}, elements)

    def binary(self, tag: int, formats: dict[int, str], elements: Elements | None) -> float | None:
        """The first number of a tag, read by the format of the greatest size that its value can fill."""
        value = (self.elements if elements is None else elements).get(tag)
        sizes = [size for size in formats if isinstance(value, bytes) and len(value) >= size]
        if not isinstance(value, bytes) or not sizes:
            return None
        number: float = struct.unpack_from(self.order + formats[max(sizes)], value)[0]
        return number

    def items(self, tag: int, elements: Elements | None = None) -> list[Elements]:
        """The items of a sequence, [] if there is none."""
        value = (self.elements if elements is None else elements).get(tag, [])
        return value if isinstance(value, list) else []


def is_dicom(path: str | Path) -> bool:
    """Whether a file begins as DICOM does: with the preamble, or with an element of the group 0002 or 0008."""
    with Path(path).open("rb") as file:
        return _start(file.read(1200)) is not None


def read_header(path: str | Path) -> DicomHeader | None:
    """Reads the header of a DICOM file and checks that its pixels are complete.

    Returns:
        The header; None for a file that is not DICOM. Its `pixels` are None for a report or the like.

    Raises:
        DataError: the file is cut short.
    """
    path = Path(path)
    if not is_dicom(path):
        return None
    data = path.read_bytes()
    start = _start(data) or 0
    header = DicomHeader(path, {})
    try:
        _parse(header, data, start)
    except (_CutShortError, struct.error, zlib.error) as error:
        raise DataError(f"{path} is cut short ({len(data)} bytes). Copy the file again.") from error
    kind = header.text(SOP_CLASS) or header.text(META_CLASS)
    private = bool(kind) and not kind.startswith("1.2.840.10008.")  # of a vendor, who may store anything
    if header.pixels is None and not private and not kind.startswith(NO_IMAGE):
        raise DataError(f"{path} is cut short ({len(data)} bytes, without pixels). Copy the file again.")
    return header


def _start(data: bytes) -> int | None:
    """Where the first element lies; None in a file that is not DICOM."""
    if data[128:132] == b"DICM":
        return 132
    if len(data) < 12:
        return None
    group, number = struct.unpack_from("<HH", data)
    if group not in (0x0002, 0x0008) or number > 0x0100:
        return None
    if data[4:6] in LONG:
        length, start = struct.unpack_from("<I", data, 8)[0], 12
    elif data[4:6] in SHORT:
        length, start = struct.unpack_from("<H", data, 6)[0], 8
    else:
        length, start = struct.unpack_from("<I", data, 4)[0], 8
    if length % 2 or length > 1024 or len(data) < start + length + 4:
        return None
    following = struct.unpack_from("<HH", data, start + length)  # raw voxels rarely go on with a larger tag
    return 0 if (group, number) < following and following[0] in (0x0002, 0x0008, 0x0010) else None


def _parse(header: DicomHeader, data: bytes, at: int) -> None:
    meta: Elements = {}
    while data[at : at + 2] == b"\2\0":  # the file's meta group is always explicit, little endian
        reader = _Reader(data, "<", explicit=True)
        at = reader.element(at, len(data), meta)
    syntax = meta.get(SYNTAX, b"")
    name = syntax.decode("latin-1").strip(" \0") if isinstance(syntax, bytes) else ""
    if name == DEFLATED:
        data, at = _inflated(header.path, data[at:]), 0
    header.order = ">" if name == BIG_ENDIAN else "<"
    if len(data) - at < 8:
        raise _CutShortError
    reader = _Reader(data, header.order, explicit=data[at + 4 : at + 6] in LONG | SHORT)
    while at < len(data) and header.pixels is None:
        if not any(data[at : at + 8]):
            break  # padding at the end of a file
        if reader.tag(at) in PIXELS:
            header.pixels = reader.pixels(at, header)
        else:
            at = reader.element(at, len(data), header.elements)
    header.elements = {**meta, **header.elements}


def _inflated(path: Path, data: bytes) -> bytes:
    """The data set of a deflated file. Raises DataError if it is larger than the largest scan: a bomb."""
    unpacker, most = zlib.decompressobj(-zlib.MAX_WBITS), HEADER_BYTES + 8 * max_voxels()
    content = unpacker.decompress(data, most)
    if not unpacker.eof:
        if len(content) == most:
            raise DataError(f"{path} unpacks to more than {most / 1e6:.4g} MB, as no scan does. Export the file again.")
        raise _CutShortError
    return content


class _Reader:
    """Walks through the elements of a data set."""

    def __init__(self, data: bytes, order: str, explicit: bool) -> None:
        self.data, self.order, self.explicit = data, order, explicit

    def tag(self, at: int) -> int:
        group, number = struct.unpack_from(f"{self.order}HH", self.data, at)
        return int(group) << 16 | int(number)

    def head(self, at: int) -> tuple[int, bytes, int, int]:
        """(tag, value representation or b"", length, where the value begins) of the element at a place."""
        tag = self.tag(at)
        if not self.explicit or tag >> 16 == 0xFFFE:
            return tag, b"", struct.unpack_from(f"{self.order}I", self.data, at + 4)[0], at + 8
        kind = bytes(self.data[at + 4 : at + 6])
        if kind in LONG:
            return tag, kind, struct.unpack_from(f"{self.order}I", self.data, at + 8)[0], at + 12
        return tag, kind, struct.unpack_from(f"{self.order}H", self.data, at + 6)[0], at + 8

    def element(self, at: int, end: int, into: Elements) -> int:
        """Reads one element into a dictionary and returns where the next one begins."""
        tag, kind, length, start = self.head(at)
        if length == UNDEFINED:
            within = _Reader(self.data, self.order, explicit=False) if kind == b"UN" else self
            into[tag], at = within.sequence(start, end, ends_with_delimiter=True)
            return at
        if start + length > end:
            raise _CutShortError
        if kind == b"SQ" or tag in (SHARED_GROUPS, FRAME_GROUPS) or self._is_sequence(start, length):
            into[tag], _ = self.sequence(start, start + length, ends_with_delimiter=False)
        else:
            into[tag] = self.data[start : start + length]
        return start + length

    def _is_sequence(self, start: int, length: int) -> bool:
        """Implicit files do not mark sequences: their values begin with an item."""
        return not self.explicit and length >= 8 and self.tag(start) == ITEM

    def sequence(self, at: int, end: int, ends_with_delimiter: bool) -> tuple[list[Elements], int]:
        items: list[Elements] = []
        while at < end:
            tag, _, length, at = self.head(at)
            if tag == SEQUENCE_END:
                return items, at
            if tag != ITEM:
                raise _CutShortError
            item: Elements = {}
            stop = end if length == UNDEFINED else at + length
            if stop > end:
                raise _CutShortError
            while at < stop:
                if self.tag(at) == ITEM_END:
                    at += 8
                    break
                at = self.element(at, stop, item)
            items.append(item)
        if ends_with_delimiter:
            raise _CutShortError
        return items, at

    def pixels(self, at: int, header: DicomHeader) -> tuple[int, int]:
        """First and last byte of the pixels; raises where some are missing."""
        _, _, length, start = self.head(at)
        frames = int((header.decimals(FRAMES) or (1,))[0])
        if length == UNDEFINED:
            return start, self._last_fragment(start, frames)
        values = header.integer(ROWS) * header.integer(COLUMNS) * frames  # colours may be stored at less resolution
        wanted = values * header.integer(BITS, 16) // 8
        if min(length, len(self.data) - start) < wanted:
            raise _CutShortError
        return start, min(start + length, len(self.data))

    def _last_fragment(self, at: int, frames: int) -> int:
        fragments = 0
        while at + 8 <= len(self.data):
            tag, _, length, at = self.head(at)
            if tag == SEQUENCE_END:
                return at
            if tag != ITEM or at + length > len(self.data):
                raise _CutShortError
            fragments += 1
            at += length
        if fragments <= frames:  # the first one is a table of offsets
            raise _CutShortError
        return at
