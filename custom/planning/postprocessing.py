"""Which steps follow the network, by what they did to the validation subjects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas

from custom.handlers.postprocessing_trials import LARGEST, NONE

LEAST_GAIN = 0.001  # of the mean Dice, for a step to be used


@dataclass(frozen=True)
class Postprocessing:
    """The chosen steps.

    Args:
        largest: labels of which only the largest component is kept, with the gain in mean Dice of each.
        least_mm3: connected pieces below this size are removed; 0 for none.
        gain: of `least_mm3`, in mean Dice.
    """

    largest: Mapping[str, float]
    least_mm3: float
    gain: float

    def transforms(self, labels: Mapping[int, str]) -> list[dict[str, Any]]:
        """The steps as MONAI's JSON, for a label map under "pred"."""
        steps: list[dict[str, Any]] = []
        if self.largest:
            codes = [code for code, name in labels.items() if name in self.largest]
            steps.append({"_target_": "KeepLargestConnectedComponentd", "keys": "pred", "applied_labels": codes,
                          "is_onehot": False})  # fmt: skip
        if self.least_mm3:
            steps.append({"_target_": "RemoveSmallObjectsd", "keys": "pred", "min_size": self.least_mm3,
                          "independent_channels": False, "by_measure": True})  # fmt: skip
        return steps

    def __str__(self) -> str:
        parts = [f"largest component of {name} (Dice +{gain:.4f})" for name, gain in self.largest.items()]
        if self.least_mm3:
            parts.append(f"no pieces below {self.least_mm3:g} mm^3 (Dice +{self.gain:.4f})")
        return "; ".join(parts) or f"none: no step adds {LEAST_GAIN} to the Dice of the validation subjects"


def choose(trials: pandas.DataFrame) -> Postprocessing:
    """The steps that add at least LEAST_GAIN to the mean Dice.

    Args:
        trials: rows of subject, label, step and dice, as custom.handlers.PostprocessingTrials writes them.
    """
    means = trials.groupby(["label", "step"], sort=False)["dice"].mean().unstack("step")
    gains = means.sub(means[NONE], axis=0)
    largest = {str(name): float(gain) for name, gain in gains[LARGEST].items() if gain >= LEAST_GAIN}
    sizes = gains.drop(columns=[NONE, LARGEST]).mean()
    best = sizes.idxmax()
    gain = float(sizes[best])
    return Postprocessing(largest, float(str(best)) if gain >= LEAST_GAIN else 0.0, max(gain, 0.0))
