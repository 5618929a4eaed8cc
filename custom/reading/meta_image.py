"""MetaImage headers: in which files the voxels lie, and whether all of them are there.

ITK leaves missing parts of packed voxels unset, without an error. Source: https://itk.org/Wiki/MetaIO/Documentation
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path

from custom.errors import DataError, MissingDataError

LONGEST = 10_000  # bytes of a header
BYTES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "DOUBLE": 8, "LONG_LONG": 8, "ULONG_LONG": 8}  # others: 4


def read_fields(path: Path) -> dict[str, str]:
    """The header's fields up to ElementDataFile."""
    return _fields(path)[0]


def voxel_files(path: Path) -> list[Path]:
    """The files of the voxels; [] if they lie in the header's file or are named by a pattern.

    Raises:
        MissingDataError: one of them does not exist.
    """
    fields, lines = _fields(path)
    name = fields.get("ElementDataFile", "LOCAL")
    if name.upper() == "LOCAL" or "%" in name:
        return []
    names = lines if name.upper().startswith("LIST") else [name]
    files = [path.parent / each for each in names]
    for file in files:
        if not file.is_file():
            raise MissingDataError(f"{file} does not exist. {path.name} names it as the file of its voxels.")
    return files


def check_complete(path: Path) -> None:
    """Compares the number of voxels with those of the header; packed ones are unpacked for it.

    Raises:
        MissingDataError: a file of the voxels does not exist.
        DataError: the file of the voxels is cut short or damaged.
    """
    fields = read_fields(path)
    files = voxel_files(path)
    if len(files) > 1 or "%" in fields.get("ElementDataFile", "") or fields.get("BinaryData", "True") == "False":
        return  # ITK itself reports these
    file = files[0] if files else path
    try:
        voxels = math.prod(int(size) for size in fields["DimSize"].split())
        voxels *= int(fields.get("ElementNumberOfChannels", "1"))
        skipped = _length_of_header(path) if not files else max(0, int(fields.get("HeaderSize", "0")))
    except (KeyError, ValueError) as error:
        raise DataError(f"{path} has no header that can be read ({error}). Copy the file again.") from error
    kind = fields.get("ElementType", "").removeprefix("MET_").removesuffix("_ARRAY")
    wanted = voxels * BYTES.get(kind, 4)
    if fields.get("CompressedData", "False").lower() == "true":
        size = _unpacked_size(file, skipped, wanted)
    else:
        size = file.stat().st_size - skipped
    if size < wanted:
        raise DataError(f"{file} is cut short ({max(size, 0)} of {wanted} bytes of voxels). Copy it again.")


def _fields(path: Path) -> tuple[dict[str, str], list[str]]:
    """The fields up to ElementDataFile, and the lines after it, which are names of files after LIST."""
    with path.open("rb") as file:
        lines = [line.strip() for line in file.read(LONGEST).decode("latin-1").splitlines()]
    fields: dict[str, str] = {}
    for number, line in enumerate(lines):
        name, equals, value = line.partition("=")
        if not equals:
            break
        fields[name.strip()] = value.strip()
        if name.strip() == "ElementDataFile":
            return fields, [line for line in lines[number + 1 :] if line]
    return fields, []


def _length_of_header(path: Path) -> int:
    with path.open("rb") as file:
        start = file.read(LONGEST)
    return start.index(b"\n", start.index(b"ElementDataFile")) + 1


def _unpacked_size(file: Path, skipped: int, wanted: int) -> int:
    """How many bytes can be unpacked before the data end or are damaged; no more than about `wanted` are."""
    unpacker, size = zlib.decompressobj(zlib.MAX_WBITS | 32), 0
    with file.open("rb") as packed:
        packed.seek(skipped)
        try:
            while size < wanted and (block := unpacker.unconsumed_tail or packed.read(1 << 20)):
                size += len(unpacker.decompress(block, 1 << 24))
        except zlib.error:
            return size
    return size
