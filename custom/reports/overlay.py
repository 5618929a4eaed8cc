"""Labels over the scan: a figure of three planes, and animations through the volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image, ImageDraw

from custom import RESEARCH_USE_ONLY
from custom.files import printable, written_whole
from custom.reports.segmentation import PLANES, colour_of, limits_of

OPACITY = 0.5
FRAME_MS = 80


def painted(
    scan: np.ndarray, labels: np.ndarray, limits: tuple[float, float], axis: int, index: int, spacing: Sequence[float]
) -> Image.Image:
    """One slice, grey, with labels over it in colour, in square pixels, the higher end of the second axis on top.

    Args:
        scan: (x, y, z), any values.
        labels: (x, y, z), the same shape.
        limits: the scan's values that are drawn black and white.
        axis: 0, 1 or 2, across the slice.
        index: of the slice along that axis.
        spacing: voxel size in mm.
    """
    grey, codes = (np.take(volume, index, axis=axis).T[::-1] for volume in (scan, labels))
    low, high = limits
    picture = np.repeat(np.clip((grey - low) / max(high - low, 1e-6), 0, 1)[..., None], 3, axis=-1)
    for code in np.unique(codes[codes > 0]):
        inside = codes == code
        picture[inside] = (1 - OPACITY) * picture[inside] + OPACITY * np.array(to_rgb(colour_of(int(code))))
    width, height = (spacing[other] for other in range(3) if other != axis)
    smallest = min(spacing)
    size = round(picture.shape[1] * width / smallest), round(picture.shape[0] * height / smallest)
    return Image.fromarray((255 * picture).astype(np.uint8)).resize(size, Image.Resampling.NEAREST)


def overlay_figure(
    scan: np.ndarray,
    labels: np.ndarray,
    names: Mapping[int, str],
    spacing: Sequence[float] = (1, 1, 1),
    columns: int = 5,
    title: str = "",
) -> Figure:
    """Slices through the labelled region in three rows, one for each plane.

    Args:
        scan: (x, y, z), any values, axes near RAS.
        labels: (x, y, z), 0 for background.
        names: {0: "background", 1: "NCR", ...}
        spacing: voxel size in mm.
        columns: slices of each plane, evenly from the first to the last labelled one.
        title: above the figure.

    Raises:
        ValueError: the shapes differ.
    """
    if scan.shape != labels.shape:
        raise ValueError(f"scan and labels must have one shape, got {scan.shape} and {labels.shape}.")
    figure = Figure(figsize=(2.4 * columns, 7.6), layout="constrained")
    limits, labelled = limits_of(scan), np.argwhere(labels > 0)
    for axis, (row, plane) in enumerate(zip(figure.subplots(3, columns, squeeze=False), PLANES, strict=True)):
        first, last = (labelled[:, axis].min(), labelled[:, axis].max()) if len(labelled) else (0, scan.shape[axis] - 1)
        for ax, index in zip(row, np.linspace(first, last, columns + 2).round().astype(int)[1:-1], strict=True):
            ax.imshow(painted(scan, labels, limits, axis, int(index), spacing))
            ax.set_title(f"{plane} {index}", fontsize=8)
            ax.set_axis_off()
    patches = [Patch(color=colour_of(code), label=name) for code, name in names.items() if code]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), title=RESEARCH_USE_ONLY)
    figure.suptitle(printable(title), parse_math=False)  # names of files may hold anything
    return figure


def animation(
    scan: np.ndarray, labels: np.ndarray, axis: int, spacing: Sequence[float] = (1, 1, 1)
) -> list[Image.Image]:
    """A frame for each slice along an axis, from its start to its end; `save_animation` writes them.

    Args:
        scan: as in overlay_figure.
        labels: as in overlay_figure.
        axis: 0, 1 or 2.
        spacing: as in overlay_figure.
    """
    limits = limits_of(scan)
    return [painted(scan, labels, limits, axis, index, spacing) for index in range(scan.shape[axis])]


def save_animation(frames: Sequence[Image.Image], path: Path, at_least: int = 300) -> Path:
    """Writes an endless GIF atomically, at least `at_least` pixels wide, with "Research use only" on every frame."""
    wide = max(at_least, frames[0].width)
    shown = []
    for frame in frames:
        height = round(frame.height * wide / frame.width)
        canvas = Image.new("RGB", (wide, height + 14))
        canvas.paste(frame.resize((wide, height), Image.Resampling.NEAREST), (0, 14))
        ImageDraw.Draw(canvas).text((3, 1), RESEARCH_USE_ONLY, fill="white")
        shown.append(canvas.quantize(64))
    with written_whole(path) as partial:
        shown[0].save(partial, format="GIF", save_all=True, append_images=shown[1:], duration=FRAME_MS, loop=0)
    return path
