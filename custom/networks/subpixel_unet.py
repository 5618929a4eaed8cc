"""A 3D U-Net that computes at half the resolution of its image and labels every voxel."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import batch_norm, instance_norm, interpolate

from custom.networks.padding import crop_like, pad_to_multiple


class SubpixelUNet(nn.Module):
    """A residual U-Net on cells of 2x2x2 voxels, a fifth of the cost of one on voxels.

    The eight voxels of a cell enter as channels. Levels of pre-activation residual blocks follow, with strided
    convolutions down, trilinear interpolation up and additive skips. The last layer gives the logits of a cell's eight
    voxels, which are put in place (a pixel shuffle). Normalisation is instance normalisation: each scan has its own
    statistics, also in a batch.

    With the default features and blocks, one channel in and 18 out: 9,737,616 parameters.

    Source: Shi et al. 2016, "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
    Convolutional Neural Network" (CVPR), for the pixel shuffle; He et al. 2016, "Identity Mappings in Deep Residual
    Networks" (ECCV), for the blocks.

    Args:
        in_channels: channels of the image.
        out_channels: classes.
        features: channels of each level, from half resolution down.
        blocks_down: residual blocks of each level on the way down.
        blocks_up: residual blocks of each level on the way up, from half resolution down.

    Shapes: (B, in_channels, X, Y, Z) of any size to logits (B, out_channels, X, Y, Z). The image is padded with zeros
    to multiples of 16 (with four levels).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        features: Sequence[int] = (32, 64, 128, 192),
        blocks_down: Sequence[int] = (1, 2, 2, 3),
        blocks_up: Sequence[int] = (1, 1, 1),
    ) -> None:
        super().__init__()
        if len(blocks_down) != len(features) or len(blocks_up) != len(features) - 1:
            raise ValueError(
                f"{len(features)} levels need {len(features)} blocks_down and {len(features) - 1} blocks_up, "
                f"got {list(blocks_down)} and {list(blocks_up)}."
            )
        self.stride = 2 ** len(features)
        first = features[0]
        pairs = list(itertools.pairwise(features))
        self.stem = nn.Conv3d(8 * in_channels, first, 3, padding=1)
        self.encoder = nn.ModuleList(_blocks(n, count) for n, count in zip(features, blocks_down, strict=True))
        self.down = nn.ModuleList(nn.Conv3d(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.up = nn.ModuleList(nn.Conv3d(coarse, fine, 1) for fine, coarse in reversed(pairs))
        self.decoder = nn.ModuleList(
            _blocks(n, count) for n, count in zip(reversed(features[:-1]), reversed(blocks_up), strict=True)
        )
        self.last_norm = Norm(first)
        self.last = nn.Conv3d(first, 2 * first, 1)
        self.head = nn.Conv3d(2 * first, 8 * out_channels, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, X, Y, Z) to logits (B, out_channels, X, Y, Z)."""
        padded = pad_to_multiple(image, self.stride)
        x = self.stem(cells_of_voxels(padded))
        skips: list[torch.Tensor] = [x]
        for level, blocks in enumerate(self.encoder):
            x = blocks(x)
            skips.append(x)
            for other, down in enumerate(self.down):  # TorchScript takes no index but a constant
                if other == level:
                    x = down(x)
        skips.pop()
        for up, blocks in zip(self.up, self.decoder):  # noqa: B905  TorchScript knows no strict
            x = blocks(twice_as_fine(up(x)).add_(skips.pop()))
        x = torch.relu_(self.last(torch.relu_(self.last_norm(x))))
        return crop_like(voxels_of_cells(self.head(x)), image)


class Norm(nn.Module):
    """Instance normalisation with a scale and a bias for each channel.

    For a batch of one, batch normalisation gives the same, keeps the memory format and is faster.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, features, X, Y, Z), normalised over each scan."""
        single = x.shape[0] == 1
        if not torch.jit.is_scripting():  # ONNX has instance normalisation, and no batch normalisation of this kind
            single = single and not torch.onnx.is_in_onnx_export()
        if single:
            return batch_norm(x, None, None, self.weight, self.bias, training=True)
        return instance_norm(x, weight=self.weight, bias=self.bias)


class ResidualBlock(nn.Module):
    """Two times normalisation, ReLU and convolution, added to the input.

    What no gradient needs is overwritten: on a CPU, new memory costs as much time as the arithmetic here.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.norm1 = Norm(features)
        self.conv1 = nn.Conv3d(features, features, 3, padding=1, bias=False)
        self.norm2 = Norm(features)
        self.conv2 = nn.Conv3d(features, features, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, features, X, Y, Z) to the same shape."""
        inner = self.conv1(torch.relu_(self.norm1(x)))
        added: torch.Tensor = self.conv2(torch.relu_(self.norm2(inner))).add_(x)
        return added


def _blocks(features: int, count: int) -> nn.Sequential:
    return nn.Sequential(*[ResidualBlock(features) for _ in range(count)])


def cells_of_voxels(image: torch.Tensor) -> torch.Tensor:
    """(B, C, X, Y, Z) of even sizes to (B, 8 C, X/2, Y/2, Z/2), channels last in memory."""
    b, c, x, y, z = image.shape
    cells = image.reshape(b, c, x // 2, 2, y // 2, 2, z // 2, 2).permute(0, 1, 3, 5, 7, 2, 4, 6)
    cells = cells.reshape(b, 8 * c, x // 2, y // 2, z // 2)
    return cells.contiguous(memory_format=torch.channels_last_3d)


def voxels_of_cells(cells: torch.Tensor) -> torch.Tensor:
    """(B, 8 C, X, Y, Z), the eight voxels of a cell first, to (B, C, 2 X, 2 Y, 2 Z)."""
    b, c, x, y, z = cells.shape
    voxels = cells.reshape(b, 2, 2, 2, c // 8, x, y, z).permute(0, 4, 5, 1, 6, 2, 7, 3)
    return voxels.reshape(b, c // 8, 2 * x, 2 * y, 2 * z)


def twice_as_fine(x: torch.Tensor) -> torch.Tensor:
    """Trilinear interpolation to twice the size, as torch.nn.functional.interpolate does it.

    On CUDA torch's gradient uses atomics, which are slow and differ between runs. Slices replace it there.
    """
    if not x.is_cuda:
        return interpolate(x, scale_factor=2.0, mode="trilinear")
    for axis in (2, 3, 4):
        n = x.shape[axis]
        before = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, n - 1)], dim=axis)
        after = torch.cat([x.narrow(axis, 1, n - 1), x.narrow(axis, n - 1, 1)], dim=axis)
        x = torch.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], dim=axis + 1).flatten(axis, axis + 1)
    return x.contiguous(memory_format=torch.channels_last_3d)
