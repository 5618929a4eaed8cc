"""`brainmri baseline hcp`: what classic models tell from HCP's T1w volumes, and from the simplest numbers."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from sklearn.base import BaseEstimator, is_classifier
from sklearn.model_selection import learning_curve, validation_curve

from custom import RESEARCH_USE_ONLY
from custom.baselines.gram_pca import GramPCA, check_components, components, gram_matrix
from custom.baselines.nested_cv import (
    CLASSIFIERS,
    REGRESSORS,
    bootstrap_interval,
    check_enough,
    nested_cross_validation,
    pipeline_of,
    scoring_of,
    splitter_of,
)
from custom.baselines.volumes_to_rows import volumes_to_rows
from custom.datasets import hcp
from custom.errors import ConfigError
from custom.files import set_aside, written_whole
from custom.reports.of_run import save_figure
from custom.reports.populations import (
    explained_variance_figure,
    projections_figure,
    train_and_test_figure,
    volumes_figure,
)
from custom.running.workflow import StrictWorkflow

# the table's columns for a model of their own
SIMPLE = ("FS_BrainSeg_Vol", "FS_IntraCranial_Vol", "Age_in_Yrs", "Gender")
RECONSTRUCTED = (10, 100, 500)  # components


def hcp_baselines(
    files: list[str],
    dataset_dir: str | Path = "data/hcp",
    output_dir: str | Path = "runs/hcp_baselines",
    cache_dir: str | Path = "cache/hcp",
    target: str = "Gender",
    kind: str = "classes",
    band: float = 0.0,
    space: str = "native",
    missing: str = "raise",
    roi_size: Sequence[int] | None = None,
    n_components: float = 100,
    folds: int = 5,
    seed: int = 0,
    num_workers: int = 0,
) -> pandas.DataFrame:
    """Nested cross-validation of PCA with four models, and of volumes, age and sex alone; tables and figures.

    Writes baselines.csv (a row for each model), by_fold.csv, predictions.csv, settings.json and figures to output_dir.
    Persons of one family are never divided. A median is taken over all persons: it defines the classes. The figures of
    components, means and projections show all persons, and serve no score.

    Args:
        files: the HCP bundle's train.json and mixins, whose preprocessing the scans go through.
        dataset_dir: a folder with HCP's layout.
        output_dir: where tables and figures go; an earlier run's are moved to earlier/ first.
        cache_dir: where preprocessed scans go, for all targets and runs.
        target, kind, band, space, missing: as custom.datasets.hcp.persons takes them.
        roi_size: of the resized scans, in voxels; the bundle's by default.
        n_components: of the PCA: at most so many, or a fraction of the training variance.
        folds: outer and inner.
        seed: of folds and bootstrap.
        num_workers: processes that preprocess.

    Returns:
        The table of models.

    Raises:
        ConfigError, DataError: as custom.datasets.hcp.persons; too few persons; settings that make no sense.
    """
    settings = {name: str(value) for name, value in locals().items()}
    own = {} if roi_size is None else {"roi_size": roi_size}
    bundle = StrictWorkflow(files, workflow_type="train", cache_dir=str(cache_dir), **own).parser
    size = bundle["roi_size"]
    if len(size) != 3 or any(not isinstance(n, int) or n < 8 for n in size):
        raise ConfigError(f"roi_size must be three whole numbers of 8 voxels or more, got {size!r}.")
    if not isinstance(folds, int) or folds < 2:
        raise ConfigError(f"folds must be a whole number of 2 or more, got {folds!r}.")
    check_components(n_components)
    out = Path(output_dir).expanduser()
    people = hcp.persons(dataset_dir, target, kind, band, space, (), missing)
    labels, families, regression = people["label"].to_numpy(), people["family"].tolist(), kind == "regression"
    check_enough(None if regression else labels, families, folds)
    preprocessing = bundle.get_parsed_content("preprocessing")
    matrix, brain_ml = volumes_to_rows(people["image"], preprocessing, num_workers)
    gram = gram_matrix(matrix)

    table_of_all = hcp.table(dataset_dir)
    relatives_known = hcp.knows_families(table_of_all)
    simple = _simple_columns(table_of_all.loc[people.index], target) | {"brain volume": brain_ml}
    alone = REGRESSORS["ridge"] if regression else CLASSIFIERS["logistic regression"]
    of_pca = REGRESSORS if regression else CLASSIFIERS
    models: dict[str, tuple] = {f"PCA, {name}": (gram, *model, n_components) for name, model in of_pca.items()}
    models[f"{', '.join(simple)} alone"] = (np.column_stack(list(simple.values())), *alone, None)
    table, by_fold, predictions = [], [], []
    for name, (features, model, grid, kept) in models.items():
        scores, predicted = nested_cross_validation(features, labels, families, model, grid, kept, folds, seed)
        table.append({"model": name} | _summary(scores, predicted, families, seed))
        by_fold.append(scores.assign(model=name))
        predictions.append(predicted.assign(subject=people.index[predicted["person"]], model=name))
    result = pandas.DataFrame(table)

    out.mkdir(parents=True, exist_ok=True)
    set_aside(out, [path.name for path in out.iterdir() if path.suffix in (".csv", ".json", ".png")])
    frames = {"baselines": result, "by_fold": pandas.concat(by_fold), "predictions": pandas.concat(predictions)}
    for name, frame in frames.items():
        with written_whole(out / f"{name}.csv") as partial:
            frame.drop(columns="person", errors="ignore").to_csv(partial, index=False, float_format="%.4f")
    with written_whole(out / "settings.json") as partial:
        counts = {"n": len(people), "families": len(set(families)), "relatives_known": relatives_known}
        partial.write_text(json.dumps(settings | counts, indent=1) + "\n")
    names = {0: target} if regression else hcp.classes(dataset_dir, target, kind)
    _show_persons(out, matrix.reshape(-1, *size), gram, labels, names)
    _show_learning(out, gram, labels, families, alone[0], n_components, folds, seed)
    print(result.to_string(index=False, float_format="%.3f"))
    if not relatives_known:
        print("The table has no Family_ID: relatives may stand in training and test at once. Add the restricted table.")
    said = f"{len(people)} persons of {len(set(families))} families, {folds} folds, seed {seed}"
    print(f"{said}; tables and figures: {out}. {RESEARCH_USE_ONLY}")
    return result


def _simple_columns(people: pandas.DataFrame, target: str) -> dict[str, np.ndarray]:
    """What the table has of SIMPLE, without the target, gaps, and columns that are alike for all."""
    found = {}
    for name in (name for name in SIMPLE if name in people and name != target):
        values = people[name]
        if not pandas.api.types.is_numeric_dtype(values):
            codes = pandas.Series(pandas.factorize(values, sort=True)[0], index=values.index, dtype=float)
            values = codes.where(codes >= 0)
        if values.notna().all() and values.nunique() > 1:
            found[name] = values.to_numpy(dtype=float)
    return found


def _summary(scores: pandas.DataFrame, predicted: pandas.DataFrame, families: list[str], seed: int) -> dict[str, Any]:
    """Means and deviations over folds; of two classes the area under the ROC curve has an interval over families."""
    row: dict[str, Any] = {"n": len(predicted)}
    for name in (column.removeprefix("test_") for column in scores if column.startswith("test_")):
        if scores[f"test_{name}"].notna().all():
            row |= {name: scores[f"test_{name}"].mean(), f"{name}_std": scores[f"test_{name}"].std()}
            row[f"training_{name}"] = scores[f"training_{name}"].mean()
    if "auc" in row:
        target, score, fold = (predicted[name].to_numpy(dtype=float) for name in ("target", "score", "fold"))
        own = [families[person] for person in predicted["person"]]
        row["auc"], row["auc_low"], row["auc_high"] = bootstrap_interval(target, score, fold, own, seed=seed)
    return row


def _show_persons(out: Path, volumes: np.ndarray, gram: np.ndarray, labels: np.ndarray, names: dict[int, str]) -> None:
    """Figures of all persons, (n, x, y, z)."""
    everyone, size = range(len(volumes)), volumes.shape[1:]
    flat = volumes.reshape(len(volumes), -1)
    ratio = GramPCA(len(volumes) - 1).fit(gram).explained_variance_ratio_
    save_figure(explained_variance_figure(ratio), out / "explained_variance.png")
    pca = GramPCA(max(RECONSTRUCTED)).fit(gram)  # eigenvolumes take as much memory as so many persons
    scores = pca.transform(gram)
    parts = components(flat, pca, everyone)
    first = {f"component {number + 1}": part.reshape(size) for number, part in enumerate(parts[:4])}
    save_figure(volumes_figure(first, "eigenbrains", list(first)), out / "eigenbrains.png")
    mean = flat.mean(axis=0)
    rebuilt = {"as it is": volumes[0]}
    for kept in sorted({min(number, len(parts)) for number in RECONSTRUCTED}):
        rebuilt[f"{kept} components"] = (mean + scores[0, :kept] @ parts[:kept]).reshape(size)
    save_figure(volumes_figure(rebuilt, "one person, rebuilt"), out / "reconstructions.png")
    save_figure(projections_figure(scores, labels, names), out / "projections.png")
    if len(names) > 1:
        means = {name: volumes[labels == code].mean(axis=0) for code, name in names.items() if (labels == code).any()}
        (first_name, low), (second_name, high) = list(means.items())[:2]  # check_enough saw two classes
        difference = f"{second_name} - {first_name}"
        save_figure(volumes_figure(means | {difference: high - low}, "means", [difference]), out / "class_means.png")


def _show_learning(
    out: Path,
    gram: np.ndarray,
    labels: np.ndarray,
    families: list[str],
    model: BaseEstimator,
    n_components: float,
    folds: int,
    seed: int,
) -> None:
    """Training and test scores of ridge or logistic regression against the penalty, and the number of persons."""
    pipeline, scoring = pipeline_of(model, n_components), scoring_of(model)
    name, values = ("C", np.logspace(-5, 2, 8)) if is_classifier(model) else ("alpha", np.logspace(-2, 5, 8))
    common: dict[str, Any] = {"groups": families, "cv": splitter_of(model, folds, seed), "scoring": scoring}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="sklearn")
        training, test = validation_curve(
            pipeline, gram, labels, param_name=f"model__{name}", param_range=values, **common
        )
        penalty = train_and_test_figure(values, training, test, f"{name} of the penalty", scoring, log=True)
        shares = np.linspace(0.3, 1.0, 5)
        sizes, training, test = learning_curve(
            pipeline, gram, labels, train_sizes=shares, shuffle=True, random_state=seed, **common
        )
    save_figure(penalty, out / "penalty.png")
    save_figure(
        train_and_test_figure(sizes, training, test, "persons in training", scoring), out / "learning_curve.png"
    )
