"""The 2D U-Net, padded and without normalisation."""

from __future__ import annotations

import torch
from torch import nn


class ClassicUNet(nn.Module):
    """U-Net after Ronneberger, Fischer, Brox 2015 (MICCAI), with padded convolutions and bilinear upsampling.

    Args:
        in_channels: channels of the image.
        out_channels: classes.
        n_filters: width of the first level; it doubles four times.

    Shapes: (B, in_channels, H, W) to (B, out_channels, H, W); H and W multiples of 16.
    """

    def __init__(self, in_channels: int, out_channels: int, n_filters: int = 32) -> None:
        super().__init__()
        f = n_filters
        self.down = nn.ModuleList(
            [
                _block(n_in, n_out, n_out)
                for n_in, n_out in ((in_channels, f), (f, 2 * f), (2 * f, 4 * f), (4 * f, 8 * f))
            ]
        )
        self.bottom = _block(8 * f, 16 * f, 8 * f)
        self.up = nn.ModuleList(
            [_block(16 * f, 8 * f, 4 * f), _block(8 * f, 4 * f, 2 * f), _block(4 * f, 2 * f, f), _block(2 * f, f, f)]
        )
        self.pool = nn.MaxPool2d(2)
        self.upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.head = nn.Conv2d(f, out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W) to logits (B, out_channels, H, W)."""
        skips: list[torch.Tensor] = []
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = self.pool(x)
        x = self.bottom(x)
        for block in self.up:
            x = block(torch.cat([self.upsample(x), skips.pop()], dim=1))
        logits: torch.Tensor = self.head(x)
        return logits


def _block(in_channels: int, middle: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, middle, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(middle, out_channels, 3, padding=1),
        nn.ReLU(inplace=True),
    )
