"""The loss of a masked autoencoder, and patches of 2D images as a vision transformer orders them."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import nn


def patches_of(image: torch.Tensor, patch_size: int) -> torch.Tensor:
    """The patches of images (B, C, H, W) row by row: (B, patches, patch_size * patch_size * C)."""
    return rearrange(image, "b c (h y) (w x) -> b (h w) (y x c)", y=patch_size, x=patch_size)


def image_of(patches: torch.Tensor, patch_size: int, size: tuple[int, int]) -> torch.Tensor:
    """What `patches_of` made of images of `size` (H, W), as images (B, C, H, W) again."""
    rows = size[0] // patch_size
    return rearrange(patches, "b (h w) (y x c) -> b c (h y) (w x)", h=rows, y=patch_size, x=patch_size)


class MaskedPatchLoss(nn.Module):
    """Mean squared error of the patches that a masked autoencoder did not see.

    He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners" (arXiv:2111.06377), without their normalisation
    of each patch. Of images with mean 0 and standard deviation 1, the error is the share of the variance that stays
    unexplained: about 1 for a network that answers 0.

    Args:
        patch_size: pixels of a patch along each axis.

    Shapes: the output of MONAI's MaskedAutoEncoderViT, which is a tuple of patches (B, N, patch_size * patch_size * C)
    and a mask (B, N), 1 where a patch was hidden; and images (B, C, H, W). The result is a scalar.
    """

    def __init__(self, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size

    def forward(self, output: tuple[torch.Tensor, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
        """The mean over all hidden pixels and channels of the batch."""
        patches, mask = output
        error = (patches.float() - patches_of(image, self.patch_size)).square().mean(dim=2)
        return (error * mask).sum() / mask.sum()
