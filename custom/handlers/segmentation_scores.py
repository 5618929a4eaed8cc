"""Measures of each subject and label as tables (CSV)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas
import torch
from ignite.engine import Engine, Events
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

from custom import RESEARCH_USE_ONLY
from custom.errors import ConfigError
from custom.files import written_whole
from custom.handlers.run_files import WritesFiles
from custom.handlers.state import items_of
from custom.metrics import MEASURES, confusion

logger = logging.getLogger(__name__)


class SegmentationScores(WritesFiles):
    """Writes scores.csv (a row per subject and label) and summary.csv (mean, standard deviation and n of each label).

    Each subject's measures come from one confusion matrix over all its voxels, and from surfaces in mm: the 95th
    percentile of the Hausdorff distance and the average symmetric surface distance. A measure without a value is an
    empty cell, and no mean counts it: the Dice of a label that prediction and reference both lack, the recall of a
    label that the reference lacks, a distance where only one of them has the label. The label "mean" is each subject's
    mean over the labels.

    Args:
        output_dir: the folder for the two files.
        labels: {0: "background", 1: "CSF", ...}, the order of the one-hot channels; the background is not scored.
        measures: of custom.metrics.MEASURES, "hausdorff95_mm" and "surface_distance_mm", in the columns' order.

    Raises:
        ConfigError: an unknown measure.
        KeyError: an item without "subject", or an output without "pred" and "label", both one-hot (C, x, y, z).
    """

    files = ("scores.csv", "summary.csv")

    def __init__(
        self,
        output_dir: str | Path,
        labels: Mapping[int, str],
        measures: Sequence[str] = ("dice", "hausdorff95_mm", "surface_distance_mm"),
    ) -> None:
        if unknown := [name for name in measures if name not in MEASURES | DISTANCES]:
            raise ConfigError(f"Unknown measures {unknown}. Use some of {[*MEASURES, *DISTANCES]}.")
        self.folder = Path(output_dir)
        self.names = [labels[code] for code in sorted(labels)][1:]
        self.measures = tuple(measures)
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Scores each output of the evaluator, and writes at its end."""
        engine.add_event_handler(Events.STARTED, lambda: self.rows.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._score)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _score(self, engine: Engine) -> None:
        for item, output in items_of(engine):
            spacing = [float(size) for size in output["label"].pixdim]
            pred, label = (torch.as_tensor(output[key]).cpu().bool() for key in ("pred", "label"))
            counted = label.any(dim=0)  # a voxel that nobody labelled has no channel, not even the background's
            matrix = confusion(pred[1:, counted], label[1:, counted])
            measured = {}
            for name in self.measures:
                if name in MEASURES:
                    measured[name] = MEASURES[name](matrix)
                else:
                    measured[name] = DISTANCES[name](pred[None], label[None], spacing)[0]
            for index, name in enumerate(self.names):
                row = {"subject": item["subject"], "label": name}
                self.rows.append(row | {key: float(values[index]) for key, values in measured.items()})

    def _write(self, _engine: Engine) -> None:
        table = pandas.DataFrame(self.rows).replace([float("inf")], float("nan"))
        measures = list(self.measures)
        means = table.groupby("subject", sort=False)[measures].mean().assign(label="mean")
        summary = pandas.concat([table, means]).groupby("label", sort=False)[measures].agg(["mean", "std", "count"])
        summary.columns = ["_".join(pair) for pair in summary.columns]
        for name, frame, index in (("scores.csv", table, False), ("summary.csv", summary, True)):
            with written_whole(self.folder / name) as partial:
                frame.to_csv(partial, index=index, float_format="%.4f")
        logger.info("\n%s\n%s", summary.to_string(float_format="%.3f"), RESEARCH_USE_ONLY)


def _hausdorff95(pred: torch.Tensor, label: torch.Tensor, spacing: list[float]) -> torch.Tensor:
    distance: torch.Tensor = compute_hausdorff_distance(pred, label, percentile=95, spacing=spacing)
    return distance


def _surface_distance(pred: torch.Tensor, label: torch.Tensor, spacing: list[float]) -> torch.Tensor:
    distance: torch.Tensor = compute_average_surface_distance(pred, label, symmetric=True, spacing=spacing)
    return distance


DISTANCES: dict[str, Callable[[torch.Tensor, torch.Tensor, list[float]], torch.Tensor]] = {
    "hausdorff95_mm": _hausdorff95,
    "surface_distance_mm": _surface_distance,
}
