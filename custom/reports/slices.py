"""A slice in all its channels, and the maps of a network's attention gates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image

from custom import RESEARCH_USE_ONLY
from custom.networks import AttentionUNet
from custom.reports.segmentation import limits_of


def channels_figure(
    image: np.ndarray,
    masks: dict[str, np.ndarray],
    channels: Sequence[str],
    masks_of: Sequence[str],
    title: str = "",
) -> Figure:
    """A row of the image's channels, and below them a row of masks for each source.

    Args:
        image: (C, x, y), any values, axes near RAS.
        masks: {"reference": (M, x, y) of 0 and 1, "prediction": ...}
        channels: names of the C channels.
        masks_of: names of the M masks.
        title: above the figure.
    """
    columns = max(len(channels), len(masks_of))
    figure = Figure(figsize=(2.5 * columns, 2.8 * (1 + len(masks))), layout="constrained")
    axes = figure.subplots(1 + len(masks), columns, squeeze=False)
    for ax, channel, name in zip(axes[0], image, channels, strict=False):
        low, high = limits_of(channel)
        ax.imshow(channel.T, origin="lower", cmap="gray", vmin=low, vmax=high)
        ax.set_title(name)
    for row, (source, stack) in zip(axes[1:], masks.items(), strict=True):
        for ax, mask, name in zip(row, stack, masks_of, strict=False):
            ax.imshow(mask.T, origin="lower", cmap="gray", vmin=0, vmax=1)
            ax.set_title(f"{name}, {source}")
    for ax in axes.flat:
        ax.set_axis_off()
    figure.suptitle(title)
    figure.supxlabel(RESEARCH_USE_ONLY, fontsize=8)
    return figure


def attention_figure(network: AttentionUNet, image: torch.Tensor) -> Figure:
    """The first channel of a slice, and the four gates' maps over it, the deepest first.

    Args:
        network: a network with attention_maps.
        image: (C, H, W), as the network takes it.
    """
    figure = Figure(figsize=(12.5, 3), layout="constrained")
    left, *others = figure.subplots(1, 5)
    left.imshow(image[0].T.cpu(), cmap="gray")
    left.set_title("input")
    for ax, gate in zip(others, _maps(network, image[None]), strict=True):
        ax.imshow(image[0].T.cpu(), cmap="gray")
        shown = ax.imshow(_enlarged(gate, image.shape[1:])[0, 0].T.cpu(), cmap="inferno", alpha=0.6, vmin=0, vmax=1)
        ax.set_title(f"gate at {gate.shape[2]}x{gate.shape[3]}")
    figure.colorbar(shown, ax=others, shrink=0.8)
    for ax in (left, *others):
        ax.set_axis_off()
    figure.supxlabel(RESEARCH_USE_ONLY, fontsize=8)
    return figure


def attention_animation(network: AttentionUNet, volume: torch.Tensor) -> list[Image.Image]:
    """A frame for each slice: the first channel, and the four gates' maps, side by side.

    Args:
        network: a network with attention_maps.
        volume: (C, H, W, S), slices last, as the network takes them.
    """
    low, high = limits_of(volume[0].cpu().numpy())
    frames = []
    for index in range(volume.shape[-1]):
        image = volume[None, ..., index]
        grey = ((image[0, 0].cpu().numpy() - low) / max(high - low, 1e-6)).clip(0, 1)
        tiles = [np.repeat(grey[..., None], 3, axis=-1)]
        for gate in _maps(network, image):
            heat = colormaps["inferno"](_enlarged(gate, image.shape[2:])[0, 0].cpu().numpy())[..., :3]
            tiles.append(0.4 * tiles[0] + 0.6 * heat)
        row = np.concatenate([tile.transpose(1, 0, 2) for tile in tiles], axis=1)
        frames.append(Image.fromarray((255 * row).astype(np.uint8)))
    return frames


def _maps(network: AttentionUNet, image: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        return network.eval().attention_maps(image.float())


def _enlarged(gate: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    return torch.nn.functional.interpolate(gate, size=tuple(size), mode="bilinear", align_corners=True)
