"""How likely a classifier finds what is true."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced
from monai.utils.dist import evenly_divisible_all_gather

from custom.metrics.temperature import fit_temperature


class LogLikelihood(Metric):
    """The mean logarithm of the true class's probability: minus the cross-entropy, so that higher is better.

    It is taken at the temperature under which it is highest, since that temperature is kept with the weights
    (custom.handlers.Calibrate): of a long training the late epochs, which are right more often and too sure, aren't
    passed over. A validation of few persons has few values of accuracy; this one tells two epochs apart. Of several
    processes all get the value of all persons, so that they agree on the best epoch.

    Args:
        output_transform: gives lists of probabilities (C,) and of labels, as monai.handlers.from_engine does.
    """

    def __init__(self, output_transform: Any) -> None:
        super().__init__(output_transform=output_transform)

    @reinit__is_reduced
    def reset(self) -> None:
        self.probabilities: list[torch.Tensor] = []
        self.labels: list[int] = []

    @reinit__is_reduced
    def update(self, output: tuple[list[torch.Tensor], list[torch.Tensor]]) -> None:
        for probabilities, label in zip(*output, strict=True):
            self.probabilities.append(torch.as_tensor(probabilities).detach().double())
            self.labels.append(int(label))

    def compute(self) -> float:
        if not self.labels:
            return float("nan")
        probabilities = evenly_divisible_all_gather(torch.stack(self.probabilities)).cpu()
        labels = evenly_divisible_all_gather(torch.tensor(self.labels, device=self.probabilities[0].device)).cpu()
        logits = probabilities.clamp_min(1e-30).log() / fit_temperature(probabilities.numpy(), np.asarray(labels))
        return -float(torch.nn.functional.cross_entropy(logits, labels))
