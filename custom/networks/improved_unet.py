"""The 2D U-Net with separable convolutions and inverted bottlenecks, and its skips added."""

from __future__ import annotations

import torch
from torch import nn


class ImprovedUNet(nn.Module):
    """U-Net of ConvNeXt-like half-blocks: a depthwise 7x7 convolution, then two of 1x1 with a wide middle.

    After Liu et al. 2022, "A ConvNet for the 2020s" (CVPR), in the form of the project that this bundle reproduces:
    batch norm only after the depthwise convolution, one ReLU in a half-block, no residuals; skips are added.

    Args:
        in_channels: channels of the image.
        out_channels: classes.
        n_filters: width of the first level; it doubles three times.

    Shapes: (B, in_channels, H, W) to (B, out_channels, H, W); H and W multiples of 16.
    """

    def __init__(self, in_channels: int, out_channels: int, n_filters: int = 32) -> None:
        super().__init__()
        f = n_filters
        self.down = nn.ModuleList(
            [
                nn.Sequential(half_block(n_in, 4 * n_out, n_out), half_block(n_out, 4 * n_out, n_out))
                for n_in, n_out in ((in_channels, f), (f, 2 * f), (2 * f, 4 * f), (4 * f, 8 * f))
            ]
        )
        self.bottom = nn.Sequential(half_block(8 * f, 32 * f, 8 * f), half_block(8 * f, 32 * f, 8 * f))
        self.up = nn.ModuleList(
            [
                nn.Sequential(half_block(n_in, 4 * n_in, n_out), half_block(n_out, 4 * n_out, n_out))
                for n_in, n_out in ((8 * f, 4 * f), (4 * f, 2 * f), (2 * f, f), (f, f))
            ]
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
            x = block(self.upsample(x) + skips.pop())
        logits: torch.Tensor = self.head(x)
        return logits


def half_block(in_channels: int, middle: int, out_channels: int) -> nn.Sequential:
    """A depthwise 7x7 convolution, then 1x1 to `middle` and to `out_channels`; the last convolution stays linear."""
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 7, padding=3, groups=in_channels),
        nn.BatchNorm2d(in_channels),
        nn.Conv2d(in_channels, middle, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(middle, out_channels, 1),
    )
