"""VGG16 for images of 128 pixels."""

from __future__ import annotations

import torch
from torch import nn

GROUPS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # width, convolutions


class VGG16(nn.Module):
    """Simonyan, Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (arXiv:1409.1556).

    Configuration D without batch norm; 65,070,916 parameters for three channels and four classes. Features are averaged
    to 4x4 fields, so that other image sizes than 128x128 (which gives 4x4 anyway) work too. Weights are initialised
    after He et al. 2015, as in later versions of the article: with torch's default the signal vanishes over 16 layers.

    Args:
        in_channels: channels of the image.
        out_channels: classes.
        dropout: probability, after each of the first two dense layers.

    Shapes: (B, in_channels, H, W), H and W 32 or more, to logits (B, out_channels).
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.5) -> None:
        super().__init__()
        features: list[nn.Module] = []
        channels = in_channels
        for width, convolutions in GROUPS:
            for _ in range(convolutions):
                convolution = nn.Conv2d(channels, width, 3, padding=1)
                nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
                features += [convolution, nn.ReLU(inplace=True)]
                channels = width
            features.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*features)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.dense = nn.Sequential(
            nn.Flatten(),
            nn.Linear(512 * 4 * 4, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, out_channels),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W) to logits (B, out_channels)."""
        logits: torch.Tensor = self.dense(self.pool(self.features(image)))
        return logits
