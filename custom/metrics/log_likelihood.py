"""How likely a classifier finds what is true."""

from __future__ import annotations

from typing import Any

import torch
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced


class LogLikelihood(Metric):
    """The mean logarithm of the true class's probability: minus the cross-entropy, so that higher is better.

    A validation of few persons has few values of accuracy; this one tells two epochs apart. Each process validates on
    all, so that nothing is summed over processes.

    Args:
        output_transform: gives lists of probabilities (C,) and of labels, as monai.handlers.from_engine does.
    """

    def __init__(self, output_transform: Any) -> None:
        super().__init__(output_transform=output_transform)

    @reinit__is_reduced
    def reset(self) -> None:
        self.total, self.n = 0.0, 0

    @reinit__is_reduced
    def update(self, output: tuple[list[torch.Tensor], list[torch.Tensor]]) -> None:
        for probabilities, label in zip(*output, strict=True):
            self.total += float(torch.as_tensor(probabilities).double()[int(label)].clamp_min(1e-30).log())
            self.n += 1

    def compute(self) -> float:
        return self.total / self.n if self.n else float("nan")
