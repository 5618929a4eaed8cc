"""MONAI's SegResNetVAE, with one tensor at its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.nets import SegResNetVAE as MonaiSegResNetVAE
from torch import nn

from custom.errors import ConfigError


class SegResNetVAE(MonaiSegResNetVAE):
    """Myronenko 2018, "3D MRI Brain Tumor Segmentation Using Autoencoder Regularization" (MICCAI BrainLes).

    In training it returns logits and a penalty for custom.losses.WithAuxiliary: `weight` times the autoencoder's
    squared error and Kullback-Leibler divergence (both means, as in MONAI). Else it returns the logits only (MONAI: a
    pair). As in MONAI, the autoencoder uses the segmentation's decoder; the article's and MedicalZooPytorch's has its
    own.

    Args:
        in_channels: channels of the image.
        out_channels: classes.
        input_image_size: of the sub-volumes in training, multiples of 16. It fixes the shape of the autoencoder's
            weights: use the same size to load them. In evaluation, images of any multiples of 8 work.
        weight: of the penalty; 0.1 in the article.
        settings: other arguments of MONAI's SegResNetVAE.

    Shapes: (B, in_channels, H, W, D) to logits (B, out_channels, H, W, D).

    Raises:
        ConfigError: input_image_size is not a multiple of 16 along an axis.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        input_image_size: Sequence[int],
        weight: float = 0.1,
        **settings: Any,
    ) -> None:
        if any(size % 16 for size in input_image_size):
            sizes = list(input_image_size)
            raise ConfigError(f"SegResNetVAE needs an input_image_size (roi_size) of multiples of 16, got {sizes}.")
        settings = {"vae_estimate_std": True, "vae_nz": 128, **settings}  # as in the article: 128 means, 128 stds
        super().__init__(input_image_size, in_channels=in_channels, out_channels=out_channels, **settings)
        self.weight = weight
        self.vae_down.append(_Contiguous())

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W, D) to logits (B, out_channels, H, W, D); in training (logits, penalty)."""
        deepest, levels = self.encode(image)
        levels.reverse()
        logits = self.decode(deepest, levels)
        if self.training and not torch.jit.is_scripting():
            return logits, self.weight * self._get_vae_loss(image, deepest)  # type: ignore[return-value]
        return logits


class _Contiguous(nn.Module):
    """MONAI flattens by view(), which fails on channels-last tensors."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.contiguous()
