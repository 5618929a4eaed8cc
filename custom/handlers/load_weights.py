"""Loads the weights that a run uses."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from ignite.engine import Engine, Events

from custom.checkpoints.load import load_checkpoint, load_weights

logger = logging.getLogger(__name__)


class LoadWeights:
    """Loads a file of weights (a state_dict) into a network before an engine starts.

    Args:
        path: the file, model.pt of a training.
        network: a network of the architecture that was trained.

    Raises:
        CheckpointError: when the engine starts: the file is missing or damaged, or has another network's weights.
    """

    def __init__(self, path: str | Path, network: torch.nn.Module) -> None:
        self.path = path
        self.network = network

    def attach(self, engine: Engine) -> None:
        """Loads when the engine starts."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self) -> None:
        """Loads now."""
        load_weights(self.network, load_checkpoint(self.path), self.path)
        logger.info("Weights: %s", self.path)
