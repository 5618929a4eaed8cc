"""What each step of a post-processing would do to the Dice of each subject and label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas
import torch
from ignite.engine import Engine, Events
from monai.transforms import KeepLargestConnectedComponent, RemoveSmallObjects

from custom.files import written_whole
from custom.handlers.run_files import WritesFiles
from custom.handlers.state import items_of

NONE, LARGEST = "none", "largest"


class PostprocessingTrials(WritesFiles):
    """Writes postprocessing.csv: the Dice of each subject and label without and with each step, a row each.

    The steps are MONAI's: "largest" keeps each label's largest connected component, and a number of mm^3 removes
    connected pieces of all labels together that are smaller. A label that prediction and reference both lack has no
    row. Labels are compared on the network's grid.

    Args:
        output_dir: the folder for the file.
        labels: {0: "background", 1: "CSF", ...}, the order of the one-hot channels.
        least_mm3: the smallest sizes to try.

    Raises:
        KeyError: an output without "pred" and "label", both one-hot (C, x, y, z).
    """

    files = ("postprocessing.csv",)

    def __init__(
        self, output_dir: str | Path, labels: Mapping[int, str], least_mm3: Sequence[int] = (10, 100, 1000)
    ) -> None:
        self.folder = Path(output_dir)
        self.labels = {code: labels[code] for code in sorted(labels) if code}
        self.steps = {LARGEST: KeepLargestConnectedComponent(applied_labels=list(self.labels), is_onehot=False)} | {
            str(size): RemoveSmallObjects(size, independent_channels=False, by_measure=True) for size in least_mm3
        }
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Tries the steps on each output of the evaluator, and writes at its end."""
        engine.add_event_handler(Events.STARTED, lambda: self.rows.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._try)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _try(self, engine: Engine) -> None:
        for item, output in items_of(engine):
            counted = torch.as_tensor(output["label"]).any(dim=0)  # a voxel that nobody labelled has no channel
            pred, label = (output[key].argmax(dim=0, keepdim=True) for key in ("pred", "label"))
            results = {NONE: pred} | {name: step(pred.clone()) for name, step in self.steps.items()}
            for code, name in self.labels.items():
                reference = (label[0] == code) & counted
                for step, result in results.items():
                    found = (result[0] == code) & counted
                    total = int(found.sum()) + int(reference.sum())
                    if total:
                        dice = 2 * int((found & reference).sum()) / total
                        self.rows.append({"subject": item["subject"], "label": name, "step": step, "dice": dice})

    def _write(self, _engine: Engine) -> None:
        table = pandas.DataFrame(self.rows, columns=["subject", "label", "step", "dice"])
        with written_whole(self.folder / self.files[0]) as partial:
            table.to_csv(partial, index=False, float_format="%.5f")
