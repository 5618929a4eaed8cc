"""MONAI's Vision Transformer as a classifier that returns logits only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.nets import ViT
from torch import nn


class ViTClassifier(nn.Module):
    """monai.networks.nets.ViT with a class token; logits alone, without its Tanh and its hidden states.

    Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
    arXiv:2010.11929.

    Args:
        in_channels: channels of the image.
        out_channels: classes, or 1 for one number.
        img_size: voxels of the image along each axis, multiples of patch_size. The position embedding fixes it.
        patch_size: of a patch, in voxels.
        spatial_dims: 2 or 3.
        settings: other arguments of MONAI's ViT, for instance hidden_size.

    Shapes: (B, in_channels, *img_size) to (B, out_channels).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        img_size: Sequence[int],
        patch_size: Sequence[int] | int = 16,
        spatial_dims: int = 3,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.vit = ViT(
            in_channels,
            img_size,
            patch_size,
            spatial_dims=spatial_dims,
            classification=True,
            num_classes=out_channels,
            post_activation="",
            **settings,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, *img_size) to logits (B, out_channels)."""
        logits: torch.Tensor = self.vit(x)[0]
        return logits
