"""Stops a training that no longer gets better."""

from __future__ import annotations

import math

from ignite.engine import Engine, Events


class EarlyStop:
    """Ends the training when the best validation is `patience` epochs ago.

    It reads the evaluator's best epoch, which Checkpoint keeps, and so needs no state of its own. (Ignite's
    EarlyStopping wants the trainer when it is made, which a handler in the trainer's own list can't have.)

    Args:
        evaluator: the validation engine.
        patience: in epochs, 1 or more.
    """

    def __init__(self, evaluator: Engine, patience: int) -> None:
        self.evaluator = evaluator
        self.patience = patience

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        best = self.evaluator.state.best_metric_epoch
        waited = best > 0 and engine.state.epoch - best >= self.patience
        if waited and not math.isnan(self.evaluator.state.best_metric):  # NaN: no validation subject has any label
            engine.logger.info("No better validation for %d epochs: stopping.", engine.state.epoch - best)
            engine.terminate()
