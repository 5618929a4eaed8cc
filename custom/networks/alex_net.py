"""AlexNet, reduced for images of 128 pixels."""

from __future__ import annotations

import torch
from torch import nn


class AlexNet(nn.Module):
    """After Krizhevsky, Sutskever, Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks".

    Reduced as in M. Tallone's brain tumour project: a first kernel of 9 for 11, four narrow dense layers, no local
    response normalisation, and no dropout unless it is asked for; 4,589,316 parameters for three channels and four
    classes. Features are averaged over 2x2 fields, which at 128x128 they are anyway, so that other sizes do too.

    Args:
        in_channels: channels of the image.
        out_channels: classes.
        dropout: of single values, after each dense layer but the last.

    Shapes: (B, in_channels, H, W), H and W 69 or more, to logits (B, out_channels).
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(in_channels, 96, 9, stride=4),
            nn.MaxPool2d(2),
            *_convolution(96, 256, 5),
            nn.MaxPool2d(2),
            *_convolution(256, 384, 3, padding=1),
            *_convolution(384, 384, 3, padding=1),
            *_convolution(384, 256, 3, padding=1),
            nn.MaxPool2d(2),
        )
        self.pool = nn.AdaptiveAvgPool2d(2)
        dense: list[nn.Module] = [nn.Flatten()]
        for a, b in ((256 * 2 * 2, 512), (512, 512), (512, 128)):
            dense += [nn.Linear(a, b), nn.ReLU(inplace=True), nn.Dropout(dropout)]
        self.dense = nn.Sequential(*dense, nn.Linear(128, out_channels))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.dense(self.pool(self.features(image)))


def _convolution(a: int, b: int, kernel: int, stride: int = 1, padding: int = 0) -> list[nn.Module]:
    return [nn.Conv2d(a, b, kernel, stride, padding), nn.ReLU(inplace=True)]
