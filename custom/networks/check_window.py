"""Whether a network takes windows of a size, asked before the data is read."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from custom.errors import ConfigError


def check_window(network: torch.nn.Module, in_channels: int, roi_size: Sequence[int]) -> None:
    """Tries one window of zeros.

    Args:
        network: a network that takes (1, in_channels, *roi_size).
        in_channels: the image's channels.
        roi_size: the window, in voxels.

    Raises:
        ConfigError: the network can't take it, or gives another size back.
    """
    was_training = network.training
    window = torch.zeros(1, in_channels, *roi_size, device=next(network.parameters()).device)
    try:
        with torch.no_grad():
            given = tuple(network.eval()(window).shape[2:])
        problem = "" if given == tuple(roi_size) else f"it gives {given} back"
    except (RuntimeError, ValueError, TypeError) as error:
        problem = f"it fails with {str(error).splitlines()[0]!r}"
    finally:
        network.train(was_training)
    if problem:
        raise ConfigError(
            f"{type(network).__name__} can't take windows of roi_size {list(roi_size)} ({problem}): "
            "take three sizes that are multiples of 8, 16 or 32, as the network's file says."
        )
