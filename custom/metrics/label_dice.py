"""Mean Dice, and the Dice of each label under its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine
from monai.handlers import MeanDice


class LabelDice(MeanDice):
    """monai.handlers.MeanDice without the background, which also sets `dice_<name>` for each label.

    A label that no subject has is NaN, and so is the mean where no subject has any label.

    Args:
        labels: {0: "background", 1: "CSF", ...}; predictions and reference labels are one-hot in this order.
        output_transform: as in MeanDice.
    """

    def __init__(self, labels: Mapping[int, str], output_transform: Any) -> None:
        super().__init__(include_background=False, output_transform=output_transform, save_details=True)
        self.names = [labels[code] for code in sorted(labels)][1:]

    def completed(self, engine: Engine, name: str) -> None:
        """Ignite calls this at the end of an epoch: sets the mean and each label's Dice in engine.state.metrics."""
        super().completed(engine, name)
        details: Any = engine.state.metric_details  # type: ignore[attr-defined]  # MONAI's engines add it
        per_subject = torch.as_tensor(details[name])
        if per_subject.isnan().all():  # only empty reference labels: MONAI's mean would be 0, as of a failure
            engine.state.metrics[name] = float("nan")
        for label, dice in zip(self.names, per_subject.nanmean(dim=0).tolist(), strict=True):
            engine.state.metrics[f"dice_{label}"] = dice
