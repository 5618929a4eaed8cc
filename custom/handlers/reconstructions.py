"""A picture of what a masked autoencoder makes of hidden patches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from matplotlib.figure import Figure

from custom.files import written_whole
from custom.handlers.run_files import WritesFiles
from custom.handlers.state import rank_of
from custom.losses.masked_patches import image_of


class Reconstructions(WritesFiles):
    """Draws images of each validation to reconstructions.png: with hidden patches, rebuilt, and as they are.

    Attach it to the evaluator, whose outputs are whole batches (`"decollate": false`).

    Args:
        output_dir: where the file goes.
        patch_size: pixels of a patch along each axis.
        draw: custom.reports.reconstruction_figure, or another function of images, their rebuilt form, and where they
            were hidden, three tensors (B, C, H, W), that returns a matplotlib Figure.
        images: the most images to draw, evenly spread over the first batch.
    """

    files = ("reconstructions.png",)

    def __init__(self, output_dir: str | Path, patch_size: int, draw: Callable[..., Figure], images: int = 6) -> None:
        self.path = Path(output_dir) / self.files[0]
        self.patch_size = patch_size
        self.draw = draw
        self.images = images

    def attach(self, engine: Engine) -> None:
        """Draws after the first batch of each validation."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Draws the batch if it is the first one."""
        length = engine.state.epoch_length or 1
        if rank_of(engine) > 0 or (engine.state.iteration - 1) % length:
            return
        output: Any = engine.state.output
        image, (patches, mask) = output["image"], output["pred"]
        chosen = torch.linspace(0, len(image) - 1, min(self.images, len(image))).long()
        size = (image.shape[2], image.shape[3])
        hidden = mask[..., None].expand_as(patches)
        whole = (tensor[chosen].float().cpu() for tensor in (patches, hidden))
        rebuilt, hidden = (image_of(tensor, self.patch_size, size) for tensor in whole)
        figure = self.draw(image[chosen].float().cpu(), rebuilt, hidden)
        with written_whole(self.path) as partial:
            figure.savefig(partial, format="png", dpi=100)
