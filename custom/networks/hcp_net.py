"""The 3D CNN of a talk on HCP's T1w volumes, with its giant kernels or with small ones."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from custom.errors import ConfigError
from custom.networks.fft_conv3d import FFTConv3d

FEATURES = (8, 16, 32, 64, 128)
POOLS = (3, 2, 2, 2, 2)
TALK = (60, 25, 15, 10, 5)  # the talk's kernel sizes


class HCPNet(nn.Module):
    """Five stages of convolution, ReLU and max pooling, then dense layers of 2048, 512 and the output.

    With kernel_sizes (60, 25, 15, 10, 5), one channel, one output and 155x165x195 voxels it is the talk's network of
    19,017,081 parameters (Keras: "same" padding, pools that round down). Such kernels are computed by FFT. The default
    has small kernels and the same pools.

    Args:
        in_channels: channels of the image.
        out_channels: classes, or 1 for one logit or one number.
        img_size: voxels of the image, which the dense layers fix; 48 or more along each axis.
        kernel_sizes: of the five stages.
        covariates: how many numbers about the person join before the last layer, in their own units. The network keeps
            their mean and std of the training split (`fit_covariates`). A call without covariates uses the mean.
        dropout: probability, before each dense layer except the first.
        features: channels of the five stages.

    Shapes: (B, in_channels, *img_size), and covariates (B, covariates) if any, to (B, out_channels).

    Raises:
        ConfigError: not five kernel sizes or features; an image smaller than 48 voxels along an axis.
        ValueError: another number of covariates.
    """

    covariate_mean: torch.Tensor  # TorchScript reads these two: no postponed annotations in this file
    covariate_std: torch.Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        img_size: Sequence[int],
        kernel_sizes: Sequence[int] = (5, 3, 3, 3, 3),
        covariates: int = 0,
        dropout: float = 0.0,
        features: Sequence[int] = FEATURES,
    ) -> None:
        super().__init__()
        for name, given in (("kernel_sizes", kernel_sizes), ("features", features)):
            if len(given) != len(POOLS):
                raise ConfigError(f"HCPNet has {len(POOLS)} stages: got {len(given)} {name} {given!r}.")
        stages: list[nn.Module] = []
        size, channels = list(img_size), in_channels
        for width, kernel, pool in zip(features, kernel_sizes, POOLS, strict=True):
            stages += [FFTConv3d(channels, width, kernel), nn.ReLU(inplace=True), nn.MaxPool3d(pool)]
            size, channels = [n // pool for n in size], width
        if len(size) != 3 or min(size) < 1:
            raise ConfigError(f"HCPNet pools by 48: img_size must be three sizes of 48 or more, got {list(img_size)}.")
        self.stages = nn.Sequential(*stages)
        voxels = size[0] * size[1] * size[2]
        self.dense = nn.Sequential(
            nn.Flatten(),
            nn.Linear(voxels * channels, 2048),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(2048, 512),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )
        self.covariates = covariates
        self.register_buffer("covariate_mean", torch.zeros(covariates))
        self.register_buffer("covariate_std", torch.ones(covariates))
        self.head = nn.Linear(512 + covariates, out_channels)

    def forward(self, image: torch.Tensor, covariates: torch.Tensor | None = None) -> torch.Tensor:
        """(B, in_channels, *img_size), and covariates (B, covariates) if any, to (B, out_channels)."""
        x = self.dense(self.stages(image))
        if self.covariates > 0:
            if covariates is None:
                person = torch.zeros(x.shape[0], self.covariates, dtype=x.dtype, device=x.device)
            elif covariates.shape[1] != self.covariates:
                raise ValueError(f"HCPNet was built for {self.covariates} covariates: pass (B, {self.covariates}).")
            else:
                person = ((covariates - self.covariate_mean) / self.covariate_std).to(x.dtype)
            x = torch.cat([x, person], dim=1)
        output: torch.Tensor = self.head(x)
        return output


def check_covariates(network: nn.Module, names: Sequence[str]) -> None:
    """Checks that a network takes the covariates `names`.

    Raises:
        ConfigError: the network takes no covariates, or another number of them.
    """
    if names and getattr(network, "covariates", 0) != len(names):
        raise ConfigError(f"{type(network).__name__} takes no covariates: leave {list(names)} out, or take HCPNet.")


def fit_covariates(network: nn.Module, values: np.ndarray) -> None:
    """Keeps the mean and std of the training split's covariates in an HCPNet; a constant column becomes 0.

    Args:
        network: built for k covariates.
        values: (n, k), of the training persons.
    """
    mean, std = (torch.as_tensor(numbers, dtype=torch.float32) for numbers in (values.mean(axis=0), values.std(axis=0)))
    network.get_buffer("covariate_mean").copy_(mean)
    network.get_buffer("covariate_std").copy_(torch.where(std > 0, std, torch.inf))
