"""How well a prediction orders cases in time."""

from __future__ import annotations

import numpy as np


def concordance_index(time: np.ndarray, prediction: np.ndarray) -> float:
    """The share of pairs with different times whose predictions are in the same order; an equal prediction counts half.

    Harrell et al. 1982, "Evaluating the yield of medical tests", JAMA 247(18), 2543-2546, without censored cases.

    Args:
        time: (n,), such as days of survival.
        prediction: (n,), higher for a longer time, in any unit.

    Returns:
        0 to 1, with 0.5 for chance; NaN where all times are equal.
    """
    later = time[:, None] > time[None, :]
    if not later.any():
        return float("nan")
    difference = prediction[:, None] - prediction[None, :]
    return float(np.mean((np.sign(difference[later]) + 1) / 2))
