"""What the outputs of the best weights mean, found on the validation section and kept beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Engine, Events

from custom import calibration

ENOUGH = 20  # persons or images; of fewer a temperature says little


class Calibrate:
    """Writes calibration.json after each validation that is the best so far: classes, and a temperature.

    The temperature is fitted to the validation's own probabilities, if they are of 20 persons or more, else it is 1;
    nobody of the test section is looked at. Attach it to the validation engine, whose postprocessing ends with plain
    softmax.

    Args:
        output_dir: where model.pt goes too.
        classes: {0: "F", 1: "M"}, or of a regression {0: "Strength_Unadj"}.
        scale: of a regression: mean and deviation of the training persons' target.
    """

    def __init__(
        self, output_dir: str | Path, classes: Mapping[int, str], scale: tuple[float, float] | None = None
    ) -> None:
        self.folder = Path(output_dir)
        self.classes = list(classes.values())
        self.scale = scale
        self.seen: list[tuple[np.ndarray, int]] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, lambda: self.seen.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._see)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _see(self, engine: Engine) -> None:
        if self.scale is None:
            for output in engine.state.output:
                self.seen.append((torch.as_tensor(output["pred"]).cpu().double().numpy(), int(output["label"])))

    def _write(self, engine: Engine) -> None:
        if engine.state.best_metric_epoch != engine.state.epoch:
            return
        content: dict = {"classes": self.classes}
        if self.scale is None:
            probabilities, labels = (np.array(values) for values in zip(*self.seen, strict=True))
            enough = len(labels) >= ENOUGH
            temperature = calibration.fit_temperature(probabilities, labels) if enough else 1.0
            content |= {"temperature": temperature, "n": len(labels)}
        else:
            content |= {"mean": self.scale[0], "deviation": self.scale[1]}
        calibration.write(self.folder, content)
