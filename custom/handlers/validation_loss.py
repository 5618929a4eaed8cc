"""The training's loss on validation scans."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents


class ValidationLoss:
    """Adds "loss", the mean loss over the validation scans, to the evaluator's metrics. TensorBoard draws it.

    Ignite's metrics see a prediction after the postprocessing. The loss needs the logits before it.

    Args:
        loss: of logits (1, C, ...) and labels (1, 1, ...), as the training has it.
    """

    def __init__(self, loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        self.loss = loss
        self._losses: list[torch.Tensor] = []

    def attach(self, engine: Engine) -> None:
        """Attaches to the evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._losses.clear)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._scan)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._mean)

    def _scan(self, engine: Engine) -> None:
        output: Any = engine.state.output
        with torch.inference_mode():
            logits, label = (torch.as_tensor(output[key]).as_subclass(torch.Tensor) for key in ("pred", "label"))
            self._losses.append(self.loss(logits.float(), label).detach())

    def _mean(self, engine: Engine) -> None:
        if self._losses:
            engine.state.metrics["loss"] = float(torch.stack(self._losses).mean())
