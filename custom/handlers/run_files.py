"""Which files of an output folder belong to a run: each handler that writes files declares them."""

from __future__ import annotations

from typing import ClassVar

# Written by commands into a run's output_dir: evaluate (evaluation), infer (segmentations), report, export (model.ts,
# model.onnx), train (run.log). Handlers cannot import commands, so their results are listed here.
COMMAND_FILES = ("evaluation", "segmentations", "report", "model.ts", "model.onnx", "run.log")


class WritesFiles:
    """Base class of handlers that write files.

    Attributes:
        files: names of the files and folders that the handler writes into its output folder. A new run moves those of
            an earlier run aside (custom.handlers.Checkpoint).
    """

    files: ClassVar[tuple[str, ...]] = ()


def run_files() -> tuple[str, ...]:
    """Names of everything that handlers and commands write into a run's output folder, each name once."""
    names = list(COMMAND_FILES)
    handlers = [WritesFiles]
    while handlers:
        handler = handlers.pop()
        names += handler.files
        handlers += handler.__subclasses__()
    return tuple(dict.fromkeys(names))
