"""`brainmri survival`: survival from a tumor's labels and the age, beside age alone, by nested cross-validation."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas
import torch
from monai.transforms import Compose, EnsureChannelFirstd, Orientationd
from sklearn.dummy import DummyRegressor
from sklearn.model_selection import cross_val_predict

from custom import RESEARCH_USE_ONLY
from custom.baselines.nested_cv import REGRESSORS, Model, check_enough, nested_cross_validation, splitter_of
from custom.baselines.tumor_shape import tumor_features
from custom.baselines.volume_regressor import VolumeRegressor
from custom.datasets import brats, brats_survival
from custom.datasets.brats_survival import BOUNDS, CLASSES
from custom.errors import ConfigError, DataError, MissingDataError
from custom.files import set_aside, written_whole
from custom.metrics import bootstrap_intervals
from custom.metrics.concordance import concordance_index
from custom.transforms import EncodeLabelsd, LoadVolumesd

CODES = (0, 1, 2, (3, 4))  # of reference labels (ET 4), and of this project's predictions (ET 3)
SIDE = 24  # cells along each axis of what the network sees
FILES = ("scores.csv", "predictions.csv", "features.csv", "settings.json")


@dataclasses.dataclass(frozen=True)
class SurvivalOptions:
    """Options of `brainmri survival`.

    Args:
        dataset_dir: a folder with BraTS's layout and its table of survival.
        output_dir: where the tables go; an earlier run's are moved to earlier/ first.
        labels_dir: predicted labels, CASE_*.nii.gz (values 0 to 3, or BraTS's codes); None takes the reference labels.
        target: column of days; None takes the table's own survival.
        folds: number of outer and of inner folds.
        epochs: of the network; 0 leaves the network out.
        seed: of folds, network and bootstrap.

    Raises:
        ConfigError: folds or epochs out of range.
    """

    dataset_dir: str = "data/brats"
    output_dir: str = "runs/survival"
    labels_dir: str | None = None
    target: str | None = None
    folds: int = 5
    epochs: int = 60
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("folds", 2), ("epochs", 0)):
            value: object = getattr(self, name)  # the command line passes any type
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{name} must be a whole number of {least} or more, got {value!r}.")


def survival(options: SurvivalOptions) -> pandas.DataFrame:
    """Scores each model on patients that it did not see, and writes FILES to output_dir.

    The models are the mean of the training patients, ridge on age, ridge and an RBF SVM on age and the tumor's features
    (custom.baselines.tumor_shape), and a small network on the labels. As in BraTS, three classes come from the
    predicted days. Settings are chosen inside the training part of each outer fold; those of the network are fixed.

    Returns:
        A row for each model: n, concordance index, accuracy of the three classes, mean absolute error and Spearman's
        correlation, each of out-of-fold predictions, the first two with 95% intervals from bootstrap samples of
        patients.

    Raises:
        ConfigError: the table has no such column.
        DataError: no table, a patient without labels, or too few patients.
    """
    rows = brats_survival.table(options.dataset_dir, options.target)
    files = _files(options, rows)
    check_enough(None, list(files), options.folds)
    features, volumes = _measured(files)
    rows = rows.loc[list(files)]
    predictions = _predictions(rows, features, volumes, options)
    scores = pandas.DataFrame(
        [{"model": name, **_scores(rows["days"].to_numpy(), days, options.seed)} for name, days in predictions.items()]
    )
    out = Path(options.output_dir).expanduser()
    out.mkdir(parents=True, exist_ok=True)
    set_aside(out, FILES)
    tables = {"scores": scores, "features": features, "predictions": rows.assign(**predictions)}
    for name, frame in tables.items():
        with written_whole(out / f"{name}.csv") as partial:
            frame.to_csv(partial, index=name != "scores", index_label="case", float_format="%.4f")
    with written_whole(out / "settings.json") as partial:
        partial.write_text(json.dumps(dataclasses.asdict(options) | {"n": len(rows)}, indent=1) + "\n")
    print(scores.to_string(index=False, float_format="%.3f"))
    counts = ", ".join(f"{n} {name}" for name, n in zip(CLASSES.values(), _counts(rows), strict=True))
    labels = "reference" if options.labels_dir is None else "predicted"
    print(
        f"{len(rows)} patients ({counts}), {labels} labels, {options.folds} folds, seed {options.seed}; tables: {out}. "
        f"{RESEARCH_USE_ONLY}"
    )
    return scores


def classes_of(days: np.ndarray) -> np.ndarray:
    """0, 1 or 2 for days (n,) under 10 months, from 10 to 15, and over 15 months of 30 days."""
    return np.asarray((days >= BOUNDS[0]).astype(int) + (days > BOUNDS[1]))


def _counts(rows: pandas.DataFrame) -> list[int]:
    return [int(n) for n in np.bincount(classes_of(rows["days"].to_numpy()), minlength=len(CLASSES))]


def _files(options: SurvivalOptions, rows: pandas.DataFrame) -> dict[str, dict[str, str]]:
    """{case: {"image": FLAIR, "label": label map}} of the cases in the table that have both.

    Raises:
        DataError: a case of the table has no FLAIR; with reference labels, no segmentation; else no prediction.
    """
    everyone = brats.cases(options.dataset_dir)
    found = {}
    for case in rows.index:
        files = everyone.get(case, {})
        label = files.get("seg") if options.labels_dir is None else _predicted(Path(options.labels_dir), case)
        if "flair" not in files or label is None:
            missing = "label map" if "flair" in files else "FLAIR file"
            raise MissingDataError(
                f"The table of survival names {case}, which has no {missing}. Add it, or remove the row."
            )
        found[case] = {"image": str(files["flair"]), "label": str(label)}
    return found


def _predicted(folder: Path, case: str) -> Path | None:
    paths = sorted(folder.expanduser().glob(f"{case}_*.nii*"))
    if len(paths) > 1:
        raise DataError(f"{paths[0]} and {paths[1]} are both of {case}. Keep one label map in {folder}.")
    return paths[0] if paths else None


def _measured(files: Mapping[str, Mapping[str, str]]) -> tuple[pandas.DataFrame, np.ndarray]:
    """The features of each case, and the shares of NCR, ED and ET in each cell of the brain's box (n, 3, SIDE...)."""
    keys = ["image", "label"]
    load = Compose(
        [
            LoadVolumesd(keys),
            EnsureChannelFirstd(keys, channel_dim="no_channel"),
            Orientationd(keys, axcodes="RAS", labels=None),
            EncodeLabelsd("label", CODES),
        ]
    )
    rows, volumes = [], []
    for paths in files.values():
        item = load(paths)
        brain, label = (np.asarray(item[key][0]) for key in keys)
        if brain.shape != label.shape:
            raise DataError(f"{paths['label']} has the shape {label.shape}, but {paths['image']} has {brain.shape}.")
        rows.append(tumor_features(label, brain, [float(size) for size in item["image"].pixdim]))
        places = np.argwhere(brain != 0)
        box = tuple(slice(low, high + 1) for low, high in zip(places.min(axis=0), places.max(axis=0), strict=True))
        shares = torch.stack([torch.as_tensor(label[box] == code).float() for code in (1, 2, 3)])
        volumes.append(torch.nn.functional.adaptive_avg_pool3d(shares, SIDE).numpy())
    return pandas.DataFrame(rows, index=pandas.Index(list(files))), np.stack(volumes)


def _predictions(
    rows: pandas.DataFrame, features: pandas.DataFrame, volumes: np.ndarray, options: SurvivalOptions
) -> dict[str, np.ndarray]:
    """Days (n,) by model, each patient predicted by a model that did not see it."""
    days, patients = rows["days"].to_numpy(dtype=float), list(rows.index)
    age = rows[["age"]].to_numpy(dtype=float)
    both = np.column_stack([age, features.to_numpy(dtype=float)])
    models: dict[str, tuple[np.ndarray, Model]] = {
        "mean": (age, Model(DummyRegressor(), {})),
        "age alone": (age, REGRESSORS["ridge"]),
        "age and features, ridge": (both, REGRESSORS["ridge"]),
        "age and features, RBF SVM": (both, REGRESSORS["RBF SVM"]),
    }
    found = {}
    for name, (columns, model) in models.items():
        _, predicted = nested_cross_validation(columns, days, patients, model, None, options.folds, options.seed)
        found[name] = predicted["prediction"].to_numpy()  # in the order of the patients
    if options.epochs:
        network = VolumeRegressor(options.epochs, seed=options.seed)
        folds = splitter_of(network, options.folds, options.seed)
        found["network on the labels"] = cross_val_predict(network, volumes, days, groups=patients, cv=folds)
    return found


def _scores(days: np.ndarray, predicted: np.ndarray, seed: int) -> dict[str, float]:
    """The measures of one model's out-of-fold predictions (n,)."""
    true, chosen = classes_of(days), classes_of(predicted)
    intervals = bootstrap_intervals(
        {
            "concordance": lambda rows: concordance_index(days[rows], predicted[rows]),
            "accuracy": lambda rows: float(np.mean(true[rows] == chosen[rows])),
        },
        [str(number) for number in range(len(days))],
        seed=seed,
    )
    row: dict[str, float] = {"n": len(days)}
    for name, interval in intervals.items():
        row |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    row["mae_days"] = float(np.mean(np.abs(days - predicted)))
    row["spearman"] = float(pandas.Series(days).corr(pandas.Series(predicted), method="spearman"))
    return row
