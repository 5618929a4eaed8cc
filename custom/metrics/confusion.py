"""Measures of a segmentation from its confusion matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch


class Confusion(NamedTuple):
    """Voxels of each channel, (C,) float64 each."""

    true_positives: torch.Tensor
    false_positives: torch.Tensor
    false_negatives: torch.Tensor
    true_negatives: torch.Tensor


def _dice(matrix: Confusion) -> torch.Tensor:
    twice = 2 * matrix.true_positives
    return twice / (twice + matrix.false_positives + matrix.false_negatives)


def _iou(matrix: Confusion) -> torch.Tensor:
    return matrix.true_positives / (matrix.true_positives + matrix.false_positives + matrix.false_negatives)


def _accuracy(matrix: Confusion) -> torch.Tensor:
    right = matrix.true_positives + matrix.true_negatives
    return right / (right + matrix.false_positives + matrix.false_negatives)


def _false_positive_rate(matrix: Confusion) -> torch.Tensor:
    return matrix.false_positives / (matrix.false_positives + matrix.true_negatives)


def _false_negative_rate(matrix: Confusion) -> torch.Tensor:
    return matrix.false_negatives / (matrix.false_negatives + matrix.true_positives)


def _precision(matrix: Confusion) -> torch.Tensor:
    return matrix.true_positives / (matrix.true_positives + matrix.false_positives)


def _recall(matrix: Confusion) -> torch.Tensor:
    return matrix.true_positives / (matrix.true_positives + matrix.false_negatives)


def _specificity(matrix: Confusion) -> torch.Tensor:
    return matrix.true_negatives / (matrix.true_negatives + matrix.false_positives)


# A measure without a value (the recall of a class that the reference lacks) is 0/0: NaN.
MEASURES: dict[str, Callable[[Confusion], torch.Tensor]] = {
    "dice": _dice,
    "iou": _iou,
    "accuracy": _accuracy,
    "false_positive_rate": _false_positive_rate,
    "false_negative_rate": _false_negative_rate,
    "precision": _precision,
    "recall": _recall,
    "sensitivity": _recall,
    "specificity": _specificity,
}


def confusion(prediction: torch.Tensor, reference: torch.Tensor) -> Confusion:
    """The confusion matrix of each channel against its complement.

    Args:
        prediction: (C, ...) of bool.
        reference: (C, ...) of bool, the same shape.
    """
    prediction, reference = prediction.flatten(1), reference.flatten(1)
    both, predicted, labelled = (
        mask.sum(1, dtype=torch.float64) for mask in (prediction & reference, prediction, reference)
    )
    return Confusion(both, predicted - both, labelled - both, prediction.shape[1] - predicted - labelled + both)
