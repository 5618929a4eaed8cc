"""A run in several processes: one for each GPU, started by torchrun, or one after another, started by a command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import distributed


def local_device() -> torch.device:
    """This process's GPU, or the CPU where there is none."""
    return torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")


def start() -> None:
    """Joins the group that torchrun announces: NCCL on CUDA, gloo on the CPU."""
    if torch.cuda.is_available():
        torch.cuda.set_device(local_device())
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def stop() -> None:
    """Leaves the group."""
    distributed.destroy_process_group()


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return int(os.environ.get("RANK", 0)) == 0


def on_first(handlers: Sequence[Any]) -> list[Any] | None:
    """The handlers on the first process, None on the others: for handlers that only print or write."""
    return list(handlers) if is_first() else None


def run_child(call: Sequence[str]) -> int:
    """Runs a Python program that calls `end_with_parent`, and waits for it.

    Signals that end this process (Ctrl-C, SIGTERM, SIGHUP) end the child first.

    Returns:
        The child's exit code.

    Raises:
        KeyboardInterrupt: the child was ended by Ctrl-C.
    """
    received: list[int] = []
    with subprocess.Popen(call, stdin=subprocess.PIPE) as child:

        def end_child(number: int, _frame: Any) -> None:
            received.append(number)
            child.terminate()

        before = {number: signal.signal(number, end_child) for number in _ending_signals()}
        try:
            code = child.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if signal.SIGINT in received:
        raise KeyboardInterrupt
    if received:
        os.kill(os.getpid(), received[0])  # now that the child has ended, as if nobody had waited
    return code


def _ending_signals() -> list[signal.Signals]:
    """The signals to pass on. Only the main thread may; a signal that nohup or a shell has ignored stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        return []
    known = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if sys.platform != "win32" else [])]
    return [number for number in known if signal.getsignal(number) is not signal.SIG_IGN]


def end_with_parent() -> None:
    """Ends this process when the one that started it by `run_child` ends, even if that one is killed.

    The end of the pipe to stdin tells. Ctrl-C in a terminal reaches both processes; it is left to the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait_for_the_end() -> None:
        os.read(0, 1)  # not sys.stdin, whose lock a thread must not hold when Python ends
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_for_the_end, daemon=True).start()
