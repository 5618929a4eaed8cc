"""Images with hidden patches, rebuilt by a masked autoencoder, and as they are."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure

from custom import RESEARCH_USE_ONLY


def reconstruction_figure(images: torch.Tensor, rebuilt: torch.Tensor, hidden: torch.Tensor) -> Figure:
    """A column for each image: what the network saw, what it made of it, and the image; grey, each in its own window.

    Args:
        images: (B, C, H, W), any values; the mean of the channels is drawn.
        rebuilt: the network's answer, in the same form; drawn where the image was hidden.
        hidden: 1 where the network did not see the image, else 0, in the same form.
    """
    answer = torch.where(hidden > 0, rebuilt, images)
    figure = Figure(figsize=(1.6 * len(images) + 0.6, 5.4), layout="constrained")
    rows = figure.subplots(3, len(images), squeeze=False)
    for column, image in enumerate(images.mean(dim=1)):
        window = {"cmap": "gray", "vmin": float(image.min()), "vmax": float(image.max())}
        seen = torch.where(hidden[column, 0] > 0, torch.nan, image)
        for ax, picture in zip(rows[:, column], (seen, answer[column].mean(dim=0), image), strict=True):
            ax.set_facecolor("#b7c9e2")  # hidden patches: a colour that no grey image has
            ax.imshow(picture.numpy(), **window)
            ax.set_xticks([])
            ax.set_yticks([])
    for ax, name in zip(rows[:, 0], ("seen", "rebuilt", "original"), strict=True):
        ax.set_ylabel(name)
    figure.supxlabel(RESEARCH_USE_ONLY, fontsize=8)
    return figure
