"""Kills a piece of work before each of its operations on files, one after another."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

OPERATIONS = {"open", "os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}


def killed_everywhere(work: Callable[[], object], folder: Path, check: Callable[[], None]) -> int:
    """Runs `work` in forks of this process, the n-th of which is killed before its n-th operation on files in a folder.

    Args:
        work: what to do. It meets what the kills before have left.
        folder: operations on paths below it count.
        check: runs after each kill.

    Returns:
        The number of kills. The last fork, which is not counted, did all the work.
    """
    for number in range(1000):
        if _killed_at(work, folder, number) == 0:
            check()
            return number
        check()
    raise AssertionError("the work has no end")


def _killed_at(work: Callable[[], object], folder: Path, number: int) -> int:
    process = os.fork()
    if process == 0:
        try:
            sys.addaudithook(_Killer(folder, number))
            work()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
    _, status = os.waitpid(process, 0)
    assert status in (0, signal.SIGKILL), status
    return status


class _Killer:
    def __init__(self, folder: Path, number: int) -> None:
        self.folder = os.fsencode(folder)
        self.left = number

    def __call__(self, event: str, arguments: tuple) -> None:
        if event not in OPERATIONS or not isinstance(arguments[0], (str, bytes, os.PathLike)):
            return
        if os.fsencode(arguments[0]).startswith(self.folder):
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
