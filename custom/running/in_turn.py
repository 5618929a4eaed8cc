"""Trainings one after another, each in a process and a folder of its own; several commands may share them.

What is finished is not run again. A folder that another process holds is left to it: the others come first, then this
command waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from custom.errors import DataError
from custom.locks import release, take
from custom.running.processes import run_child

POLL_SECONDS = 5.0


@dataclass(frozen=True)
class Task:
    """One training.

    Args:
        name: for the line that announces it.
        folder: its own, whose lock it takes.
        results: names of the files in the folder that exist when it is finished.
        call: the program, which calls custom.running.processes.end_with_parent.
    """

    name: str
    folder: Path
    results: tuple[str, ...]
    call: tuple[str, ...]

    @property
    def finished(self) -> bool:
        """Whether all results exist."""
        return all((self.folder / name).is_file() for name in self.results)


def run_in_turn(tasks: Sequence[Task], wait: bool = True) -> bool:
    """Runs the tasks that are not finished.

    Args:
        tasks: in their order.
        wait: for tasks that other processes run; if one of those ends unfinished, this process runs it.

    Returns:
        Whether all are finished.

    Raises:
        DataError: a task failed; the others are kept.
    """
    waiting = [task for task in tasks if not task.finished]
    while waiting:
        busy = []
        for task in waiting:
            if task.finished:
                continue
            if not _is_free(task):
                busy.append(task)
                continue
            print(f"== {task.name}: {task.folder}", flush=True)
            if run_child(task.call):
                if not _is_free(task):  # another process was faster
                    busy.append(task)
                    continue
                raise DataError(f"{task.name} failed, as shown above. Run the command again to go on.")
        if busy and not wait:
            return False
        if busy:
            print(f"Waiting for {', '.join(task.name for task in busy)}, which other processes run.", flush=True)
            time.sleep(POLL_SECONDS)
        waiting = busy
    return True


def _is_free(task: Task) -> bool:
    path = task.folder / ".lock"
    free = take(path)
    release(path)
    return free
