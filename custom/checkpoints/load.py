"""Files of weights and checkpoints, read without running code from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from custom.errors import CheckpointError


def load_checkpoint(path: str | Path, device: Any = "cpu") -> dict:
    """Reads a file that torch.save wrote, without running code from it (weights_only).

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"There are no weights at {path}: train first, or name their file or output_dir.")
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        if not isinstance(content, dict):
            raise TypeError(f"it holds a {type(content).__name__}")
        return content
    except Exception as error:
        raise CheckpointError(
            f"{path} can't be read ({type(error).__name__}): it is cut short or no file of weights."
        ) from error


def load_weights(network: torch.nn.Module, weights: dict, path: str | Path) -> None:
    """Puts weights into a network of the same architecture.

    Raises:
        CheckpointError: names or shapes differ.
    """
    own = network.state_dict()
    unfit = [name for name in own if name not in weights or weights[name].shape != own[name].shape]
    unfit += [name for name in weights if name not in own]
    if unfit:
        raise CheckpointError(
            f"{path} holds another network's weights ({len(unfit)} of {len(own)} tensors don't fit, {unfit[0]} first): "
            "name the network that they were trained with."
        )
    network.load_state_dict(weights)
