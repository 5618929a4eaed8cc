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
        repeat: seed all epochs alike, from (seed, rank): for a validation that draws random numbers.
    """

    def __init__(self, seed: int, repeat: bool = False) -> None:
        self.seed = seed
        self.repeat = repeat

    def attach(self, engine: Engine) -> None:
        """Seeds at the start of each epoch of the trainer, or of the evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seeds Python, NumPy, torch and the data set's transforms."""
        epoch = 0 if self.repeat else engine.state.epoch
        words = np.random.SeedSequence([self.seed, epoch, rank_of(engine)]).generate_state(1)
        number = int(words[0])
        random.seed(number)
        np.random.seed(number)
        torch.manual_seed(number)
        loader: Any = engine.data_loader  # type: ignore[attr-defined]  # MONAI's trainers have it
        set_rnd(loader.dataset, number)
