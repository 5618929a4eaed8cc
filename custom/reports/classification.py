"""Figures of a classifier's or a regression's predictions for a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay, roc_curve

from custom import RESEARCH_USE_ONLY
from custom.metrics.classification import calibration_error, reliability, roc_auc


def confusion_figure(labels: np.ndarray, probabilities: np.ndarray, classes: Mapping[int, str]) -> Figure:
    """The confusion matrix: reference classes in rows, predicted classes in columns.

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
    """The ROC curve of each class against the others, with its AUC; of two classes only the second one's.

    Takes the same arguments as confusion_figure.
    """
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    ax = figure.subplots()
    for code, name in list(classes.items())[len(classes) == 2 :]:
        positive = labels == code
        if 0 < positive.sum() < len(positive):
            false, true, _ = roc_curve(positive, probabilities[:, code])
            ax.plot(false, true, label=f"{name}, {roc_auc(positive, probabilities[:, code]):.3f}")
    ax.plot([0, 1], [0, 1], ":", color="gray")
    ax.set(xlabel="false positive rate", ylabel="true positive rate", title=f"{len(labels)} in the split")
    ax.legend(title="AUC")
    return _signed(figure)


def reliability_figure(labels: np.ndarray, probabilities: np.ndarray) -> Figure:
    """Accuracy against confidence, bin by bin. The points of a calibrated classifier lie on the diagonal.

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
    """A grid of images with titles; of volumes the middle axial slice.

    Args:
        images: (C, H, W) or (C, x, y, z), of which the first channel is shown.
        names: the titles of the images.
        title: above the figure.
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
    """Predicted against reference values.

    Args:
        values: (n,), in the unit of the target.
        predictions: (n,), in the same unit.
        name: of the target.
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
