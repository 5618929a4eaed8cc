"""The weights that a run uses, or one sentence on why it can't."""

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
        CheckpointError: at the start, when the file is missing, damaged or another network's.
    """

    def __init__(self, path: str | Path, network: torch.nn.Module) -> None:
        self.path = path
        self.network = network

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        load_weights(self.network, load_checkpoint(self.path), self.path)
        logger.info("Weights: %s", self.path)
