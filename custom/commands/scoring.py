"""Scores of a planned bundle's networks: on one split, as a table with intervals over subjects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas

import custom
from custom.commands.trained import trained_call
from custom.metrics.bootstrap import Interval, bootstrap_intervals
from custom.planning.postprocessing import Postprocessing, choose
from custom.reading.volumes import participant_of
from custom.running.bundles import config_files, labels_of, mixins, output_dir_of, read_metadata
from custom.running.workflow import run

SCORES, TRIALS = "scores.csv", "postprocessing.csv"
VALIDATION, TEST = "validation", "evaluation"  # folders of scores in the output_dir
_FOR_SCORING = ("dataset_dir", "device", "cache_dir")  # the record beside the weights has the other options


@dataclass(frozen=True)
class Job:
    """One planned bundle with a user's options.

    Args:
        bundle: its folder.
        network: a mixin, by name or path, or None.
        recipe: as custom.running.bundles.mixins takes it.
        settings: options of train.json, with their types.
    """

    bundle: Path
    network: str | None
    recipe: Any
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def files(self) -> list[str]:
        """train.json and mixins."""
        return config_files(str(self.bundle), "train.json", *mixins(str(self.bundle), self.network, self.recipe))

    @property
    def folder(self) -> Path:
        """The output_dir."""
        return output_dir_of(self.files, self.settings.get("output_dir"))

    def score(self, split: str, place: str, postprocessing: Postprocessing | None = None) -> Path:
        """Scores the weights of the output_dir on one split, and returns OUTPUT_DIR/PLACE/scores.csv.

        Args:
            split: "validation" or "test".
            place: a folder in the output_dir.
            postprocessing: steps after the network.
        """
        given: dict[str, Any] = {name: self.settings[name] for name in _FOR_SCORING if name in self.settings}
        given |= {"output_dir": str(self.folder), "split": split, "scores_dir": str(self.folder / place)}
        if postprocessing is not None:
            steps = postprocessing.transforms(labels_of(read_metadata(self.bundle)))
            given["to_labels"] = [{"_target_": "AsDiscreted", "keys": "pred", "argmax": True}, *steps]
        if "fold" in self.settings:
            given["fold"] = self.settings["fold"]
        files, chosen = trained_call("evaluating", str(self.bundle), self.network, self.recipe, given)
        run("evaluating", files, **chosen)
        return self.folder / place / SCORES


def chosen_postprocessing(folders: list[Path]) -> Postprocessing | None:
    """The steps that help the validation subjects of some scored folders; None for bundles without such trials."""
    tables = [
        pandas.read_csv(folder / TRIALS, dtype={"step": str}) for folder in folders if (folder / TRIALS).is_file()
    ]
    return choose(pandas.concat(tables)) if tables else None


def score_table(scores: pandas.DataFrame, measure: str = "dice") -> pandas.DataFrame:
    """A row for each label and for their mean: a measure, its 95% interval over subjects, and n.

    Args:
        scores: a row for each subject and label, as custom.handlers.SegmentationScores writes them.
        measure: a column.
    """
    wide = scores.pivot_table(index="subject", columns="label", values=measure, sort=False, dropna=False)
    wide["mean"] = wide.mean(axis=1)
    rows = []
    for label in wide.columns:
        kept = wide[label].dropna()
        row: dict[str, Any] = {"label": label, measure: float("nan"), "low": float("nan"), "high": float("nan")}
        if len(kept):
            row[measure], row["low"], row["high"] = _interval(kept)
        rows.append(row | {"n": len(kept)})
    return pandas.DataFrame(rows)


def _interval(values: pandas.Series) -> Interval:
    numbers = values.to_numpy()

    def mean(rows: np.ndarray) -> float:
        return float(numbers[rows].mean())

    groups = [participant_of(str(name)) for name in values.index]
    return bootstrap_intervals({"mean": mean}, groups)["mean"]


def print_scores(path: Path, subjects: str) -> None:
    """Prints the Dice of each label with its interval over subjects.

    Args:
        path: a scores.csv.
        subjects: which ones, for the first line: "test", "out-of-fold".
    """
    table = score_table(pandas.read_csv(path, dtype={"subject": str}))
    print(f"Dice of the {subjects} subjects, with 95% intervals over subjects ({path}):")
    print(table.to_string(index=False, float_format="%.3f"))
    print(custom.RESEARCH_USE_ONLY, flush=True)
