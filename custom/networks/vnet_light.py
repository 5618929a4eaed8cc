"""V-Net without its deepest level."""

from __future__ import annotations

import torch
from torch import nn

from custom.errors import ConfigError
from custom.networks.padding import crop_like, pad_to_multiple

WIDTH = 16  # channels of the first level


class VNetLight(nn.Module):
    """V-Net (Milletari et al. 2016, 3DV) of three levels, as MedicalZooPytorch has it, with PReLU.

    monai.networks.nets.VNet is the whole V-Net. Each level is residual: units of a 5x5x5 convolution, batch norm and
    PReLU, and the level's input is added. The first level adds the image, its channels repeated to 16. Here the last
    repeat is cut, so that any number up to 16 works (the original fails for 3).

    Args:
        in_channels: channels of the image, 1 to 16.
        out_channels: classes.
        dropout: of whole channels, of the deepest level, before the next one, and of the skips.

    Shapes: (B, in_channels, H, W, D) of any size to logits (B, out_channels, H, W, D); padded to multiples of 8.

    Raises:
        ConfigError: more than 16 channels.
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.5) -> None:
        super().__init__()
        if not 1 <= in_channels <= WIDTH:
            raise ConfigError(
                f"VNetLight adds the image to {WIDTH} features: in_channels must be 1 to {WIDTH}, got {in_channels!r}."
            )
        self.width = WIDTH  # TorchScript knows no globals
        self.repeats = -(-WIDTH // in_channels)
        self.first = nn.Sequential(nn.Conv3d(in_channels, WIDTH, 5, padding=2), nn.BatchNorm3d(WIDTH))
        self.act = nn.PReLU(WIDTH)
        self.down = nn.ModuleList([_Down(16, 1, 0.0), _Down(32, 2, 0.0), _Down(64, 3, dropout)])
        self.up = nn.ModuleList(
            [_Up(128, 128, 2, dropout, dropout), _Up(128, 64, 1, 0.0, dropout), _Up(64, 32, 1, 0.0, dropout)]
        )
        self.head = nn.Sequential(_unit(32, out_channels), nn.Conv3d(out_channels, out_channels, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W, D) to logits (B, out_channels, H, W, D)."""
        x = pad_to_multiple(image, 8)
        x = self.act(self.first(x) + torch.cat([x] * self.repeats, dim=1)[:, : self.width])
        skips: list[torch.Tensor] = []
        for down in self.down:
            skips.append(x)
            x = down(x)
        for up in self.up:
            x = up(x, skips.pop())
        return crop_like(self.head(x), image)


def _unit(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(in_channels, out_channels, 5, padding=2), nn.BatchNorm3d(out_channels), nn.PReLU(out_channels)
    )


class _Down(nn.Module):
    """Halves the size, doubles the channels, and adds units to that."""

    def __init__(self, in_channels: int, units: int, dropout: float) -> None:
        super().__init__()
        width = 2 * in_channels
        halve = nn.Conv3d(in_channels, width, 2, stride=2)
        self.halve = nn.Sequential(halve, nn.BatchNorm3d(width), nn.PReLU(width))
        self.units = nn.Sequential(nn.Dropout3d(dropout), *(_unit(width, width) for _ in range(units)))
        self.act = nn.PReLU(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.halve(x)
        added: torch.Tensor = self.act(self.units(x) + x)
        return added


class _Up(nn.Module):
    """Doubles the size, joins the skip, and adds units to that."""

    def __init__(self, in_channels: int, out_channels: int, units: int, dropout: float, skip_dropout: float) -> None:
        super().__init__()
        half = out_channels // 2
        double = nn.ConvTranspose3d(in_channels, half, 2, stride=2)
        self.grow = nn.Sequential(nn.Dropout3d(dropout), double, nn.BatchNorm3d(half), nn.PReLU(half))
        self.skip = nn.Dropout3d(skip_dropout)
        self.units = nn.Sequential(*(_unit(out_channels, out_channels) for _ in range(units)))
        self.act = nn.PReLU(out_channels)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.grow(x), self.skip(skip)], dim=1)
        added: torch.Tensor = self.act(self.units(x) + x)
        return added
