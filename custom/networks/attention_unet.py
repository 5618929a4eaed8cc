"""The improved 2D U-Net with an attention gate on each skip."""

from __future__ import annotations

import torch
from torch import nn

from custom.networks.improved_unet import ImprovedUNet


class AttentionUNet(ImprovedUNet):
    """ImprovedUNet whose skips are weighted by gates, after Oktay et al. 2018, "Attention U-Net" (MIDL).

    Not monai.networks.nets.AttentionUnet, which concatenates and upsamples by transposed convolutions.

    Args and shapes are those of ImprovedUNet. `attention_maps` gives the gates' maps, for pictures. Use torch's default
    memory format on the CPU: with channels-last, torch 2.13's backward pass through it crashes the process.
    """

    def __init__(self, in_channels: int, out_channels: int, n_filters: int = 32) -> None:
        super().__init__(in_channels, out_channels, n_filters)
        self.gates = nn.ModuleList([_Gate(width * n_filters) for width in (8, 4, 2, 1)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W) to logits (B, out_channels, H, W)."""
        return self._run(x)[0]

    @torch.jit.unused
    def attention_maps(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The maps of the four gates, the deepest first: (B, 1, H / 8, W / 8) to (B, 1, H, W), values 0 to 1."""
        return self._run(x)[1]

    def _run(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        skips: list[torch.Tensor] = []
        maps: list[torch.Tensor] = []
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = self.pool(x)
        x = self.bottom(x)
        for block, gate in zip(self.up, self.gates):  # noqa: B905  TorchScript knows no strict
            skip = skips.pop()
            attention = gate(x, skip)
            maps.append(attention)
            x = block(self.upsample(x) + attention * skip)
        return self.head(x), maps


class _Gate(nn.Module):
    """Weights a skip by the features of the decoder, one level deeper."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(width, width, 1)
        self.key = nn.Conv2d(width, width, 1, stride=2)
        self.score = nn.Conv2d(width, 1, 1)
        self.upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)

    def forward(self, decoder: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        both = torch.relu(self.query(decoder) + self.key(skip))
        attention: torch.Tensor = self.upsample(torch.sigmoid(self.score(both)))
        return attention
