"""The 3D U-Net of its article."""

from __future__ import annotations

import torch
from torch import nn

from custom.networks.padding import crop_like, pad_to_multiple


class UNet3D(nn.Module):
    """Cicek et al. 2016, "3D U-Net: Learning Dense Volumetric Segmentation from Sparse Annotation" (MICCAI).

    Channels are doubled before each pooling, against bottlenecks. Each 3x3x3 convolution is followed by batch
    normalisation with a learned scale and bias, and a ReLU. Convolutions are padded, while the article's shrink the
    volume and crop the skips.

    The article counts 19,069,955 parameters at 3 channels in and out: one value per channel beside each convolution's
    weights (a bias that batch normalisation cancels). With the scale and bias that it describes there are 19,072,291.

    Args:
        in_channels: channels of the image.
        out_channels: classes.

    Shapes: (B, in_channels, H, W, D) of any size to logits (B, out_channels, H, W, D); padded to multiples of 8.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            [_two(in_channels, 32, 64), _two(64, 64, 128), _two(128, 128, 256), _two(256, 256, 512)]
        )
        self.pool = nn.MaxPool3d(2)
        self.upsample = nn.ModuleList([nn.ConvTranspose3d(n, n, 2, stride=2, bias=False) for n in (512, 256, 128)])
        self.up = nn.ModuleList([_two(256 + 512, 256, 256), _two(128 + 256, 128, 128), _two(64 + 128, 64, 64)])
        self.head = nn.Conv3d(64, out_channels, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W, D) to logits (B, out_channels, H, W, D)."""
        x = pad_to_multiple(image, 8)
        skips: list[torch.Tensor] = []
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            skips.append(x)
        skips.pop()
        for upsample, block in zip(self.upsample, self.up):  # noqa: B905  TorchScript knows no strict
            x = block(torch.cat([skips.pop(), upsample(x)], dim=1))
        return crop_like(self.head(x), image)


def _two(in_channels: int, middle: int, out_channels: int) -> nn.Sequential:
    steps: list[nn.Module] = []
    for n_in, n_out in ((in_channels, middle), (middle, out_channels)):
        steps += [nn.Conv3d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm3d(n_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*steps)
