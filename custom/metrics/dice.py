"""Dice of label maps, without an engine."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def dice_by_name(prediction: np.ndarray, truth: np.ndarray, labels: Mapping[int, str]) -> dict[str, float]:
    """2 |A and B| / (|A| + |B|) of each label but 0, and "mean", theirs.

    Args:
        prediction: integer labels, any shape.
        truth: of the same shape.
        labels: {0: "background", 1: "CSF", ...}

    Returns:
        {"CSF": 0.88, ..., "mean": 0.87}, to 4 decimals; NaN for a label that neither has, left out of the mean.

    Raises:
        ValueError: the shapes differ.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction and truth must have one shape, got {prediction.shape} and {truth.shape}.")
    scores = {}
    for code, name in labels.items():
        if code:
            here, there = prediction == code, truth == code
            both = int(here.sum()) + int(there.sum())
            scores[name] = round(2 * int((here & there).sum()) / both, 4) if both else float("nan")
    return scores | {"mean": round(float(np.nanmean(list(scores.values()))), 4)}
