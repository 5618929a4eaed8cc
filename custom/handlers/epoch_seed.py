"""Each epoch's random numbers depend on the seed and the epoch alone."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd

from custom.handlers.state import rank_of


class EpochSeed:
    """Seeds the order, the transforms and dropout at the start of each epoch from (seed, epoch, rank).

    So a resumed run repeats an interrupted epoch exactly. Loader workers take their seeds from torch's.

    Args:
        seed: 0 or greater.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Seeds at the start of each epoch of the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seeds Python, NumPy, torch and the data set's transforms."""
        words = np.random.SeedSequence([self.seed, engine.state.epoch, rank_of(engine)]).generate_state(1)
        number = int(words[0])
        random.seed(number)
        np.random.seed(number)
        torch.manual_seed(number)
        loader: Any = engine.data_loader  # type: ignore[attr-defined]  # MONAI's trainers have it
        set_rnd(loader.dataset, number)
