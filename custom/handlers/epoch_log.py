"""One line for each epoch of a training."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import torch
from ignite.engine import Engine, Events

logger = logging.getLogger(__name__)


class EpochLog:
    """Logs one line after each epoch: its number, loss, key metric if it was validated, and the remaining time.

    Epoch 3/300: loss 0.4213, dice_mean 0.8123 (best 0.8200 of epoch 2), 12 min left

    The loss is the mean over the steps of the epoch. The line comes after all other handlers of the epoch, wherever
    this one stands. Put it first in train#handlers.

    Args:
        evaluator: the validation engine.
    """

    def __init__(self, evaluator: Engine) -> None:
        self.evaluator = evaluator
        self._losses: list[torch.Tensor] = []
        self._first_epoch = 0
        self._start = 0.0
        self._validated = False

    def attach(self, engine: Engine) -> None:
        """Attaches to the trainer."""
        engine.add_event_handler(Events.STARTED, self._started)

    def _started(self, trainer: Engine) -> None:
        self._first_epoch = -1
        if getattr(trainer.state, "rank", 0) > 0:
            return
        if not trainer.has_event_handler(self._step, Events.ITERATION_COMPLETED):
            trainer.add_event_handler(Events.EPOCH_STARTED, self._begin)
            trainer.add_event_handler(Events.ITERATION_COMPLETED, self._step)
            trainer.add_event_handler(Events.EPOCH_COMPLETED, self._epoch)
            self.evaluator.add_event_handler(Events.COMPLETED, self._validation)

    def _begin(self, trainer: Engine) -> None:
        if self._first_epoch < 0:  # only now: Checkpoint restores the epoch of a resumed run after the start
            self._first_epoch, self._start = trainer.state.epoch - 1, time.monotonic()

    def _step(self, trainer: Engine) -> None:
        state: Any = trainer.state
        loss = (state.output[0] if isinstance(state.output, list) else state.output)["loss"]
        self._losses.append(torch.as_tensor(loss).detach().clone())  # not .item(), which would wait for the GPU
        if state.iteration == self._first_epoch * state.epoch_length + 1:
            logger.debug("The first step is done.", extra={"begun": True})

    def _validation(self, _: Engine) -> None:
        self._validated = True

    def _epoch(self, trainer: Engine) -> None:
        loss = float(torch.stack(self._losses).float().mean()) if self._losses else math.nan
        epoch, last = trainer.state.epoch, trainer.state.max_epochs or 0
        parts = [f"loss {loss:.4f}"]
        if self._validated and self.evaluator.state.metrics:
            parts.append(self._metric())
        seconds = (time.monotonic() - self._start) / (epoch - self._first_epoch) * (last - epoch)
        parts.append(
            f"{as_time(seconds)} left" if epoch < last else f"{as_time(time.monotonic() - self._start)} in all"
        )
        logger.info("Epoch %d/%d: %s", epoch, last, ", ".join(parts), extra={"begun": True})
        self._losses.clear()
        self._validated = False

    def _metric(self) -> str:
        state: Any = self.evaluator.state
        name = getattr(state, "key_metric_name", None) or next(iter(state.metrics))
        return (
            f"{name} {float(state.metrics[name]):.4f} (best {state.best_metric:.4f} of epoch {state.best_metric_epoch})"
        )


def as_time(seconds: float) -> str:
    """A duration in its largest two units: 45 s, 12 min, 3 h 20 min, 2 d 4 h."""
    minutes = round(seconds / 60)
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
