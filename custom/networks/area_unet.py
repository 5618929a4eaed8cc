"""A small 3D U-Net that sees where structures lie, not how bright they are."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn

from custom.networks.padding import crop_like, pad_to_multiple
from custom.networks.subpixel_unet import Norm, ResidualBlock, twice_as_fine


class AreaUNet(nn.Module):
    """A residual U-Net from the structures of a brain to the areas of its cortex.

    The image's channels are shares of structures in each cell (custom.transforms.area_shares). Since no intensities
    enter, areas are found alike in every contrast. One pre-activation residual block a level, strided convolutions
    down, trilinear interpolation up, additive skips, and instance normalisation.

    With the defaults: 2,636,708 parameters.

    Source: Cicek et al. 2016, "3D U-Net" (MICCAI); He et al. 2016, "Identity Mappings in Deep Residual Networks"
    (ECCV), for the blocks.

    Args:
        in_channels: structures with the background, and the left side.
        out_channels: areas, 0 for none.
        features: channels of each level, from the finest down.

    Shapes: (B, in_channels, x, y, z) of any size to logits (B, out_channels, x, y, z). The image is padded with zeros
    to multiples of 8 (with four levels).
    """

    def __init__(
        self, in_channels: int = 18, out_channels: int = 36, features: Sequence[int] = (32, 64, 96, 128)
    ) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(features))
        self.stride = 2 ** len(pairs)
        self.stem = nn.Conv3d(in_channels, features[0], 3, padding=1)
        self.encoder = nn.ModuleList(ResidualBlock(n) for n in features)
        self.down = nn.ModuleList(nn.Conv3d(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.up = nn.ModuleList(nn.Conv3d(coarse, fine, 1) for fine, coarse in reversed(pairs))
        self.decoder = nn.ModuleList(ResidualBlock(n) for n in reversed(features[:-1]))
        self.last_norm = Norm(features[0])
        self.head = nn.Conv3d(features[0], out_channels, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, x, y, z) to logits (B, out_channels, x, y, z)."""
        x = self.stem(pad_to_multiple(image, self.stride))
        skips: list[torch.Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(x)
            skips.append(x)
            for other, down in enumerate(self.down):  # TorchScript takes no index but a constant
                if other == level:
                    x = down(x)
        skips.pop()
        for up, block in zip(self.up, self.decoder):  # noqa: B905  TorchScript knows no strict
            x = block(twice_as_fine(up(x)) + skips.pop())
        return crop_like(self.head(torch.relu(self.last_norm(x))), image)
