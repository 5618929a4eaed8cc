"""How likely a classifier finds what is true."""

from __future__ import annotations

from typing import Any

import torch
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced, sync_all_reduce


class LogLikelihood(Metric):
    """The mean logarithm of the true class's probability: minus the cross-entropy, so that higher is better.

    A validation of few persons has few values of accuracy; this one tells two epochs apart. Of several processes all
    get the mean over all, so that they agree on the best epoch.

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

    @sync_all_reduce("total", "n")
    def compute(self) -> float:
        return self.total / self.n if self.n else float("nan")
