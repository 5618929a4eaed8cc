"""A NIfTI file appears under its name only when it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai.data import NibabelWriter

from custom.files import set_aside, written_whole


class AtomicNibabelWriter(NibabelWriter):
    """monai.data.NibabelWriter that writes to a temporary name in the same folder and renames.

    A file that has the name already, which may have been corrected by hand, moves to earlier/<its time>.
    """

    def write(self, filename: Any, verbose: bool = False, **kwargs: Any) -> None:
        with written_whole(filename) as partial:
            super().write(partial, verbose=verbose, **kwargs)
            set_aside(Path(filename).parent, [Path(filename).name])
