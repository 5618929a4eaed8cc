"""What the outputs of the best weights mean, found on the validation split and kept beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Engine, Events

from custom.checkpoints import calibration
from custom.metrics.temperature import fit_temperature


class Calibrate:
    """Writes calibration.json at the start, and after each validation that is the best so far: classes, a temperature.

    The temperature is fitted to the validation's own probabilities (custom.metrics.temperature.fit_temperature);
    the test split is not looked at. Attach it to the trainer, after Checkpoint, which sets an earlier run's file
    aside. Of several processes the first one writes.

    Args:
        output_dir: where model.pt goes too.
        evaluator: the validation engine, whose postprocessing ends with plain softmax.
        classes: {0: "F", 1: "M"}, or of a regression {0: "Strength_Unadj"}.
        scale: of a regression: mean and deviation of the training persons' target.
    """

    def __init__(
        self,
        output_dir: str | Path,
        evaluator: Engine,
        classes: Mapping[int, str],
        scale: tuple[float, float] | None = None,
    ) -> None:
        self.evaluator = evaluator
        self.folder = Path(output_dir)
        self.classes = list(classes.values())
        self.scale = scale
        self.seen: list[tuple[np.ndarray, int]] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._start)

    def _start(self, trainer: Engine) -> None:
        if trainer.state.rank > 0:
            return
        if not (self.folder / calibration.FILE).is_file():  # a resumed run has one
            self._write(1.0)
        self.evaluator.add_event_handler(Events.EPOCH_STARTED, lambda: self.seen.clear())
        self.evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._see)
        self.evaluator.add_event_handler(Events.COMPLETED, self._fit)

    def _see(self, engine: Engine) -> None:
        if self.scale is None:
            for output in engine.state.output:
                self.seen.append((torch.as_tensor(output["pred"]).cpu().double().numpy(), int(output["label"])))

    def _fit(self, engine: Engine) -> None:
        if self.scale is None and engine.state.best_metric_epoch == engine.state.epoch:
            probabilities, labels = (np.array(values) for values in zip(*self.seen, strict=True))
            self._write(fit_temperature(probabilities, labels), len(labels))

    def _write(self, temperature: float, n: int = 0) -> None:
        content: dict = {"classes": self.classes}
        if self.scale is None:
            content |= {"temperature": temperature, "n": n}
        else:
            content |= {"mean": self.scale[0], "std": self.scale[1]}
        calibration.write(self.folder, content)
