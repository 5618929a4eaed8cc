"""Dice and distances per subject and label, as a table that a spreadsheet opens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas
import torch
from ignite.engine import Engine, Events
from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance

from custom import RESEARCH_USE_ONLY
from custom.files import written_whole


class SegmentationScores:
    """Writes scores.csv (a row per subject and label) and summary.csv (mean, deviation, n per label).

    Dice; the 95th percentile of the Hausdorff distance and the average symmetric surface distance, both in mm.
    A label that both lack has no score (an empty cell); a distance is empty too where only one has the label.

    Args:
        output_dir: where the two files go.
        labels: {0: "background", 1: "CSF", ...}, the order of the one-hot channels; background isn't scored.

    Raises:
        KeyError: an item without "subject", or an output without "pred" and "label", both one-hot (C, x, y, z).
    """

    def __init__(self, output_dir: str | Path, labels: Mapping[int, str]) -> None:
        self.folder = Path(output_dir)
        self.names = [labels[code] for code in sorted(labels)][1:]
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, lambda: self.rows.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._score)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _score(self, engine: Engine) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            spacing = [float(size) for size in output["label"].pixdim]
            pred, label = (torch.as_tensor(output[key]).cpu()[None].bool() for key in ("pred", "label"))
            dice = compute_dice(pred, label, include_background=False)[0]
            distances = {"hausdorff95_mm": _hausdorff95, "surface_distance_mm": _surface_distance}
            measured = {name: measure(pred, label, spacing)[0] for name, measure in distances.items()}
            for index, name in enumerate(self.names):
                row = {"subject": item["subject"], "label": name, "dice": float(dice[index])}
                self.rows.append(row | {key: float(values[index]) for key, values in measured.items()})

    def _write(self, engine: Engine) -> None:
        table = pandas.DataFrame(self.rows).replace([float("inf")], float("nan"))
        measures = [name for name in table.columns if name not in ("subject", "label")]
        summary = table.groupby("label", sort=False)[measures].agg(["mean", "std", "count"])
        summary.columns = ["_".join(pair) for pair in summary.columns]
        for name, frame, index in (("scores.csv", table, False), ("summary.csv", summary, True)):
            with written_whole(self.folder / name) as partial:
                frame.to_csv(partial, index=index, float_format="%.4f")
        engine.logger.info("\n%s\n%s", summary.to_string(float_format="%.3f"), RESEARCH_USE_ONLY)


def _hausdorff95(pred: torch.Tensor, label: torch.Tensor, spacing: list[float]) -> torch.Tensor:
    return compute_hausdorff_distance(pred, label, percentile=95, spacing=spacing)


def _surface_distance(pred: torch.Tensor, label: torch.Tensor, spacing: list[float]) -> torch.Tensor:
    return compute_average_surface_distance(pred, label, symmetric=True, spacing=spacing)
