"""What is said of a classifier, or of predicted numbers, with intervals over groups of persons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas
from scipy.stats import rankdata
from sklearn.metrics import mean_absolute_error, precision_recall_fscore_support, r2_score

BINS = 10  # of confidence, for the calibration error
DRAWS = 1000


def classification_scores(
    labels: np.ndarray, probabilities: np.ndarray, classes: Mapping[int, str], groups: Sequence[str], seed: int = 0
) -> pandas.DataFrame:
    """A row for each class and one for "all".

    Of each class recall, precision, F1 and the area under its ROC curve against the others; in the last row their
    means over the classes (the mean recall is the balanced accuracy), and accuracy, log loss, mean confidence and the
    expected calibration error (Guo et al. 2017; 10 bins). `..._low` and `..._high` are 95% intervals from bootstrap
    samples of groups. What has no value (the recall of a class that nobody has) is NaN, and counts in no mean.

    Args:
        labels: (n,), codes of `classes`.
        probabilities: (n, C).
        classes: {0: "F", 1: "M"}
        groups: of each person or image, those that belong together.
        seed: of the bootstrap.
    """
    codes = list(classes)
    found = probabilities.argmax(axis=1)
    precision, recall, f1, counts = precision_recall_fscore_support(labels, found, labels=codes, zero_division=np.nan)
    precision = np.where(np.isnan(precision) & (counts > 0), 0.0, precision)  # never said, though somebody has it
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
        "accuracy": lambda rows: float((found[rows] == labels[rows]).mean()),
        "balanced_accuracy": lambda rows: _balanced_accuracy(labels[rows], found[rows]),
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
) -> tuple[float, float, float]:
    """How far one classifier's balanced accuracy is above another's on the same persons or images.

    Args:
        labels: (n,), what is true.
        predictions, others: (n,), what the one and the other say.
        groups, seed: as classification_scores takes them; both classifiers are scored on the same draws.

    Returns:
        The difference and its 95% interval.
    """
    truth, one, other = (np.asarray(values) for values in (labels, predictions, others))

    def difference(rows: np.ndarray) -> float:
        return _balanced_accuracy(truth[rows], one[rows]) - _balanced_accuracy(truth[rows], other[rows])

    found = _with_intervals({"gain": difference}, groups, seed)
    return found["gain"], found["gain_low"], found["gain_high"]


def regression_scores(
    values: np.ndarray, predictions: np.ndarray, name: str, groups: Sequence[str], seed: int = 0
) -> pandas.DataFrame:
    """One row: mean absolute error (in the target's unit), R squared and Pearson's r, with bootstrap intervals.

    Args:
        values, predictions: (n,).
        name: the target's.
        groups, seed: as classification_scores takes them.
    """
    measures: dict[str, Callable[[np.ndarray], float]] = {
        "mae": lambda rows: float(mean_absolute_error(values[rows], predictions[rows])),
        "r2": lambda rows: float(r2_score(values[rows], predictions[rows])) if len(set(values[rows])) > 1 else np.nan,
        "r": lambda rows: _correlation(values[rows], predictions[rows]),
    }
    return pandas.DataFrame([{"label": name, "n": len(values)} | _with_intervals(measures, groups, seed)])


def roc_auc(truth: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve: the share of pairs, one true and one not, whose scores are in order (ties half).

    Args:
        truth: (n,) bool.
        score: (n,), higher for the true ones.

    Returns:
        0 to 1; NaN where all are alike.
    """
    ones = int(truth.sum())
    pairs = ones * (len(truth) - ones)
    return float((rankdata(score)[truth].sum() - ones * (ones + 1) / 2) / pairs) if pairs else float("nan")


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean over 10 bins of confidence, by their size, of |accuracy - mean confidence| (Guo et al. 2017)."""
    table = reliability(labels, probabilities)
    return float((table["n"] * (table["accuracy"] - table["confidence"]).abs()).sum() / len(labels))


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> pandas.DataFrame:
    """A row for each bin of confidence that has someone: "n", "confidence" and "accuracy", means of the bin."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    frame = pandas.DataFrame({"bin": bins, "confidence": confidence, "accuracy": right.astype(float)})
    return frame.groupby("bin").agg(n=("bin", "size"), confidence=("confidence", "mean"), accuracy=("accuracy", "mean"))


def _with_intervals(
    measures: Mapping[str, Callable[[np.ndarray], float]], groups: Sequence[str], seed: int
) -> dict[str, float]:
    """Each measure of all rows, and its 95% interval over bootstrap samples of groups."""
    names, member_of = np.unique(np.asarray(groups), return_inverse=True)
    members = [np.flatnonzero(member_of == number) for number in range(len(names))]
    rng = np.random.default_rng(seed)
    draws = [
        np.concatenate([members[number] for number in rng.integers(0, len(names), len(names))]) for _ in range(DRAWS)
    ]
    scores: dict[str, float] = {}
    for name, measure in measures.items():
        found = np.array([measure(rows) for rows in draws])
        scores[name] = measure(np.arange(len(member_of)))
        low, high = np.nanquantile(found, [0.025, 0.975]) if np.isfinite(found).any() else (np.nan, np.nan)
        scores |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    return scores


def _balanced_accuracy(truth: np.ndarray, found: np.ndarray) -> float:
    """The mean recall over the classes that there are."""
    return _mean([float((found[truth == one] == one).mean()) for one in np.unique(truth)])


def _mean(values: list[float]) -> float:
    there = [value for value in values if not np.isnan(value)]
    return float(np.mean(there)) if there else float("nan")


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if first.std() == 0 or second.std() == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])
