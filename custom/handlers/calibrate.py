"""The meaning of a classifier's outputs, kept beside its weights: class names and a temperature."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events

from custom.checkpoints import calibration
from custom.handlers.run_files import WritesFiles
from custom.handlers.state import best_epoch_of, rank_of
from custom.metrics.temperature import fit_temperature


class Calibrate(WritesFiles):
    """Writes calibration.json at the start, and after each validation that is the best so far: classes, a temperature.

    The temperature is fitted to the validation's own probabilities (custom.metrics.temperature.fit_temperature);
    the test split is not used. Attach it to the trainer after Checkpoint, which moves an earlier run's file aside.
    With several processes, only the first one writes.

    Args:
        output_dir: the folder of model.pt.
        evaluator: the validation engine, whose postprocessing ends with plain softmax.
        classes: {0: "F", 1: "M"}, or of a regression {0: "Strength_Unadj"}.
        scale: of a regression: mean and standard deviation of the target in the training split.
    """

    files = (calibration.FILE,)

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
        self.outputs: list[tuple[np.ndarray, int]] = []

    def attach(self, engine: Engine) -> None:
        """Starts with the trainer; then follows the evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)

    def _start(self, trainer: Engine) -> None:
        if rank_of(trainer) > 0:
            return
        if not (self.folder / calibration.FILE).is_file():  # a resumed run has it already
            self._write(1.0)
        self.evaluator.add_event_handler(Events.EPOCH_STARTED, lambda: self.outputs.clear())
        self.evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._keep)
        self.evaluator.add_event_handler(Events.COMPLETED, self._fit)

    def _keep(self, engine: Engine) -> None:
        if self.scale is None:
            outputs: Any = engine.state.output
            for output in outputs:
                self.outputs.append((torch.as_tensor(output["pred"]).cpu().double().numpy(), int(output["label"])))

    def _fit(self, engine: Engine) -> None:
        if self.scale is None and best_epoch_of(engine) == engine.state.epoch:
            probabilities, labels = (np.array(values) for values in zip(*self.outputs, strict=True))
            self._write(fit_temperature(probabilities, labels), len(labels))

    def _write(self, temperature: float, n: int = 0) -> None:
        content: dict[str, Any] = {"classes": self.classes}
        if self.scale is None:
            content |= {"temperature": temperature, "n": n}
        else:
            content |= {"mean": self.scale[0], "std": self.scale[1]}
        calibration.write(self.folder, content)
