"""One process at a time: in the folder of a run, or at one scan.

The locks are the operating system's (POSIX record locks): they end with the process, however it ends, also on another
machine that shares the folder. A process may take a lock again that it holds. Windows has no locks of this kind, and
nothing is locked there or on a file system without locks.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from custom.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_held: dict[tuple[int, Path], tuple[BinaryIO, int]] = {}  # of a forked process nothing is held: the number tells


def take(path: Path) -> bool:
    """Takes the lock of a file, which is made if it does not exist. False if another process has it."""
    path, number = path.absolute(), os.getpid()
    if (number, path) in _held:
        file, times = _held[number, path]
        _held[number, path] = file, times + 1
        return True
    if fcntl is None:
        return True
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = path.open("ab", buffering=0)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            return error.errno not in (errno.EACCES, errno.EAGAIN)  # any other: this file system has no locks
        if _is_still(path, file):
            break
        file.close()  # its last holder removed it meanwhile
    with suppress(OSError):  # on a full disk the lock names nobody
        file.truncate(0)
        file.write(f"process {number} on {socket.gethostname()}".encode())
    _held[number, path] = file, 1
    return True


def release(path: Path) -> None:
    """Gives a lock back. The file is removed. Nothing happens if this process does not hold it."""
    key = os.getpid(), path.absolute()
    if key not in _held:
        return
    file, times = _held.pop(key)
    if times > 1:
        _held[key] = file, times - 1
        return
    path.unlink(missing_ok=True)
    file.close()


def _is_still(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def take_run(folder: Path) -> Path:
    """Takes the lock of a run's folder, and returns its file.

    Raises:
        ConfigError: another process trains there.
    """
    path = folder / ".lock"
    if not take(path):
        holder = path.read_text(encoding="utf-8") or "another process"
        raise ConfigError(f"{folder} is used by {holder}. Wait until it ends, or use another output_dir.")
    return path


@contextmanager
def run_locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a run's folder while the block runs. Raises ConfigError as take_run does."""
    path = take_run(folder)
    try:
        yield
    finally:
        release(path)
