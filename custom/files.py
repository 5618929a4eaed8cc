"""Files that appear whole or not at all."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from custom.errors import DataError

_PARTIAL = re.compile(r"\.partial-(?:\S*?\.pid\d+-)?")


@contextmanager
def written_whole(target: str | Path) -> Iterator[Path]:
    """Gives a temporary name beside `target`; renames it if the block succeeds, removes it otherwise.

    The data is synced to the disk before the rename, so a crash leaves the old file or the new one. The temporary name
    has the number of this process, so several processes may write one file. What killed processes left is removed.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    partial = target.with_name(f"{_mine()}{os.getpid()}-{target.name}")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _mine() -> str:
    return f".partial-{socket.gethostname()}.pid"


def _remove_leftovers(target: Path) -> None:
    """Removes temporary files of this target that processes of this machine left when they were killed."""
    if os.name != "posix":  # elsewhere os.kill would end the process that it asks for
        return
    for path in target.parent.glob(f"{glob.escape(_mine())}*-{glob.escape(target.name)}"):
        number = path.name.removeprefix(_mine()).split("-")[0]
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            path.unlink(missing_ok=True)
        except (ValueError, PermissionError):
            continue


def without_partial(text: str) -> str:
    """A message with the names of files instead of their temporary names."""
    return _PARTIAL.sub("", text)


@contextmanager
def sample_written_whole(folder: str | Path, recipe: dict[str, Any]) -> Iterator[Path | None]:
    """Gives a temporary folder to fill, renamed to `folder` at the end; None if `folder` holds this sample already.

    Args:
        folder: a folder that does not exist, is empty, or holds a sample with the same parameters.
        recipe: the parameters of the sample, which are written to sample.json.

    Raises:
        DataError: the folder holds something else, or it or one above it is a file.
    """
    folder = Path(folder).expanduser()
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise DataError(f"The folder {folder} cannot be made, because {existing} is a file. Name another folder.")
    if folder.exists() and any(folder.iterdir()):
        if (
            not (folder / "sample.json").is_file()
            or json.loads((folder / "sample.json").read_text(encoding="utf-8")) != recipe
        ):
            raise DataError(f"{folder} is not empty and holds no sample of this kind. Name a new folder.")
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
    """Moves the existing files of these names to folder/earlier/<time of the newest>, and returns that folder."""
    paths = [folder / name for name in names if (folder / name).exists()]
    if not paths:
        return None
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(max(path.stat().st_mtime for path in paths)))
    earlier, again = folder / "earlier" / stamp, 1
    while any((earlier / path.name).exists() for path in paths):
        again += 1
        earlier = folder / "earlier" / f"{stamp}-{again}"
    earlier.mkdir(parents=True, exist_ok=True)
    for path in paths:
        path.replace(earlier / path.name)
    return earlier
