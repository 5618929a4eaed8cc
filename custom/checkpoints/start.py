"""Where a training's weights start, and which of them stay."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from monai.networks.utils import copy_model_state, freeze_layers

from custom.checkpoints.find import shipped_weights
from custom.checkpoints.load import load_checkpoint, plain_weights
from custom.errors import CheckpointError

logger = logging.getLogger(__name__)
DECODER = r"^(up\.|decoder\.|last|head\.)"  # the upward layers of SubpixelUNet


def start_from(network: torch.nn.Module, source: str | None, bundle_root: str) -> None:
    """Gives a network the weights that another training ended with, but for an output layer of other labels.

    Args:
        network: of the architecture that was trained, any number of output channels.
        source: None for a fresh start, "shipped" for the bundle's own models/model.pt, or the path of a model.pt.
        bundle_root: the bundle's folder.

    Raises:
        CheckpointError: the file does not exist, is damaged, or holds another network's weights.
    """
    if source in (None, "None"):
        return
    path = shipped_weights(bundle_root) if source == "shipped" else Path(source)
    weights = plain_weights(load_checkpoint(path), network.state_dict())
    state, _, fresh = copy_model_state(network, weights, inplace=False)
    if set(weights) != set(state) or len({name.rpartition(".")[0] for name in fresh}) > 1:
        raise CheckpointError(
            f"{path} holds another network's weights ({len(fresh)} of {len(state)} tensors don't fit). "
            "Set the network that they were trained with (--network), or give other weights."
        )
    network.load_state_dict(state)
    logger.info("Started from %s%s", path, f"; {fresh[0].rpartition('.')[0]} starts afresh" if fresh else "")


def freeze_encoder(network: torch.nn.Module) -> None:
    """Leaves only the upward layers of a SubpixelUNet to be trained; the others keep the weights that they have."""
    freeze_layers(network, exclude_vars=DECODER)
