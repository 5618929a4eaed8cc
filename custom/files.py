"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from custom.errors import DataError


@contextmanager
def written_whole(target: str | Path, own: bool = False) -> Iterator[Path]:
    """Gives a temporary name beside `target`; renames it when the block ends well, removes it otherwise.

    The data is synced to the disk before the rename, so a crash leaves the old file or the new one. `own` gives the
    temporary name the process's number, for a file that several processes may write at one time.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(
        f".partial-{f'{os.getpid()}-' * own}{target.name}"
    )  # what a killed process left is written over
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def sample_written_whole(folder: str | Path, recipe: dict[str, Any]) -> Iterator[Path | None]:
    """Gives a temporary folder to fill, renamed to `folder` at the end; None where this very sample is there already.

    Args:
        folder: one that doesn't exist yet, is empty, or holds a sample of the same recipe.
        recipe: what the sample is made with, kept in sample.json.

    Raises:
        DataError: the folder holds something else.
    """
    folder = Path(folder).expanduser()
    if folder.exists() and any(folder.iterdir()):
        if (
            not (folder / "sample.json").is_file()
            or json.loads((folder / "sample.json").read_text(encoding="utf-8")) != recipe
        ):
            raise DataError(f"{folder} isn't empty and isn't this sample: name a new folder.")
        yield None
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield partial
        (partial / "sample.json").write_text(json.dumps(recipe) + "\n")
        partial.chmod(0o755)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def set_aside(folder: Path, names: Iterable[str]) -> Path | None:
    """Moves what is there of some names to folder/earlier/<time of the newest>, and returns that folder."""
    found = [folder / name for name in names if (folder / name).exists()]
    if not found:
        return None
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(max(path.stat().st_mtime for path in found)))
    earlier, again = folder / "earlier" / stamp, 1
    while any((earlier / path.name).exists() for path in found):
        again += 1
        earlier = folder / "earlier" / f"{stamp}-{again}"
    earlier.mkdir(parents=True, exist_ok=True)
    for path in found:
        path.replace(earlier / path.name)
    return earlier
