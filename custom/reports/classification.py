"""Pictures of what a classifier, or a regression, says of test persons or images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay, roc_curve

from custom import RESEARCH_USE_ONLY
from custom.metrics.classification import calibration_error, reliability, roc_auc


def confusion_figure(labels: np.ndarray, probabilities: np.ndarray, classes: Mapping[int, str]) -> Figure:
    """How many of each class were said to be of each.

    Args:
        labels: (n,), codes of `classes`.
        probabilities: (n, C).
        classes: {0: "F", 1: "M"}
    """
    figure = Figure(figsize=(2 + 0.9 * len(classes), 1.8 + 0.8 * len(classes)), layout="constrained")
    ConfusionMatrixDisplay.from_predictions(
        labels,
        probabilities.argmax(axis=1),
        labels=list(classes),
        display_labels=list(classes.values()),
        cmap="Blues",
        colorbar=False,
        ax=figure.subplots(),
    )
    return _signed(figure)


def roc_figure(labels: np.ndarray, probabilities: np.ndarray, classes: Mapping[int, str]) -> Figure:
    """The ROC curve of each class against the others, with its area; of two classes the second one's.

    Takes what confusion_figure does.
    """
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    ax = figure.subplots()
    for code, name in list(classes.items())[len(classes) == 2 :]:
        truth = labels == code
        if 0 < truth.sum() < len(truth):
            false, true, _ = roc_curve(truth, probabilities[:, code])
            ax.plot(false, true, label=f"{name}, {roc_auc(truth, probabilities[:, code]):.3f}")
    ax.plot([0, 1], [0, 1], ":", color="gray")
    ax.set(xlabel="false positive rate", ylabel="true positive rate", title=f"{len(labels)} in the split")
    ax.legend(title="area")
    return _signed(figure)


def reliability_figure(labels: np.ndarray, probabilities: np.ndarray) -> Figure:
    """How often what was said with a confidence is true, bin by bin; a calibrated classifier lies on the line.

    Args:
        labels: (n,).
        probabilities: (n, C).
    """
    table = reliability(labels, probabilities)
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    ax = figure.subplots()
    ax.plot([0, 1], [0, 1], ":", color="gray")
    ax.plot(table["confidence"], table["accuracy"], "o-")
    for n, confidence, accuracy in table.itertuples(index=False):
        ax.annotate(f"{n:.0f}", (confidence, accuracy), xytext=(4, -10), textcoords="offset points", fontsize=8)
    title = f"expected calibration error {calibration_error(labels, probabilities):.3f}, n = {len(labels)}"
    ax.set(xlabel="mean confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(-0.02, 1.02), title=title)
    return _signed(figure)


def images_figure(images: Sequence[np.ndarray], names: Sequence[str], title: str) -> Figure:
    """A grid of images with a title each; of volumes the middle axial slice.

    Args:
        images: (C, H, W) or (C, x, y, z), of which the first channel is shown.
        names: of each.
        title: above all.
    """
    columns = min(4, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(0.3 + 2.4 * columns, 0.8 + 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.set_axis_off()
    for ax, image, name in zip(axes, images, names, strict=False):
        flat = image[0] if image.ndim == 3 else image[0, ..., image.shape[-1] // 2].T
        ax.imshow(flat, cmap="gray", origin="upper" if image.ndim == 3 else "lower")
        ax.set_title(name, fontsize=8)
    figure.suptitle(title)
    return _signed(figure)


def predicted_figure(values: np.ndarray, predictions: np.ndarray, name: str) -> Figure:
    """Predicted against true numbers.

    Args:
        values, predictions: (n,), in the target's unit.
        name: the target's.
    """
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    ax = figure.subplots()
    ends = [min(values.min(), predictions.min()), max(values.max(), predictions.max())]
    ax.plot(ends, ends, ":", color="gray")
    ax.plot(values, predictions, "o", markersize=4)
    ax.set(xlabel=name, ylabel=f"{name}, predicted", title=f"n = {len(values)}")
    return _signed(figure)


def _signed(figure: Figure) -> Figure:
    figure.supxlabel(RESEARCH_USE_ONLY, fontsize=8)
    return figure
