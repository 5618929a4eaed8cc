"""A small convolutional classifier with batch norm and Mish."""

from __future__ import annotations

import torch
from torch import nn


class CustomCNN(nn.Module):
    """Four convolutions, each with batch norm and Mish (Misra 2019, arXiv:1908.08681), and three dense layers.

    The "CustomCNN" of M. Tallone's brain tumour project: 3,001,156 parameters for three channels and four classes.
    Features are averaged to 2x2 fields, so that other image sizes than 128x128 (which gives 2x2 anyway) work too.

    Args:
        in_channels: channels of the image.
        out_channels: classes.
        dropout: probability, after each of the first two dense layers.

    Shapes: (B, in_channels, H, W), H and W 69 or more, to logits (B, out_channels).
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.4) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(in_channels, 96, 9, stride=4),
            nn.MaxPool2d(2),
            *_convolution(96, 256, 5),
            nn.MaxPool2d(2),
            *_convolution(256, 384, 3, padding=1),
            *_convolution(384, 256, 3, padding=1),
            nn.MaxPool2d(2),
        )
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.dense = nn.Sequential(
            nn.Flatten(),
            nn.Linear(256 * 2 * 2, 512),
            nn.Mish(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(512, 128),
            nn.Mish(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(128, out_channels),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W) to logits (B, out_channels)."""
        logits: torch.Tensor = self.dense(self.pool(self.features(image)))
        return logits


def _convolution(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0
) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding),
        nn.BatchNorm2d(out_channels),
        nn.Mish(inplace=True),
    ]
