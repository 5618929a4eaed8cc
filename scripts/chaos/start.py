"""Starts `brainmri ...` in a process of its own, quickly: a fork of one that has imported what takes seconds."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

SERVER = multiprocessing.get_context("forkserver")
PRELOADED = ["custom.cli", "custom.running.workflow", "custom.networks", "custom.commands.segment", "monai.handlers"]


def start(words: list[object], cwd: Path, log: Path) -> BaseProcess:
    """What it prints goes to a file; so does its largest memory, in its last line, if it is not killed."""
    SERVER.set_forkserver_preload(PRELOADED)
    process = SERVER.Process(target=_command, args=([*map(str, words)], cwd, log))
    process.start()
    return process


def _command(words: list[str], cwd: Path, log: Path) -> None:
    os.setsid()  # a process group of its own
    for number in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout, sys.stderr = (os.fdopen(n, "w", encoding="utf-8", errors="replace", buffering=1) for n in (1, 2))
    os.chdir(cwd)
    sys.argv = ["brainmri", *words]
    import custom.cli

    try:
        custom.cli.main()
    finally:
        print(f"\nlargest memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB", flush=True)


def run(words: list[object], cwd: Path, log: Path, seconds: float = 600) -> int | None:
    """The exit code; None if it had to be killed."""
    process = start(words, cwd, log)
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    return process.exitcode


def memory_of(log: Path) -> int:
    """MB, from the log of a process that has ended by itself."""
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("largest memory: ")]
    return int(lines[-1].split()[2]) if lines else 0
