"""What one confusion matrix says about a segmentation."""

from __future__ import annotations

import torch

# Of true positives, false positives, false negatives and true negatives. Where a measure's own question can't be asked
# (the recall of a class that isn't there), it is 0/0 and has no value: NaN.
MEASURES = {
    "dice": lambda tp, fp, fn, tn: 2 * tp / (2 * tp + fp + fn),
    "iou": lambda tp, fp, fn, tn: tp / (tp + fp + fn),
    "accuracy": lambda tp, fp, fn, tn: (tp + tn) / (tp + fp + fn + tn),
    "false_positive_rate": lambda tp, fp, fn, tn: fp / (fp + tn),
    "false_negative_rate": lambda tp, fp, fn, tn: fn / (fn + tp),
    "precision": lambda tp, fp, fn, tn: tp / (tp + fp),
    "recall": lambda tp, fp, fn, tn: tp / (tp + fn),
    "sensitivity": lambda tp, fp, fn, tn: tp / (tp + fn),
    "specificity": lambda tp, fp, fn, tn: tn / (tn + fp),
}


def confusion(prediction: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """True positives, false positives, false negatives and true negatives of each channel, (C,) float64 each.

    Args:
        prediction, truth: (C, ...) of bool, one shape.
    """
    prediction, truth = prediction.flatten(1), truth.flatten(1)
    tp, predicted, there = ((one).sum(1, dtype=torch.float64) for one in (prediction & truth, prediction, truth))
    return tp, predicted - tp, there - tp, prediction.shape[1] - predicted - there + tp
