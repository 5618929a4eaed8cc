"""The figure of a comparison of networks."""

from __future__ import annotations

import numpy as np
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from custom import RESEARCH_USE_ONLY


def comparison_figure(scores: pandas.DataFrame, table: pandas.DataFrame, measure: str, device: str) -> Figure:
    """Left, a measure of each test subject by label and network; right, its mean against the time of an epoch.

    Args:
        scores: a row for each subject, label, network and seed.
        table: a row for each network, with seconds_an_epoch and parameters.
        measure: a column of both.
        device: where the networks ran.
    """
    networks, labels = list(table["network"]), list(dict.fromkeys(scores["label"]))
    figure = Figure(figsize=(6 + 1.2 * len(labels) + 0.6 * len(networks), 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[len(labels), 1.6])
    for index, network in enumerate(networks):
        of_network = scores[scores["network"] == network]
        values = [of_network[of_network["label"] == label][measure].dropna().to_numpy() for label in labels]
        places = np.arange(len(labels)) + (index - (len(networks) - 1) / 2) * 0.8 / len(networks)
        _boxes(left, values, places, 0.7 / len(networks), f"C{index}")
        row = table.iloc[index]
        spread = row.get(f"{measure}_subject_std", row.get(f"{measure}_seed_std"))
        right.errorbar(row["seconds_an_epoch"], row[measure], yerr=spread, fmt="o", color=f"C{index}", capsize=3)
        right.plot([], [], "o", color=f"C{index}", label=f"{network} ({row['parameters'] / 1e6:.2f} M)")
    left.set(xticks=range(len(labels)), xticklabels=labels, ylabel=measure, title="test subjects, all seeds")
    right.set(xlabel="seconds an epoch", ylabel=f"mean {measure}, and its standard deviation", title=device)
    figure.legend(loc="outside right center")
    for ax in (left, right):
        ax.grid(alpha=0.3)
    figure.supxlabel(RESEARCH_USE_ONLY, fontsize=8)
    return figure


def _boxes(ax: Axes, values: list[np.ndarray], places: np.ndarray, width: float, colour: str) -> None:
    """A box for each label at its place, with a point for each value."""
    boxes = ax.boxplot(values, positions=places, widths=width, patch_artist=True, showfliers=False)
    for box in boxes["boxes"]:
        box.set(facecolor=colour, alpha=0.4)
    for line in boxes["medians"]:
        line.set(color="black")
    for place, points in zip(places, values, strict=True):
        ax.plot(np.full(len(points), place), points, ".", color=colour, markersize=8)
