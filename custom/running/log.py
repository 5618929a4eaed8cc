"""What a run prints, and its run.log.

Messages of this package are printed. Those of MONAI, Ignite and Python's warnings are printed only with --verbose.
run.log in a run's output_dir has all of them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import shlex
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO, cast

import custom
from custom.files import without_partial

FILE = "run.log"
BEGUN = "begun"  # a record with this attribute says that a run's first step is done: run.log is written from here on
ENVIRONMENT = "BRAINMRI_MESSAGES"  # quiet or verbose, for the processes that a command starts
_STATS = "monai.handlers.StatsHandler"  # does not propagate, and prints by itself if nobody asked for it before
_DATED = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _Formatter(logging.Formatter):
    """Without the temporary names of files."""

    def format(self, record: logging.LogRecord) -> str:
        return without_partial(super().format(record))


def _of_this_package(record: logging.LogRecord) -> bool:
    return record.name.split(".")[0] == "custom" or record.levelno >= logging.CRITICAL


@contextlib.contextmanager
def console(quiet: bool = False, verbose: bool = False) -> Iterator[None]:
    """Prints log messages while the block runs: this package's, or all of them (`verbose`), or its warnings (`quiet`).

    With `quiet`, what is printed to stdout is dropped as well. Progress bars show on terminals only.
    """
    root = logging.getLogger()
    handler = logging.StreamHandler(sys.stderr if quiet else sys.stdout)
    handler.setFormatter(_Formatter(_DATED if verbose else "%(message)s"))
    handler.setLevel(logging.WARNING if quiet else logging.INFO)
    if not verbose:
        handler.addFilter(_of_this_package)
    before = root.level, os.environ.get(ENVIRONMENT)
    os.environ[ENVIRONMENT] = "quiet" if quiet else "verbose" if verbose else ""
    if quiet or not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # of tqdm, which reads it when it is imported
    root.setLevel(logging.INFO)
    _add(handler)
    logging.captureWarnings(True)
    try:
        with contextlib.ExitStack() as stack:
            stdout = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8")) if quiet else sys.stdout
            stack.enter_context(contextlib.redirect_stdout(cast(TextIO, _Printed(stdout))))
            stack.enter_context(contextlib.redirect_stderr(cast(TextIO, _Printed(sys.stderr))))
            yield
    finally:
        logging.captureWarnings(False)
        _remove(handler)
        root.setLevel(before[0])
        if before[1] is None:
            os.environ.pop(ENVIRONMENT, None)
        else:
            os.environ[ENVIRONMENT] = before[1]


def inherited_console() -> contextlib.AbstractContextManager[None]:
    """`console` as the process that started this one has it; nothing where this process has called `console`."""
    mode = os.environ.get(ENVIRONMENT)
    if mode is None or any(isinstance(handler.formatter, _Formatter) for handler in logging.getLogger().handlers):
        return contextlib.nullcontext()
    return console(mode == "quiet", mode == "verbose")


def take_over() -> None:
    """Sends the messages of MONAI's loggers that print by themselves to the root logger's handlers."""
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name == _STATS or name.split(".")[0] not in ("monai", "ignite"):
            continue
        if isinstance(logger, logging.Logger) and not logger.propagate:
            logger.handlers.clear()
            logger.propagate = True


def _add(handler: logging.Handler) -> None:
    for name in (None, _STATS):
        logging.getLogger(name).addHandler(handler)


def _remove(handler: logging.Handler) -> None:
    for name in (None, _STATS):
        logging.getLogger(name).removeHandler(handler)


class _RunLog(logging.Handler):
    """Keeps messages until the run has begun, then appends them to folder/run.log. A full disk stops no run."""

    def __init__(self, folder: Path) -> None:
        super().__init__(logging.DEBUG)
        self.folder = folder
        self.waiting: list[str] = []
        self.file: TextIO | None = None
        self.setFormatter(_Formatter(_DATED))

    def emit(self, record: logging.LogRecord) -> None:
        self.write(self.format(record) + "\n")
        if getattr(record, BEGUN, False):
            self.open()

    def write(self, text: str) -> None:
        if self.file is None:
            self.waiting.append(text)
        else:
            with contextlib.suppress(OSError):
                self.file.write(text)
                self.file.flush()

    def open(self) -> None:
        with contextlib.suppress(OSError):
            self._open()

    def _open(self) -> None:
        if self.file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            # names of files may have bytes that are no text
            self.file = (self.folder / FILE).open("a", encoding="utf-8", errors="backslashreplace")
            self.write("".join(self.waiting))
            self.waiting.clear()

    def close(self) -> None:
        if self.file is not None:
            with contextlib.suppress(OSError):  # what was not written yet
                self.file.close()
            self.file = None
        super().close()


class _Printed:
    """A stream without the temporary names of files; its text goes to run.log too, if there is one."""

    def __init__(self, stream: TextIO, log: _RunLog | None = None) -> None:
        self.stream = stream
        self.log = log

    def write(self, text: str) -> int:
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        text = without_partial(text).encode(encoding, "backslashreplace").decode(encoding)
        if self.log is not None and "\r" not in text:  # a progress bar returns to the start of its line
            self.log.write(text)
        return self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def run_log(folder: str | Path) -> Iterator[None]:
    """Appends all messages, and what is printed, to folder/run.log while the block runs.

    The file is opened when the run's first step is done, or at the end: a run that fails before writes nothing. Of
    several processes the first one writes.

    Args:
        folder: the run's output_dir.
    """
    if int(os.environ.get("RANK", "0")) > 0:
        yield
        return
    handler = _RunLog(Path(folder))
    levels = {logger: logger.level for logger in (logging.getLogger(), logging.getLogger("custom"))}
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    command = shlex.join(["brainmri", *sys.argv[1:]])
    handler.write(f"== {now} {command}\nbrainmri {custom.__version__}, Python {platform.python_version()}\n")
    _add(handler)
    for logger, level in zip(levels, (logging.INFO, logging.DEBUG), strict=True):
        logger.setLevel(level)
    take_over()
    try:
        stdout, stderr = (cast(TextIO, _Printed(stream, handler)) for stream in (sys.stdout, sys.stderr))
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            yield
        handler.open()
    except BaseException as error:
        handler.write(f"{type(error).__name__}: {without_partial(str(error))}\n")
        raise
    finally:
        _remove(handler)
        for logger, level in levels.items():
            logger.setLevel(level)
        handler.close()
