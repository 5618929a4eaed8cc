"""Stops a training that no longer gets better."""

from __future__ import annotations

import logging
import math

from ignite.engine import Engine, Events

from custom.handlers.state import best_epoch_of, best_metric_of

logger = logging.getLogger(__name__)


class EarlyStop:
    """Ends the training when the best validation is `patience` epochs ago.

    It reads the evaluator's best epoch, which Checkpoint keeps, and so needs no state of its own. Ignite's
    EarlyStopping needs the trainer when it is made; a handler in the trainer's own list cannot have it.

    Args:
        evaluator: the validation engine.
        patience: in epochs, 1 or more.
    """

    def __init__(self, evaluator: Engine, patience: int) -> None:
        self.evaluator = evaluator
        self.patience = patience

    def attach(self, engine: Engine) -> None:
        """Looks after each epoch of the trainer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Stops the trainer if the best epoch is too long ago."""
        best = best_epoch_of(self.evaluator)
        waited = best > 0 and engine.state.epoch - best >= self.patience
        if waited and not math.isnan(best_metric_of(self.evaluator)):  # NaN: no validation subject has any label
            logger.info("No better validation for %d epochs: stopping.", engine.state.epoch - best)
            engine.terminate()
