"""A dense path for each modality, where each layer sees all paths."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from custom.networks.dense import pointwise

FEATURES = (25, 25, 25, 50, 50, 50, 75, 75, 75)


class HyperDenseNet(nn.Module):
    """Dolz et al. 2019, "HyperDense-Net: A Hyper-Densely Connected CNN for Multi-Modal Image Segmentation" (IEEE TMI).

    Each layer of each path takes the features of all earlier layers of all paths, its own path's first. Convolutions
    are padded (the article's remove 18 voxels of each axis), and there are ReLUs between the 1x1x1 convolutions, which
    are one linear map in MedicalZooPytorch. The first layer's PReLU on the image itself is kept: it loses nothing.
    Everything is at full resolution, so it needs much memory and has a context of 19 voxels.

    Args:
        in_channels: modalities, one path each.
        out_channels: classes.
        features: new channels of each layer of a path.

    Shapes: (B, in_channels, H, W, D) of any size to logits (B, out_channels, H, W, D).
    """

    def __init__(self, in_channels: int, out_channels: int, features: Sequence[int] = FEATURES) -> None:
        super().__init__()
        channels = 1  # that enter a layer of one path
        layers = []
        for number, width in enumerate(features):
            layers.append(_Layer(in_channels, channels, width, first=number == 0))
            channels = in_channels * width + (channels if number else 0)
        self.layers = nn.ModuleList(layers)
        self.shrink = pointwise([in_channels * channels, 400, 200, 150], bias=True)
        self.head = nn.Conv3d(150, out_channels, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W, D) to logits (B, out_channels, H, W, D)."""
        paths = list(torch.split(image, 1, dim=1))
        for layer in self.layers:
            paths = layer(paths)
        logits: torch.Tensor = self.head(self.shrink(torch.cat(paths, dim=1)))
        return logits


class _Layer(nn.Module):
    """One layer of every path; the new features of each path join all paths. The image itself is not carried on."""

    def __init__(self, paths: int, in_channels: int, out_channels: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.paths = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Identity() if first else nn.BatchNorm3d(in_channels),
                    nn.PReLU(),
                    nn.Conv3d(in_channels, out_channels, 3, padding=1),
                )
                for _ in range(paths)
            ]
        )

    def forward(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        new: list[torch.Tensor] = []
        for number, path in enumerate(self.paths):
            new.append(path(features[number]))
        joined: list[torch.Tensor] = []
        for number in range(len(new)):
            before = features[:0] if self.first else [features[number]]
            joined.append(torch.cat(before + [new[number]] + new[:number] + new[number + 1 :], dim=1))  # noqa: RUF005
        return joined
