"""A masked autoencoder of 2D images, which pretrains a vision transformer without labels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import prod

from monai.networks.nets import MaskedAutoEncoderViT

from custom.errors import ConfigError


class MaskedAutoencoder(MaskedAutoEncoderViT):
    """MONAI's MaskedAutoEncoderViT in 2D with the sizes of custom.networks.ViT, and with checks of all sizes.

    He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners" (arXiv:2111.06377). The encoder sees some patches
    of an image, and a small decoder rebuilds the others. Positions are sines and cosines. Queries, keys and values have
    a bias, as in custom.networks.ViT, which takes the encoder (custom.checkpoints.start_vit).

    Args:
        in_channels: channels of the image.
        img_size: pixels (H, W), multiples of patch_size.
        patch_size: pixels of a patch along each axis.
        masking_ratio: share of the patches that are hidden, between 0 and 1.
        hidden_size: width of the encoder's tokens, a multiple of num_heads and of 4.
        mlp_dim: width between the two dense layers of each encoder layer.
        num_layers: encoder layers.
        num_heads: attention heads of each encoder layer.
        decoder_hidden_size: the same of the decoder, a multiple of decoder_num_heads and of 4.
        decoder_mlp_dim: the same of the decoder.
        decoder_num_layers: the same of the decoder.
        decoder_num_heads: the same of the decoder.

    Shapes: (B, in_channels, H, W) to patches (B, N, patch_size * patch_size * in_channels) and masks (B, N), 1 where a
    patch was hidden. N is H / patch_size * W / patch_size, row by row.

    Raises:
        ConfigError: sizes that do not fit each other, or a masking_ratio that hides all patches or none.
    """

    def __init__(
        self,
        in_channels: int,
        img_size: Sequence[int],
        patch_size: int = 16,
        masking_ratio: float = 0.75,
        hidden_size: int = 512,
        mlp_dim: int = 1024,
        num_layers: int = 10,
        num_heads: int = 8,
        decoder_hidden_size: int = 256,
        decoder_mlp_dim: int = 512,
        decoder_num_layers: int = 2,
        decoder_num_heads: int = 8,
    ) -> None:
        size = list(img_size)
        if len(size) != 2 or min(size) < 1 or any(length % patch_size for length in size):
            raise ConfigError(f"roi_size must be two multiples of patch_size {patch_size}, got {size}.")
        for name, width, heads in (
            ("hidden_size", hidden_size, num_heads),
            ("decoder_hidden_size", decoder_hidden_size, decoder_num_heads),
        ):
            if width % heads or width % 4:
                raise ConfigError(f"{name} must be a multiple of 4 and of its number of heads {heads}, got {width}.")
        patches = prod(length // patch_size for length in size)
        if not 1 <= int((1 - masking_ratio) * patches) < patches:
            raise ConfigError(
                f"masking_ratio must hide some of the {patches} patches and leave some, got {masking_ratio}."
            )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.meshgrid")  # of MONAI's positions
            super().__init__(
                in_channels,
                size,
                patch_size,
                hidden_size,
                mlp_dim,
                num_layers,
                num_heads,
                masking_ratio,
                decoder_hidden_size,
                decoder_mlp_dim,
                decoder_num_layers,
                decoder_num_heads,
                spatial_dims=2,
                qkv_bias=True,
            )
