"""NRRD headers: in which other files the voxels lie.

Source: https://teem.sourceforge.net/nrrd/format.html, "data file".
"""

from __future__ import annotations

import re
from pathlib import Path

from custom.errors import MissingDataError
from custom.reading.containers import require_regular

_LONGEST = 100_000  # bytes of a header
_DATA_FILE = re.compile(r"^data ?file: *(.+?) *$", re.IGNORECASE)


def voxel_files(path: Path) -> list[Path]:
    """The files of the voxels; [] if they lie in the header's file or are named by a pattern.

    Raises:
        MissingDataError: one of them does not exist.
        DataError: one of them is a pipe or a device.
    """
    with path.open("rb") as file:
        lines = file.read(_LONGEST).decode("latin-1").splitlines()
    end = lines.index("") if "" in lines else len(lines)
    for number, line in enumerate(lines[:end]):
        if not (match := _DATA_FILE.match(line)):
            continue
        names = lines[number + 1 : end] if match[1].startswith("LIST") else [match[1]]
        files = [path.parent / name.strip() for name in names if name.strip() and "%" not in name]
        for voxels in files:
            require_regular(voxels)
            if not voxels.is_file():
                raise MissingDataError(f"{voxels} does not exist. {path.name} names it as the file of its voxels.")
        return files
    return []
