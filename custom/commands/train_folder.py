"""`brainmri train FOLDER`: plans if there is no plan, trains, scores the test subjects, leaves a complete bundle."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas

import custom
from custom.checkpoints.find import shipped_weights, trained_weights
from custom.commands.options import typed
from custom.commands.plan import bundle_of
from custom.commands.resumable import train_once
from custom.commands.trained import trained_call
from custom.datasets import own_folder
from custom.errors import ConfigError
from custom.files import written_whole
from custom.metrics.bootstrap import Interval, bootstrap_intervals
from custom.reading.volumes import participant_of
from custom.running.bundles import config_files, mixins, output_dir_of
from custom.running.processes import is_first
from custom.running.workflow import run

SCORES = "evaluation/scores.csv"


def train_folder(folder: str, network: str | None, recipe: Any, overrides: Mapping[str, Any]) -> Path:
    """Trains the planned bundle of a folder of labelled scans. The same call again goes on, or repeats nothing.

    Args:
        folder: of labelled scans. Its bundle is planned now if it does not exist.
        network: a mixin, by name or path, or None for the planned network.
        recipe: as `mixins` takes it.
        overrides: options of train.json, as typed.

    Returns:
        The bundle, whose models/model.pt are the trained weights.

    Raises:
        DataError: a folder that cannot be read or trained on.
        ConfigError: the output_dir holds a training with another configuration.
    """
    bundle = bundle_of(folder)
    files = config_files(str(bundle), "train.json", *mixins(str(bundle), network, recipe))
    settings = typed(files, {"dataset_dir": folder, **overrides})
    run_dir = output_dir_of(files, settings.get("output_dir"))
    split = split_of(settings["dataset_dir"], int(settings.get("fold", 0)))
    print_split(split)
    trained = train_once(files, settings, split)
    if trained or not (run_dir / SCORES).is_file():
        given: dict[str, Any] = {
            key: settings[key] for key in ("dataset_dir", "output_dir", "device") if key in settings
        }
        evaluating, chosen = trained_call("evaluating", str(bundle), network, recipe, given | {"split": "test"})
        run("evaluating", evaluating, **chosen)
    print_scores(run_dir / SCORES, "test")
    if is_first():
        into_bundle(run_dir, bundle)
    return bundle


def split_of(folder: str, fold: int) -> dict[str, list[str]]:
    """{"training": subjects, "validation": ..., "test": ...} of a fold."""
    names = ("training", "validation", "test")
    return {name: [case["subject"] for case in own_folder.datalist(folder, name, fold)] for name in names}


def print_split(split: Mapping[str, list[str]]) -> None:
    """Prints which subjects train, validate and test, a line each."""
    for name, subjects in split.items():
        some = f"{', '.join(subjects[:8])}{', ...' if len(subjects) > 8 else ''}"
        print(f"{name:<11}{len(subjects):>4}: {some}", flush=True)


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
        row: dict[str, Any] = {"label": label, measure: float("nan"), "n": len(kept)}
        if len(kept):
            row[measure], row["low"], row["high"] = _interval(kept)
        rows.append(row)
    return pandas.DataFrame(rows)[["label", measure, "low", "high", "n"]]


def _interval(values: pandas.Series) -> Interval:
    numbers = values.to_numpy()

    def mean(rows: np.ndarray) -> float:
        return float(numbers[rows].mean())

    groups = [participant_of(str(name)) for name in values.index]
    return bootstrap_intervals({"mean": mean}, groups)["mean"]


def print_scores(path: Path, split: str) -> None:
    """Prints the Dice of each label with its interval over subjects."""
    table = score_table(pandas.read_csv(path, dtype={"subject": str}))
    print(f"Dice of the {split} subjects, with 95% intervals over subjects ({path}):")
    print(table.to_string(index=False, float_format="%.3f"))
    print(custom.RESEARCH_USE_ONLY, flush=True)


def into_bundle(run_dir: Path, bundle: Path) -> None:
    """Copies a run's weights and their record to the bundle, which then serves and packs without the run."""
    weights, target = trained_weights(run_dir), shipped_weights(bundle)
    if not weights.is_file():
        raise ConfigError(f"{weights} does not exist: the training wrote no weights.")
    for path in (weights, weights.with_suffix(".json")):
        if path.is_file():
            with written_whole(target.with_name(path.name)) as partial:
                shutil.copyfile(path, partial)
    print(f"The bundle {bundle} holds the trained weights. Serve them with: brainmri label --studies DIR --bundles "
          f"{bundle}")  # fmt: skip
