"""Dice of label maps, without an engine."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def dice_by_name(prediction: np.ndarray, reference: np.ndarray, labels: Mapping[int, str]) -> dict[str, float]:
    """2 |A and B| / (|A| + |B|) of each label but 0, and their mean under "mean".

    Args:
        prediction: integer labels, any shape.
        reference: integer labels, the same shape.
        labels: {0: "background", 1: "CSF", ...}

    Returns:
        {"CSF": 0.88, ..., "mean": 0.87}, to 4 decimals; NaN for a label that neither has. The mean does not count it.

    Raises:
        ValueError: the shapes differ.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction and reference must have one shape, got {prediction.shape} and {reference.shape}.")
    scores = {}
    for code, name in labels.items():
        if code:
            predicted, labelled = prediction == code, reference == code
            total = int(predicted.sum()) + int(labelled.sum())
            both = int((predicted & labelled).sum())
            scores[name] = round(2 * both / total, 4) if total else float("nan")
    return scores | {"mean": round(float(np.nanmean(list(scores.values()))), 4)}
