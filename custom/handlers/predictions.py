"""Predictions of classifiers and regressions, and their scores, as tables (CSV)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas
import torch
from ignite.engine import Engine, Events

from custom import RESEARCH_USE_ONLY
from custom.files import set_aside, written_whole
from custom.handlers.run_files import WritesFiles
from custom.handlers.state import items_of
from custom.metrics import classification_scores, regression_scores

logger = logging.getLogger(__name__)


class Predictions(WritesFiles):
    """Writes predictions.csv: the class, its probability and those of all classes; or a regression's number.

    The files of an earlier run are moved to earlier/ first.

    Args:
        output_dir: the folder for the table.
        classes: {0: "F", 1: "M"}; for a regression {0: name of the target}.

    Raises:
        KeyError: an item without "subject", or an output without "pred", probabilities (C,) or a number (1,).
    """

    files: ClassVar[tuple[str, ...]] = ("predictions.csv",)

    def __init__(self, output_dir: str | Path, classes: Mapping[int, str]) -> None:
        self.folder = Path(output_dir)
        self.classes = dict(classes)
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Keeps each output of the evaluator, and writes at its end."""
        engine.add_event_handler(Events.STARTED, lambda: self.rows.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._keep)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _keep(self, engine: Engine) -> None:
        for item, output in items_of(engine):
            row: dict[str, Any] = {"subject": item["subject"]} | ({"group": item["group"]} if "group" in item else {})
            predicted = torch.as_tensor(output["pred"]).cpu().double().numpy()
            is_number = len(self.classes) == 1
            if output.get("label") is not None:
                row["label"] = float(output["label"]) if is_number else self.classes[int(output["label"])]
            if is_number:
                self.rows.append(row | {"prediction": float(predicted[0])})
                continue
            code = int(predicted.argmax())
            of_all = {f"p_{name}": float(predicted[number]) for number, name in self.classes.items()}
            self.rows.append(row | {"prediction": self.classes[code], "probability": float(predicted[code])} | of_all)

    def _write(self, _engine: Engine) -> None:
        set_aside(self.folder, self.files)
        self._save("predictions.csv", pandas.DataFrame(self.rows))
        logger.info("%s/predictions.csv: %d rows. %s", self.folder, len(self.rows), RESEARCH_USE_ONLY)

    def _save(self, name: str, table: pandas.DataFrame) -> None:
        with written_whole(self.folder / name) as partial:
            table.to_csv(partial, index=False, float_format="%.6f")


class ClassificationScores(Predictions):
    """Also writes and logs scores.csv: measures of each class and of all classes, or of a regression.

    Takes the same arguments as Predictions. Intervals are over the items' "group"; items without a group are groups of
    their own. For the columns see custom.metrics.classification_scores and regression_scores.
    """

    files = ("predictions.csv", "scores.csv")

    def _write(self, _engine: Engine) -> None:
        super()._write(_engine)
        table = pandas.DataFrame(self.rows)
        groups = table["group" if "group" in table else "subject"].tolist()
        if len(self.classes) == 1:
            (name,) = self.classes.values()
            scores = regression_scores(table["label"].to_numpy(), table["prediction"].to_numpy(), name, groups)
        else:
            codes = {name: code for code, name in self.classes.items()}
            probabilities = table[[f"p_{name}" for name in self.classes.values()]].to_numpy()
            labels: np.ndarray = table["label"].map(codes).to_numpy()
            scores = classification_scores(labels, probabilities, self.classes, groups)
        self._save("scores.csv", scores)
        shown = scores.to_string(index=False, float_format="%.3f", na_rep="")
        logger.info("\n%s\n%s", shown, RESEARCH_USE_ONLY)
