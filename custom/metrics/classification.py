"""Measures of classifiers and of predicted numbers, with 95% intervals over groups of persons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas
from scipy.stats import rankdata
from sklearn.metrics import mean_absolute_error, precision_recall_fscore_support, r2_score

from custom.metrics.bootstrap import Interval, bootstrap_intervals

BINS = 10  # of confidence, for the calibration error


def classification_scores(
    labels: np.ndarray, probabilities: np.ndarray, classes: Mapping[int, str], groups: Sequence[str], seed: int = 0
) -> pandas.DataFrame:
    """A row for each class, and a last row "all".

    Each class has its recall, precision, F1 and ROC AUC against the other classes. The last row has their means over
    the classes (the mean recall is the balanced accuracy), accuracy, log loss, mean confidence and the expected
    calibration error (Guo et al. 2017; 10 bins). `..._low` and `..._high` are 95% intervals from bootstrap samples of
    groups. A measure without a value (the recall of a class that no label has) is NaN, and no mean counts it.

    Args:
        labels: (n,), codes of `classes`.
        probabilities: (n, C).
        classes: {0: "F", 1: "M"}
        groups: (n,), the family of each person, or the patient of each image.
        seed: of the bootstrap.
    """
    codes = list(classes)
    predicted = probabilities.argmax(axis=1)
    precision, recall, f1, counts = precision_recall_fscore_support(
        labels, predicted, labels=codes, zero_division=np.nan
    )
    precision = np.where(np.isnan(precision) & (counts > 0), 0.0, precision)  # a class that exists was never predicted
    rows = [
        {
            "label": classes[code],
            "n": int(counts[code]),
            "recall": recall[code],
            "precision": precision[code],
            "f1": f1[code],
            "auc": roc_auc(labels == code, probabilities[:, code]),
        }
        for code in codes
    ]
    table = pandas.DataFrame(rows)
    overall: dict[str, object] = {"label": "all", "n": len(labels)}
    overall |= {name: table[name].mean() for name in ("recall", "precision", "f1", "auc")}
    measures: dict[str, Callable[[np.ndarray], float]] = {
        "accuracy": lambda rows: float((predicted[rows] == labels[rows]).mean()),
        "balanced_accuracy": lambda rows: _balanced_accuracy(labels[rows], predicted[rows]),
        "auc": lambda rows: _mean([roc_auc(labels[rows] == code, probabilities[rows, code]) for code in codes]),
    }
    overall |= _with_intervals(measures, groups, seed)
    likelihood = probabilities[np.arange(len(labels)), np.searchsorted(codes, labels)]
    overall["log_loss"] = float(-np.log(np.clip(likelihood, 1e-15, 1)).mean())
    overall["confidence"] = float(probabilities.max(axis=1).mean())
    overall["calibration_error"] = calibration_error(labels, probabilities)
    return pandas.concat([table, pandas.DataFrame([overall])], ignore_index=True)


def gain(
    labels: Sequence[str], predictions: Sequence[str], others: Sequence[str], groups: Sequence[str], seed: int = 0
) -> Interval:
    """How far one classifier's balanced accuracy is above another's on the same persons or images.

    Args:
        labels: (n,), the reference classes.
        predictions: (n,), the classes that the first classifier predicts.
        others: (n,), the classes that the second classifier predicts.
        groups: (n,), as classification_scores takes them. Both classifiers are scored on the same draws.
        seed: of the bootstrap.

    Returns:
        The difference and its 95% interval.
    """
    reference, first, second = (np.asarray(values) for values in (labels, predictions, others))

    def difference(rows: np.ndarray) -> float:
        return _balanced_accuracy(reference[rows], first[rows]) - _balanced_accuracy(reference[rows], second[rows])

    return bootstrap_intervals({"gain": difference}, groups, seed=seed)["gain"]


def regression_scores(
    values: np.ndarray, predictions: np.ndarray, name: str, groups: Sequence[str], seed: int = 0
) -> pandas.DataFrame:
    """One row: mean absolute error (in the target's unit), R squared and Pearson's r, with bootstrap intervals.

    Args:
        values: (n,), the reference values.
        predictions: (n,), in the same unit.
        name: of the target.
        groups: (n,), as classification_scores takes them.
        seed: of the bootstrap.
    """
    measures: dict[str, Callable[[np.ndarray], float]] = {
        "mae": lambda rows: float(mean_absolute_error(values[rows], predictions[rows])),
        "r2": lambda rows: float(r2_score(values[rows], predictions[rows])) if len(set(values[rows])) > 1 else np.nan,
        "r": lambda rows: _correlation(values[rows], predictions[rows]),
    }
    return pandas.DataFrame([{"label": name, "n": len(values)} | _with_intervals(measures, groups, seed)])


def roc_auc(positive: np.ndarray, score: np.ndarray) -> float:
    """ROC AUC: the share of pairs, one positive and one negative, whose scores are in order (ties count half).

    Unlike scikit-learn's it gives NaN instead of an error where only one class has members.

    Args:
        positive: (n,) bool.
        score: (n,), higher for positives.

    Returns:
        0 to 1; NaN where all are positive or all are negative.
    """
    positives = int(positive.sum())
    pairs = positives * (len(positive) - positives)
    if not pairs:
        return float("nan")
    return float((rankdata(score)[positive].sum() - positives * (positives + 1) / 2) / pairs)


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean over 10 bins of confidence, weighted by their size, of |accuracy - mean confidence| (Guo et al. 2017)."""
    table = reliability(labels, probabilities)
    return float((table["n"] * (table["accuracy"] - table["confidence"]).abs()).sum() / len(labels))


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> pandas.DataFrame:
    """A row for each bin of confidence that is not empty: "n", and the bin's mean "confidence" and "accuracy"."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    frame = pandas.DataFrame({"bin": bins, "confidence": confidence, "accuracy": right.astype(float)})
    return frame.groupby("bin").agg(n=("bin", "size"), confidence=("confidence", "mean"), accuracy=("accuracy", "mean"))


def _with_intervals(
    measures: Mapping[str, Callable[[np.ndarray], float]], groups: Sequence[str], seed: int
) -> dict[str, float]:
    """Columns `name`, `name_low` and `name_high` of each measure."""
    columns: dict[str, float] = {}
    for name, interval in bootstrap_intervals(measures, groups, seed=seed).items():
        columns |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return columns


def _balanced_accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """The mean recall over the classes that `labels` has."""
    return _mean([float((predicted[labels == code] == code).mean()) for code in np.unique(labels)])


def _mean(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if first.std() == 0 or second.std() == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])
