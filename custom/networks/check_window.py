"""Checks that a network takes windows of a size, before any data is read."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from custom.errors import ConfigError
from custom.networks.cost import dry_run


def check_window(
    network: torch.nn.Module, in_channels: int, roi_size: Sequence[int], out_channels: int | None = None
) -> None:
    """Tries one window: shapes only (torch's meta device), or zeros if the network needs values.

    Args:
        network: a network that takes (1, in_channels, *roi_size).
        in_channels: channels of the image.
        roi_size: the window, in voxels.
        out_channels: of a classifier, whose output is (1, out_channels); None for a segmentation network.

    Raises:
        ConfigError: the network fails on the window, or its output has another size.
    """
    window = torch.zeros(1, in_channels, *roi_size, device=next(network.parameters()).device)
    expected = tuple(roi_size) if out_channels is None else (1, out_channels)
    actual: tuple[int, ...] = ()
    try:
        actual = dry_run(network, window, lambda twin, image: tuple(twin(image).shape))
        actual = actual[2:] if out_channels is None else actual
        problem = "" if actual == expected else f"its output has size {actual}"
    except (RuntimeError, ValueError, TypeError) as error:
        problem = f"the error is {str(error).splitlines()[0]!r}"
    if problem:
        name = type(network).__name__
        raise ConfigError(
            f"{name} cannot take windows of roi_size {list(roi_size)} ({problem}). Use sizes that its file in "
            "configs/networks gives; most networks need multiples of 8, 16 or 32."
        )
