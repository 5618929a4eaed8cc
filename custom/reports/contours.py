"""The outlines of labels on the scan, in slices of three planes: what a person looks at after a segmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from custom import RESEARCH_USE_ONLY
from custom.files import printable
from custom.reports.segmentation import PLANES, limits_of

Style = Literal["dotted", "solid", "dashed"]
# Colours of Okabe and Ito that are bright on grey and differ in luminance. The line style tells labels apart in grey.
LINES: tuple[tuple[str, Style], ...] = (
    ("#56b4e9", "dotted"), ("#f0e442", "solid"), ("#d55e00", "dashed"),
    ("#cc79a7", "solid"), ("#009e73", "dashed"), ("#e69f00", "dotted"),
    ("#56b4e9", "solid"), ("#f0e442", "dashed"), ("#d55e00", "dotted"),
    ("#cc79a7", "dashed"), ("#009e73", "dotted"), ("#e69f00", "solid"),
    ("#56b4e9", "dashed"), ("#f0e442", "dotted"), ("#d55e00", "solid"),
    ("#cc79a7", "dotted"), ("#009e73", "solid"), ("#e69f00", "dashed"),
)  # fmt: skip
# Shares of the labels' extent. Sagittal slices lie off the midline, where there is little but the gap between halves.
PLACES = ((0.15, 0.28, 0.42, 0.62, 0.78), (0.2, 0.35, 0.5, 0.65, 0.8), (0.2, 0.35, 0.5, 0.65, 0.8))
MARGIN = 8  # mm around the labels


def contour_figure(
    scan: np.ndarray,
    labels: np.ndarray,
    names: Mapping[int, str],
    spacing: Sequence[float] = (1, 1, 1),
    title: str = "",
) -> Figure:
    """Five slices of each plane, with the outline of each label. The line between two labels is that of the later one.

    Args:
        scan: (x, y, z), any values, axes near RAS.
        labels: (x, y, z), 0 for background.
        names: {0: "background", 1: "CSF", ...}. Labels of one name, such as left and right, share a line.
        spacing: voxel size in mm.
        title: above the figure.

    Raises:
        ValueError: the shapes differ.
    """
    if scan.shape != labels.shape:
        raise ValueError(f"scan and labels must have one shape, got {scan.shape} and {labels.shape}.")
    titles = list(dict.fromkeys(name for code, name in names.items() if code))
    lines = {name: LINES[number % len(LINES)] for number, name in enumerate(titles)}
    number_of = np.zeros(max(names) + 1, dtype=np.int16)
    for code, name in names.items():
        number_of[code] = 0 if code == 0 else 1 + titles.index(name)
    box = _box(labels, spacing)
    scan, labels = scan[box], number_of[labels[box]]
    limits = limits_of(scan)
    figure = Figure(figsize=(13, 9))  # a constrained layout would draw everything several times
    figure.subplots_adjust(left=0, right=1, bottom=0.12, top=0.93, wspace=0.02)
    grid = figure.subplots(3, len(PLACES[0]))
    for axis, row in enumerate(grid):
        labelled = np.flatnonzero(labels.any(axis=tuple(other for other in range(3) if other != axis)))
        first, last = (labelled[0], labelled[-1]) if len(labelled) else (0, scan.shape[axis] - 1)
        for ax, place in zip(row, PLACES[axis], strict=True):
            index = round(first + place * (last - first))
            grey, numbers = (np.take(volume, index, axis).T for volume in (scan, labels))
            _draw(ax, grey, numbers, limits, list(lines.values()))
            width, height = [spacing[other] for other in range(3) if other != axis]
            ax.set_aspect(height / width)
            ax.set_title(f"{PLANES[axis]} {index + (box[axis].start or 0)}", fontsize=8)
    handles = [
        Line2D([], [], color=colour, linestyle=style, lw=2, label=name) for name, (colour, style) in lines.items()
    ]
    legend = figure.legend(handles=handles, loc="lower center", ncols=min(len(handles), 6), fontsize=9)
    legend.set_title(RESEARCH_USE_ONLY)
    legend.get_frame().set_facecolor("0.25")
    for text in (*legend.get_texts(), legend.get_title()):
        text.set_color("white")
    figure.suptitle(printable(title), parse_math=False)  # names of files may hold anything
    return figure


def _box(labels: np.ndarray, spacing: Sequence[float]) -> tuple[slice, slice, slice]:
    """The bounding box of all labels with a margin; everything if there is no label."""
    box = []
    for axis in range(3):
        found = np.flatnonzero(labels.any(axis=tuple(other for other in range(3) if other != axis)))
        margin = round(MARGIN / spacing[axis])
        box.append(slice(max(found[0] - margin, 0), found[-1] + margin + 1) if len(found) else slice(None))
    return box[0], box[1], box[2]


def _draw(
    ax: Axes, grey: np.ndarray, numbers: np.ndarray, limits: tuple[float, float], lines: Sequence[tuple[str, Style]]
) -> None:
    """One slice (height, width), and the outlines of its labels 1, 2, ... in lines[0], lines[1], ..."""
    ax.imshow(grey, origin="lower", cmap="gray", vmin=limits[0], vmax=limits[1], interpolation="bilinear")
    for number, (colour, style) in enumerate(lines, start=1):
        inside = numbers == number
        if inside.any() and min(inside.shape) > 1:
            ax.contour(inside.astype(float), levels=[0.5], colors=[colour], linestyles=style, linewidths=1)
    ax.set_axis_off()
