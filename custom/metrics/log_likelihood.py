"""The log-likelihood of a classifier: the probability that it gives to the true class."""

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

    It is computed at the temperature under which it is highest, since custom.handlers.Calibrate keeps that temperature
    with the weights. Late epochs of a long training are more accurate but too confident; without the temperature they
    would never be chosen. On a small validation split accuracy takes few values, while this measure tells any two
    epochs apart. With several processes each one gets the value of all persons, so all agree on the best epoch.

    Args:
        output_transform: gives lists of probabilities (C,) and of labels, as monai.handlers.from_engine does.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks" (ICML), for the temperature.
    """

    def __init__(self, output_transform: Any) -> None:
        super().__init__(output_transform=output_transform)

    @reinit__is_reduced
    def reset(self) -> None:
        """Forgets all outputs."""
        self.probabilities: list[torch.Tensor] = []
        self.labels: list[int] = []

    @reinit__is_reduced
    def update(self, output: tuple[list[torch.Tensor], list[torch.Tensor]]) -> None:
        """Adds a batch: lists of probabilities (C,) and of labels."""
        for probabilities, label in zip(*output, strict=True):
            self.probabilities.append(torch.as_tensor(probabilities).detach().double())
            self.labels.append(int(label))

    def compute(self) -> float:
        """The mean log-likelihood of all outputs so far; NaN without any."""
        if not self.labels:
            return float("nan")
        probabilities = evenly_divisible_all_gather(torch.stack(self.probabilities), concat=True).cpu()
        own_labels = torch.tensor(self.labels, device=self.probabilities[0].device)
        labels = evenly_divisible_all_gather(own_labels, concat=True).cpu()
        logits = probabilities.clamp_min(1e-30).log() / fit_temperature(probabilities.numpy(), np.asarray(labels))
        return -float(torch.nn.functional.cross_entropy(logits, labels))
