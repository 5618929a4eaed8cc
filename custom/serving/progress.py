"""The segmentations of this process: which run or wait, how far they are, and how one is cancelled."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from monai.inferers import SlidingWindowInferer
from torch import nn

from custom.errors import BrainMRIError

logger = logging.getLogger(__name__)
_LOGGED_EVERY = 10  # seconds
_WAIT = 0.5  # seconds after which a waiting segmentation looks whether it was cancelled
_lock = threading.Lock()
_segmentations: dict[str, Segmentation] = {}
_turn = threading.Lock()  # one study at a time, because it needs the memory and all cores
_running: Segmentation | None = None


class CancelledError(BrainMRIError):
    """A segmentation that a client cancelled."""


@dataclass
class Segmentation:
    """One segmentation from its request to its result.

    Args:
        model, image: their names.

    Attributes:
        id: a name of its own.
        status: "WAITING" for others, or "RUNNING".
        windows: how many windows the network has done.
        of: of how many; None where it is not known before.
        cancelled: whether it ends at the next layer of the network.
    """

    model: str
    image: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    status: str = "WAITING"
    windows: int = 0
    of: int | None = None
    cancelled: bool = False
    began: float = field(default_factory=time.monotonic)
    logged: float = field(default_factory=time.monotonic)

    def check(self) -> None:
        """Raises CancelledError if it was cancelled."""
        if self.cancelled:
            raise CancelledError(f"The segmentation of {self.image} by {self.model} was cancelled.")

    def count(self) -> None:
        """One window more."""
        self.windows += 1
        if time.monotonic() - self.logged > _LOGGED_EVERY:
            self.logged = time.monotonic()
            of = f" of {self.of}" if self.of else ""
            logger.info("%s, %s: window %d%s, %.0f s", self.model, self.image, self.windows, of, self.seconds())

    def seconds(self) -> float:
        """Since the request."""
        return time.monotonic() - self.began

    def describe(self) -> dict[str, Any]:
        """What clients may know."""
        names = ("id", "model", "image", "status", "windows", "of")
        return {name: getattr(self, name) for name in names} | {"seconds": round(self.seconds(), 1)}


@contextlib.contextmanager
def segmentation(model: str, image: str) -> Iterator[Segmentation]:
    """One segmentation, which others can see and cancel, until the block ends."""
    one = Segmentation(model, image)
    with _lock:
        _segmentations[one.id] = one
    try:
        yield one
    finally:
        with _lock:
            del _segmentations[one.id]


@contextlib.contextmanager
def turn(one: Segmentation | None) -> Iterator[None]:
    """Waits until no other segmentation runs; then the block is the running one. Raises CancelledError."""
    global _running
    while not _turn.acquire(timeout=_WAIT):
        if one is not None:
            one.check()
    try:
        _running = one
        if one is not None:
            one.check()
            one.status = "RUNNING"
        yield
    finally:
        _running = None
        _turn.release()


def described() -> list[dict[str, Any]]:
    """All segmentations, the oldest first."""
    with _lock:
        return [one.describe() for one in _segmentations.values()]


def cancel(identifier: str = "", image: str = "", model: str = "") -> list[dict[str, Any]]:
    """Cancels the segmentations that match what is given; returns their descriptions."""
    with _lock:
        chosen = [
            one
            for one in _segmentations.values()
            if identifier in ("", one.id) and image in ("", one.image) and model in ("", one.model)
        ]
        for one in chosen:
            one.cancelled = True
        return [one.describe() for one in chosen]


def watch(network: nn.Module) -> None:
    """Lets a network count its windows, and end at its next layer when the running segmentation is cancelled."""
    for module in network.modules():
        module.register_forward_pre_hook(_count if module is network else _check)


def _check(_module: nn.Module, _inputs: Any) -> None:
    if _running is not None:
        _running.check()


def _count(module: nn.Module, inputs: Any) -> None:
    _check(module, inputs)
    if _running is not None:
        _running.count()


def expect(inferer: Any, image: torch.Tensor) -> None:
    """Notes how many calls of the network MONAI's sliding windows need for an image (C, x, y, z)."""
    if _running is not None and isinstance(inferer, SlidingWindowInferer):
        _running.of = windows_of(inferer, image.shape[1:])


def windows_of(inferer: SlidingWindowInferer, shape: Sequence[int]) -> int:
    """How often sliding windows call the network for an image of this shape."""
    rois = inferer.roi_size if isinstance(inferer.roi_size, Sequence) else [inferer.roi_size] * len(shape)
    overlaps = inferer.overlap if isinstance(inferer.overlap, Sequence) else [inferer.overlap] * len(shape)
    count = 1
    for size, roi, overlap in zip(shape, rois, overlaps, strict=True):
        window = int(roi) if roi and int(roi) > 0 else size
        step = max(1, int(window * (1 - float(overlap)))) if window < size else window
        count *= max(1, math.ceil((max(size, window) - window) / step) + 1)
    return math.ceil(count / inferer.sw_batch_size)
