"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from custom.errors import DataError, WriteError

_PARTIAL = re.compile(r"\.partial-(?:\S*?\.pid\d+-)?")
NO_JSON = (ValueError, RecursionError)  # what json raises for other text, and for text that is nested too deeply
_LONGEST = 255  # bytes of a name, in almost all file systems


@contextmanager
def written_whole(target: str | Path, keep_old: bool = False) -> Iterator[Path]:
    """Gives a temporary name beside `target`; renames it if the block succeeds, removes it otherwise.

    The data is synced to the disk before the rename, so a crash leaves the old file or the new one. The temporary name
    has the number of this process, so several processes may write one file. What killed processes left in the folder
    is removed.

    Args:
        target: the file to write.
        keep_old: keep the file that has the name already in earlier/ (keep_earlier).

    Raises:
        WriteError: the disk is full.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target.parent)
    partial = target.with_name(_partial_name(target.name))
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        if keep_old:
            keep_earlier(target.parent, [target.name])
        partial.replace(target)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError
        if _is_full(target.parent, error):
            raise WriteError.of_full_disk(target) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def _is_full(folder: Path, error: Exception) -> bool:
    """Whether an error comes of a full disk: NumPy and torch do not pass the system's error number on."""
    number = getattr(error, "errno", None)
    return number in (errno.ENOSPC, errno.EDQUOT) or (number is None and shutil.disk_usage(folder).free < 2**20)


def _mine() -> str:
    """The start of all temporary names of this machine. Containers of one machine may share its name."""
    with suppress(OSError):
        space = re.sub(r"\D", "", os.readlink("/proc/self/ns/pid"))  # noqa: PTH115  # no path
        return f".partial-{socket.gethostname()}-{space}.pid"
    return f".partial-{socket.gethostname()}.pid"


def _partial_name(name: str) -> str:
    return hidden_name(f"{_mine()}{os.getpid()}-", name)


def hidden_name(start: str, name: str) -> str:
    """The start and the name. Of a name that would be too long, a checksum replaces the first characters."""
    if len(os.fsencode(start + name)) <= _LONGEST:
        return start + name
    start += hashlib.sha256(os.fsencode(name)).hexdigest()[:8] + "-"
    while len(os.fsencode(start + name)) > _LONGEST:
        name = name[1:]
    return start + name


def is_partial(path: Path) -> bool:
    """Whether a file is one that is being written, or that a killed process left."""
    return path.name.startswith(".partial-")


def remove_leftovers(folder: Path) -> None:
    """Removes temporary files and folders that processes of this machine left when they were killed."""
    if os.name != "posix":  # elsewhere os.kill would end the process that it asks for
        return
    for path in folder.glob(f"{glob.escape(_mine())}*-*"):
        number = path.name.removeprefix(_mine()).split("-")[0]
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            _remove(path)
        except (ValueError, PermissionError):
            continue


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def stamp_of(path: Path) -> tuple[int, int, int]:
    """Size and times of a file: another content gives another stamp.

    st_ctime_ns changes with the content even where a program sets the file's time, as rsync and cp -p do.
    """
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def without_partial(text: str) -> str:
    """A message with the names of files instead of their temporary names."""
    return _PARTIAL.sub("", text)


def printable(name: str) -> str:
    """A file's name as text: of bytes that are no UTF-8 the replacement character."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises DataError if it is empty, cut short, nested too deeply or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except NO_JSON as error:
        raise DataError(f"{path} is no JSON file ({error}). Delete it, or use another folder.") from error


@contextmanager
def sample_written_whole(folder: str | Path, recipe: dict[str, Any]) -> Iterator[Path | None]:
    """Gives a temporary folder to fill, renamed to `folder` at the end; None if `folder` holds this sample already.

    Args:
        folder: a folder that does not exist, is empty, or holds a sample with the same parameters.
        recipe: the parameters of the sample, which are written to sample.json.

    Raises:
        DataError: the folder holds something else, or it or one above it is a file.
        WriteError: the disk is full.
    """
    folder = Path(folder).expanduser()
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise DataError(f"The folder {folder} cannot be made, because {existing} is a file. Name another folder.")
    if folder.exists() and any(folder.iterdir()):
        if not (folder / "sample.json").is_file() or read_json(folder / "sample.json") != recipe:
            raise DataError(f"{folder} is not empty and holds no sample of this kind. Name a new folder.")
        yield None
        return
    with folder_written_whole(folder) as partial:
        yield partial
        (partial / "sample.json").write_text(json.dumps(recipe) + "\n")


@contextmanager
def folder_written_whole(folder: Path) -> Iterator[Path]:
    """Gives a temporary folder beside `folder`; renames it if the block succeeds, removes it otherwise.

    Args:
        folder: does not exist, or is empty.

    Raises:
        WriteError: the disk is full.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder.parent)
    partial = folder.parent / _partial_name(folder.name)
    partial.mkdir()
    try:
        yield partial
        partial.replace(folder)
    except (OSError, RuntimeError) as error:
        if _is_full(folder.parent, error):
            raise WriteError.of_full_disk(folder) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """Gives a new folder, removed at the end. What killed processes left beside it is removed first.

    Args:
        parent: the folder to make it in.
        name: a part of its name.
    """
    parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(parent)
    folder = Path(tempfile.mkdtemp(prefix=f"{_mine()}{os.getpid()}-{name}-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def set_aside(folder: Path, names: Iterable[str]) -> Path | None:
    """Moves the existing files of these names to folder/earlier/<time of the newest>, and returns that folder."""
    paths = [folder / name for name in names if (folder / name).exists()]
    if not paths:
        return None
    earlier = _earlier_folder(folder, paths)
    for path in paths:
        if (earlier / path.name).exists():  # a second name of the same file: a rename would leave both
            path.unlink()
        else:
            path.replace(earlier / path.name)
    return earlier


def keep_earlier(folder: Path, names: Iterable[str]) -> Path | None:
    """As set_aside, but the files keep their names too, until others replace them.

    So a kill leaves no name without its file. The files get a second name (a hard link); where the file system has no
    links they are copied.
    """
    paths = [folder / name for name in names if (folder / name).is_file()]
    if not paths:
        return None
    earlier = _earlier_folder(folder, paths)
    for path in paths:
        _link(path, earlier / path.name)
    return earlier


def _earlier_folder(folder: Path, paths: list[Path]) -> Path:
    """A folder below folder/earlier that has no other files of the paths' names."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(max(path.stat().st_mtime for path in paths)))
    earlier, again = folder / "earlier" / stamp, 1
    while any((earlier / path.name).exists() and not path.samefile(earlier / path.name) for path in paths):
        again += 1
        earlier = folder / "earlier" / f"{stamp}-{again}"
    earlier.mkdir(parents=True, exist_ok=True)
    return earlier


def _link(path: Path, other: Path) -> None:
    try:
        os.link(path, other)
    except FileExistsError:
        return  # a process that was killed has linked it already
    except OSError:
        with written_whole(other) as partial:
            shutil.copy2(path, partial)
