"""A dense encoder whose levels are all upsampled at once."""

from __future__ import annotations

import math

import torch
from torch import nn

from custom.networks.dense import DenseBlock
from custom.networks.padding import crop_like, pad_to_multiple

STEM, GROWTH, BOTTLENECK, LAYERS = 32, 16, 64, 4


class SkipDenseNet3D(nn.Module):
    """Bui, Shin, Moon 2017, "3D Densely Convolutional Networks for Volumetric Segmentation" (arXiv 1709.03199).

    Four dense blocks at 1/2 to 1/16 of the size. A transposed convolution brings the output of each to full size, and
    all are joined with the stem's features. Each layer has dropout once (MedicalZooPytorch: twice). The transposed
    convolutions are grouped by class if the number of classes divides their channels, else by the greatest common
    divisor, so that any number of classes works.

    Args:
        in_channels: channels of the image.
        out_channels: classes.
        dropout: probability, in the dense layers.

    Shapes: (B, in_channels, H, W, D) of any size to logits (B, out_channels, H, W, D); padded to multiples of 16. To
    train with one sub-volume a step, it must be longer than 16 voxels along one axis.
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(in_channels, STEM, 3, padding=1, bias=False),
            nn.BatchNorm3d(STEM),
            nn.ReLU(inplace=True),
            nn.Conv3d(STEM, STEM, 3, padding=1, bias=False),
            nn.BatchNorm3d(STEM),
            nn.ReLU(inplace=True),
            nn.Conv3d(STEM, STEM, 3, padding=1, bias=False),
        )
        shrink: list[nn.Module] = [nn.Sequential(*_halve(STEM, bias=False))]
        blocks, ups, channels = [], [], STEM
        for level in range(1, 5):
            block = DenseBlock(channels, [GROWTH] * LAYERS, dropout, BOTTLENECK)
            blocks.append(block)
            width, scale = block.out_channels, 2**level
            groups = math.gcd(width, out_channels)
            ups.append(nn.ConvTranspose3d(width, out_channels, scale + 2, scale, 1, groups=groups, bias=False))
            channels = width // 2
            if level < 4:
                norm = [nn.BatchNorm3d(width), nn.ReLU(inplace=True), nn.Conv3d(width, channels, 1, bias=False)]
                shrink.append(nn.Sequential(*norm, *_halve(channels, bias=True)))
        self.shrink, self.blocks, self.ups = nn.ModuleList(shrink), nn.ModuleList(blocks), nn.ModuleList(ups)
        joined = 4 * out_channels + STEM
        self.head = nn.Sequential(nn.BatchNorm3d(joined), nn.ReLU(inplace=True), nn.Conv3d(joined, out_channels, 1))
        for layer in self.modules():
            if isinstance(layer, (nn.Conv3d, nn.ConvTranspose3d)):
                nn.init.kaiming_normal_(layer.weight)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W, D) to logits (B, out_channels, H, W, D)."""
        stem = self.stem(pad_to_multiple(image, 16))
        x, levels = stem, [stem]
        for shrink, block, up in zip(self.shrink, self.blocks, self.ups):  # noqa: B905  TorchScript knows no strict
            x = block(shrink(x))
            levels.append(up(x))
        return crop_like(self.head(torch.cat(levels[1:] + levels[:1], dim=1)), image)


def _halve(channels: int, bias: bool) -> list[nn.Module]:
    convolution = nn.Conv3d(channels, channels, 2, stride=2, bias=bias)
    return [nn.BatchNorm3d(channels), nn.ReLU(inplace=True), convolution]
