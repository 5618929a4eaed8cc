"""Whether a network takes images of a size, asked before the data is read."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from custom.errors import ConfigError
from custom.networks.cost import dry_run


def check_window(
    network: torch.nn.Module, in_channels: int, roi_size: Sequence[int], out_channels: int | None = None
) -> None:
    """Tries one window: its shapes alone (torch's meta device), or zeros where a network needs values.

    Args:
        network: a network that takes (1, in_channels, *roi_size).
        in_channels: the image's channels.
        roi_size: the window, in voxels.
        out_channels: of a classifier, which gives (1, out_channels) and nothing of the window's size.

    Raises:
        ConfigError: the network can't take it, or gives another size back.
    """
    window = torch.zeros(1, in_channels, *roi_size, device=next(network.parameters()).device)
    wanted = tuple(roi_size) if out_channels is None else (1, out_channels)
    given: tuple[int, ...] = ()
    try:
        given = dry_run(network, window, lambda twin, image: tuple(twin(image).shape))
        given = given[2:] if out_channels is None else given
        problem = "" if given == wanted else f"it gives {given} back"
    except (RuntimeError, ValueError, TypeError) as error:
        problem = f"it fails with {str(error).splitlines()[0]!r}"
    if problem:
        name = type(network).__name__
        raise ConfigError(
            f"{name} can't take windows of roi_size {list(roi_size)} ({problem}): take sizes that its file in "
            "configs/networks names, multiples of 8, 16 or 32 for most."
        )
