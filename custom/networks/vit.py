"""The vision transformer, of torch's own layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from custom.errors import ConfigError


class ViT(nn.Module):
    """Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words" (arXiv:2010.11929): pre-norm, GELU, a class token.

    The sizes are those of M. Tallone's brain tumour project, whose own network normalises after each layer with one
    norm for all depths and applies dropout to logits; 21,459,460 parameters for 128x128x3 and four classes. Unlike in
    MONAI's ViT the attention's queries, keys and values have a bias, and the head has a norm of its own.

    Args:
        in_channels: channels of the image.
        out_channels: classes.
        img_size: pixels (H, W), or one number for both, which the positions fix; multiples of patch_size.
        patch_size: pixels of a patch along each axis.
        hidden_size: width of the tokens, a multiple of num_heads.
        mlp_dim: width between the two dense layers of each encoder layer.
        num_layers: encoder layers.
        num_heads: attention heads of each encoder layer.
        dropout: probability, on the tokens, in the layers, and before the last dense layer.

    Shapes: (B, in_channels, *img_size) to logits (B, out_channels).

    Raises:
        ConfigError: img_size is no multiple of patch_size, or hidden_size no multiple of num_heads.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        img_size: Sequence[int] | int = 128,
        patch_size: int = 16,
        hidden_size: int = 512,
        mlp_dim: int = 1024,
        num_layers: int = 10,
        num_heads: int = 8,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        if min(height, width) < 1 or height % patch_size or width % patch_size:
            raise ConfigError(f"img_size must be multiples of patch_size {patch_size}, got {[height, width]}.")
        if hidden_size % num_heads:
            raise ConfigError(f"hidden_size must be a multiple of num_heads {num_heads}, got {hidden_size}.")
        self.patches = nn.Conv2d(in_channels, hidden_size, patch_size, stride=patch_size)
        self.class_token = nn.Parameter(torch.empty(1, 1, hidden_size))
        tokens = 1 + (height // patch_size) * (width // patch_size)
        self.positions = nn.Parameter(torch.empty(1, tokens, hidden_size))
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            [
                nn.TransformerEncoderLayer(
                    hidden_size, num_heads, mlp_dim, dropout, "gelu", batch_first=True, norm_first=True
                )
                for _ in range(num_layers)
            ]
        )
        self.norm = nn.LayerNorm(hidden_size)
        self.head = nn.Sequential(nn.LayerNorm(hidden_size), nn.Dropout(dropout), nn.Linear(hidden_size, out_channels))
        nn.init.normal_(self.class_token, std=0.02)
        nn.init.normal_(self.positions, std=0.02)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, *img_size) to logits (B, out_channels)."""
        x = self.patches(image).flatten(2).transpose(1, 2)  # (B, patches, hidden_size), row by row
        x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = self.dropout(x + self.positions)
        for layer in self.layers:
            x = layer(x)
        logits: torch.Tensor = self.head(self.norm(x)[:, 0])
        return logits
