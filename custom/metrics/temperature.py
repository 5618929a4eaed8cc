"""Temperature scaling: logits are divided by one number, so that confidence agrees with accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import minimize_scalar

ENOUGH = 20  # subjects or images


def fit_temperature(probabilities: np.ndarray, labels: Sequence[int] | np.ndarray) -> float:
    """The temperature under which the true classes of a held-out split are likeliest, 0.05 to 20.

    With fewer than 20 persons or images it is 1: so few cannot tell.

    Args:
        probabilities: (n, C) by softmax without a temperature.
        labels: (n,), 0 to C - 1.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", ICML.
    """
    if len(labels) < ENOUGH:
        return 1.0
    logits = torch.as_tensor(probabilities, dtype=torch.float64).clamp_min(1e-300).log()
    reference = torch.as_tensor(np.asarray(labels), dtype=torch.long)

    def loss(log_temperature: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits / np.exp(log_temperature), reference))

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))
