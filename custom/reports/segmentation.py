"""A segmentation in three planes, beside the scan and the reference labels.

nilearn.plotting (plot_anat with contours, plot_roi) was tried. Contours of touching labels hide each other there, thin
labels disappear, and a figure takes twice as long; so labels are drawn as filled maps, in the same colours everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from custom import RESEARCH_USE_ONLY
from custom.files import printable

COLOURS = ("black", "#56b4e9", "#e69f00", "#f0e442", "#009e73", "#cc79a7", "#d55e00")  # Okabe, Ito: colour-blind safe
PLANES = ("sagittal", "coronal", "axial")  # across the first, second and third axis


def colour_of(label: int) -> str:
    """The colour of a label of 1 or more. There are six colours; from label 7 on they repeat."""
    return COLOURS[1 + (label - 1) % (len(COLOURS) - 1)]


def limits_of(scan: np.ndarray) -> tuple[float, float]:
    """The values that are drawn black and white: the 1st and the 99.5th percentile."""
    low, high = np.percentile(scan, [1, 99.5])
    return float(low), float(high)


def segmentation_figure(
    scan: np.ndarray,
    reference: np.ndarray | None,
    prediction: np.ndarray,
    labels: Mapping[int, str],
    spacing: Sequence[float] = (1, 1, 1),
    title: str = "",
) -> Figure:
    """Sagittal, coronal and axial slices through the middle of the prediction.

    Args:
        scan: (x, y, z), any values, axes near RAS.
        reference: (x, y, z) labels, or None.
        prediction: (x, y, z) labels.
        labels: {0: "background", 1: "CSF", ...}; from label 7 on colours repeat.
        spacing: voxel size in mm.
        title: above the figure.

    Raises:
        ValueError: the shapes differ.
    """
    rows = {"scan": scan} | ({} if reference is None else {"reference": reference}) | {"prediction": prediction}
    if len({volume.shape for volume in rows.values()}) != 1:
        shapes = {name: volume.shape for name, volume in rows.items()}
        raise ValueError(f"the volumes must have one shape, got {shapes}.")
    labelled = np.argwhere(prediction > 0)
    middle = labelled.mean(axis=0).round().astype(int) if len(labelled) else np.array(prediction.shape) // 2
    shades = (COLOURS[0], *(colour_of(code) for code in range(1, max(labels) + 1)))
    colours = ListedColormap(shades)
    norm = BoundaryNorm(np.arange(-0.5, max(labels) + 1.5), colours.N)
    low, high = limits_of(scan)

    figure = Figure(figsize=(10, 3.2 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), 3, squeeze=False)
    for axes, (name, volume) in zip(grid, rows.items(), strict=True):
        for axis, (ax, plane) in enumerate(zip(axes, PLANES, strict=True)):
            width, height = [index for index in range(3) if index != axis]
            image = np.take(volume, middle[axis], axis=axis).T
            style = {"cmap": "gray", "vmin": low, "vmax": high} if name == "scan" else {"cmap": colours, "norm": norm}
            ax.imshow(image, origin="lower", aspect=spacing[height] / spacing[width], interpolation="nearest", **style)
            ax.set(xticks=[], yticks=[], title=f"{name}, {plane}")
    patches = [Patch(color=shades[code], label=name) for code, name in labels.items() if code]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), title=RESEARCH_USE_ONLY)
    figure.suptitle(printable(title), parse_math=False)  # names of files may hold anything
    return figure
