"""Trainings, scorings and batches: MONAI Label's processes, how far they are, and how they stop without a trace."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monailabel.utils.async_tasks import utils as async_tasks
from monailabel.utils.async_tasks.task import AsyncTask

from custom.files import remove_leftovers
from custom.serving.segmentation import TEMPORARY

logger = logging.getLogger(__name__)
_MARK = "progress: "  # before JSON, in the log of a task, which is all that MONAI Label passes on
_WAIT = 10  # seconds for a killed process to end


def report(**progress: Any) -> None:
    """Says in the log of a task how far it is."""
    logger.info("%s%s", _MARK, json.dumps(progress))


def report_epochs(trainer: Engine) -> None:
    """Says after each epoch of a training how far it is."""

    def say(engine: Engine) -> None:
        report(epoch=engine.state.epoch, of=engine.state.max_epochs)

    trainer.add_event_handler(Events.EPOCH_COMPLETED, say)


def with_progress(task: Mapping[str, Any]) -> dict[str, Any]:
    """A task as MONAI Label describes it, with "progress": what it last reported, {"epoch": 3, "of": 20}."""
    for line in reversed(list(task.get("details", ()))):
        _, mark, content = line.partition(_MARK)
        with contextlib.suppress(ValueError):
            if mark:
                return dict(task) | {"progress": json.loads(content)}
    return dict(task)


def stop(method: str, folders: Iterable[Path] = ()) -> Any:
    """Stops the running task and those that wait for it, and removes what they were writing.

    Args:
        method: "train", "scoring" or "batch_infer".
        folders: where they write.

    Returns:
        The stopped task as MONAI Label describes it; None if none was running.
    """
    if executor := async_tasks.background_executors.pop(method, None):
        executor.shutdown(wait=False, cancel_futures=True)
    for task in async_tasks.tasks(method):
        if task["status"] == "SUBMITTED":
            task["status"] = "STOPPED"
    processes: list[subprocess.Popen[str]] = list(async_tasks.processes(method).values())
    stopped = AsyncTask.stop(method)
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_WAIT)  # until then its files belong to a living process
    for folder in (TEMPORARY, *folders):
        if folder.is_dir():
            remove_leftovers(folder)
    return stopped
