"""Two dense blocks, with a second output in training (deep supervision)."""

from __future__ import annotations

import torch
from torch import nn

from custom.networks.dense import DenseBlock
from custom.networks.padding import crop_like, pad_to_multiple

STEM, GROWTH, LAYERS = 16, 12, 12


class DenseVoxelNet(nn.Module):
    """Yu et al. 2017, "Automatic 3D Cardiovascular MR Segmentation with Densely-Connected Volumetric ConvNets".

    In MICCAI 2017. In training it returns two logits, of the whole network and of its first block, for
    custom.losses.WithAuxiliary; else, and in TorchScript, the first only. Differences from MedicalZooPytorch: the stem
    is a 3x3x3 convolution (with stride 2 a 1x1x1 sees one voxel of eight), each layer has dropout once, and there is a
    ReLU between consecutive convolutions.

    Args:
        in_channels: channels of the image.
        out_channels: classes.
        dropout: probability, in the dense layers.

    Shapes: (B, in_channels, H, W, D) of any size to logits (B, out_channels, H, W, D); padded to multiples of 4.
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.stem = nn.Conv3d(in_channels, STEM, 3, stride=2, padding=1, bias=False)
        self.first = DenseBlock(STEM, [GROWTH] * LAYERS, dropout)
        middle = self.first.out_channels
        self.between = nn.Sequential(nn.BatchNorm3d(middle), nn.ReLU(inplace=True), nn.Conv3d(middle, middle, 1))
        self.pool = nn.MaxPool3d(2)
        self.second = DenseBlock(middle, [GROWTH] * LAYERS, dropout)
        deep = self.second.out_channels
        self.up = nn.Sequential(
            nn.BatchNorm3d(deep),
            nn.ReLU(inplace=True),
            nn.Conv3d(deep, deep, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.ConvTranspose3d(deep, 128, 2, stride=2),
            nn.ReLU(inplace=True),
            nn.ConvTranspose3d(128, 64, 2, stride=2),
            nn.ReLU(inplace=True),
        )
        self.auxiliary = nn.Sequential(nn.ReLU(), nn.ConvTranspose3d(middle, 64, 2, stride=2), nn.ReLU(inplace=True))
        self.head = nn.Conv3d(64, out_channels, 1, bias=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W, D) to logits (B, out_channels, H, W, D); in training a pair of logits."""
        middle = self.between(self.first(self.stem(pad_to_multiple(image, 4))))
        logits = crop_like(self.head(self.up(self.second(self.pool(middle)))), image)
        if self.training and not torch.jit.is_scripting():
            return logits, crop_like(self.head(self.auxiliary(middle)), image)  # type: ignore[return-value]
        return logits
