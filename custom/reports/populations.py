"""Figures of many persons' volumes: principal components, means, projections, validation and learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from custom import RESEARCH_USE_ONLY
from custom.reports.segmentation import PLANES


def explained_variance_figure(ratio: np.ndarray) -> Figure:
    """The share of the variance that each principal component explains, and the cumulated share.

    Args:
        ratio: (components,), 0 to 1, in descending order.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    ax = figure.subplots()
    numbers = np.arange(1, len(ratio) + 1)
    ax.bar(numbers, ratio, width=1.0, color="C0", alpha=0.5, label="component")
    ax.plot(numbers, np.cumsum(ratio), color="C1", label="cumulated")
    ax.set(xlabel="principal component", ylabel="share of the variance", ylim=(0, 1.02))
    ax.legend()
    return _signed(figure)


def volumes_figure(volumes: Mapping[str, np.ndarray], title: str = "", diverging: Sequence[str] = ()) -> Figure:
    """Volumes in rows, each in three planes through its centre.

    Args:
        volumes: {name: (x, y, z) in RAS}.
        title: above the figure.
        diverging: names of volumes that are drawn from blue (below 0) to red (above 0).
    """
    figure = Figure(figsize=(7.5, 0.6 + 2.4 * len(volumes)), layout="constrained")
    grid = figure.subplots(len(volumes), 3, squeeze=False)
    for axes, (name, volume) in zip(grid, volumes.items(), strict=True):
        if name in diverging:
            limit = float(np.percentile(np.abs(volume), 99.5)) or 1.0
            style = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
        else:
            style = {"cmap": "gray"}
        for axis, (ax, plane) in enumerate(zip(axes, PLANES, strict=True)):
            ax.imshow(np.take(volume, volume.shape[axis] // 2, axis=axis).T, origin="lower", **style)
            ax.set(xticks=[], yticks=[])
            if axes is grid[0]:
                ax.set_title(plane)
        axes[0].set_ylabel(name)
    figure.suptitle(title)
    return _signed(figure)


def projections_figure(scores: np.ndarray, labels: np.ndarray, names: Mapping[int, str]) -> Figure:
    """Scatter plots of the persons' scores on pairs of the first components.

    Args:
        scores: (n, components), of which up to four are drawn.
        labels: (n,), codes of `names`, or numbers where `names` has one entry.
        names: {code: name of the class}, or {0: name of the number}.
    """
    pairs = [(first, first + 1) for first in range(0, min(scores.shape[1], 4) - 1, 2)]
    figure = Figure(figsize=(1 + 4.5 * len(pairs), 4.2), layout="constrained")
    for ax, (first, second) in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs, strict=True):
        if len(names) == 1:
            points = ax.scatter(scores[:, first], scores[:, second], c=labels, s=14)
            figure.colorbar(points, ax=ax, label=names[0])
        else:
            for number, (code, name) in enumerate(names.items()):
                chosen = scores[labels == code]
                ax.scatter(chosen[:, first], chosen[:, second], s=14, color=f"C{number}", label=name, alpha=0.8)
            ax.legend()
        ax.set(xlabel=f"component {first + 1}", ylabel=f"component {second + 1}")
    return _signed(figure)


def train_and_test_figure(
    values: Sequence[float] | np.ndarray,
    training: np.ndarray,
    test: np.ndarray,
    xlabel: str,
    ylabel: str,
    log: bool = False,
) -> Figure:
    """Training and test score against a setting or the number of persons: mean and std over folds.

    Args:
        values: of the setting.
        training: scores, (values, folds).
        test: scores, (values, folds).
        xlabel: name of the setting.
        ylabel: name of the score.
        log: logarithmic scale of the setting.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    ax = figure.subplots()
    for number, (name, scores) in enumerate((("training", training), ("test", test))):
        mean, std = scores.mean(axis=1), scores.std(axis=1)
        ax.plot(values, mean, "o-", color=f"C{number}", label=name)
        ax.fill_between(values, mean - std, mean + std, color=f"C{number}", alpha=0.2)
    ax.set(xlabel=xlabel, ylabel=ylabel, xscale="log" if log else "linear", title=f"{test.shape[1]} folds")
    ax.legend()
    ax.grid(alpha=0.3)
    return _signed(figure)


def _signed(figure: Figure) -> Figure:
    figure.supxlabel(RESEARCH_USE_ONLY, fontsize=8)
    return figure
