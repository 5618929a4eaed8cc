"""`brainmri baseline hcp`: classic models on HCP's T1w volumes, and on brain volumes, age and sex alone."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pandas
from sklearn.base import BaseEstimator, is_classifier
from sklearn.model_selection import learning_curve, validation_curve

from custom import RESEARCH_USE_ONLY
from custom.baselines.gram_pca import GramPCA, check_components, components, gram_matrix, rebuilt
from custom.baselines.nested_cv import (
    CLASSIFIERS,
    REGRESSORS,
    Model,
    auc_interval,
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

SIMPLE = ("FS_BrainSeg_Vol", "FS_IntraCranial_Vol", "Age_in_Yrs", "Gender")  # the table's columns for one more model
RECONSTRUCTED = (10, 100, 500)  # components


@dataclasses.dataclass(frozen=True)
class HCPOptions:
    """Options of the HCP baselines.

    Args:
        dataset_dir: a folder with HCP's layout.
        output_dir: where tables and figures go; an earlier run's are moved to earlier/ first.
        cache_dir: where preprocessed scans go, for all targets and runs.
        target: column of the subjects' table, as custom.datasets.hcp.persons takes it.
        kind: "classes", "median" or "regression", as custom.datasets.hcp.persons takes it.
        band: around the median, as custom.datasets.hcp.persons takes it.
        space: "native" or "mni".
        missing: "raise" or "skip", for subjects without a scan or without a row.
        roi_size: of the resized scans, in voxels; the bundle's by default.
        n_components: of the PCA: at most so many, or a fraction of the training variance.
        folds: number of outer and of inner folds.
        seed: of folds and bootstrap.
        num_workers: processes that preprocess.

    Raises:
        ConfigError: folds or n_components out of range.
    """

    dataset_dir: str | Path = "data/hcp"
    output_dir: str | Path = "runs/hcp_baselines"
    cache_dir: str | Path = "cache/hcp"
    target: str = "Gender"
    kind: str = "classes"
    band: float = 0.0
    space: str = "native"
    missing: str = "raise"
    roi_size: Sequence[int] | None = None
    n_components: float = 100
    folds: int = 5
    seed: int = 0
    num_workers: int = 0

    def __post_init__(self) -> None:
        folds: object = self.folds  # the command line passes any type
        if not isinstance(folds, int) or folds < 2:
            raise ConfigError(f"folds must be a whole number of 2 or more, got {folds!r}.")
        check_components(self.n_components)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """The options that a user gave by name.

        Raises:
            ConfigError: an unknown option, or a value out of range.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        if unknown := [name for name in options if name not in names]:
            raise ConfigError(f"The baselines of hcp have no option {unknown[0]!r}. Use some of: {', '.join(names)}.")
        return cls(**options)


class _Cohort(NamedTuple):
    """The persons with a scan and a target, in one order."""

    subjects: pandas.Index
    labels: np.ndarray  # (n,)
    families: list[str]
    names: dict[int, str]  # of the classes, or {0: target}
    volumes: np.ndarray  # (n, x, y, z)
    gram: np.ndarray  # (n, n)
    simple: dict[str, np.ndarray]  # numbers for a model without a scan, (n,) each
    relatives_known: bool


def hcp_baselines(files: list[str], options: HCPOptions) -> pandas.DataFrame:
    """Nested cross-validation of PCA with four models, and of volumes, age and sex alone; tables and figures.

    Writes baselines.csv (a row for each model), by_fold.csv, predictions.csv, settings.json and figures to output_dir.
    Persons of one family are never divided. A median is taken over all persons, because it defines the classes. The
    figures of components, means and projections show all persons; no score uses them.

    Args:
        files: the HCP bundle's train.json and mixins, whose preprocessing the scans go through.
        options: all other settings.

    Returns:
        The table of models.

    Raises:
        ConfigError: as custom.datasets.hcp.persons; a roi_size that is not three whole numbers of 8 or more.
        DataError: as custom.datasets.hcp.persons; too few persons or families.
    """
    cohort = _load_cohort(files, options)
    out = Path(options.output_dir).expanduser()
    result, by_fold, predictions = _score_models(cohort, options)
    out.mkdir(parents=True, exist_ok=True)
    set_aside(out, [path.name for path in out.iterdir() if path.suffix in (".csv", ".json", ".png")])
    for name, frame in {"baselines": result, "by_fold": by_fold, "predictions": predictions}.items():
        with written_whole(out / f"{name}.csv") as partial:
            frame.drop(columns="person", errors="ignore").to_csv(partial, index=False, float_format="%.4f")
    n, families = len(cohort.subjects), len(set(cohort.families))
    settings = {"files": str(files)} | {name: str(value) for name, value in dataclasses.asdict(options).items()}
    counts = {"n": n, "families": families, "relatives_known": cohort.relatives_known}
    with written_whole(out / "settings.json") as partial:
        partial.write_text(json.dumps(settings | counts, indent=1) + "\n")
    _show_persons(out, cohort.volumes, cohort.gram, cohort.labels, cohort.names)
    _show_learning(out, cohort, options)
    print(result.to_string(index=False, float_format="%.3f"))
    if not cohort.relatives_known:
        print(
            "The table has no Family_ID, so relatives may be in training and test at once. Add HCP's restricted table."
        )
    print(
        f"{n} persons of {families} families, {options.folds} folds, seed {options.seed}; tables and figures: {out}. "
        f"{RESEARCH_USE_ONLY}"
    )
    return result


def _load_cohort(files: list[str], options: HCPOptions) -> _Cohort:
    """Reads the table and every scan."""
    overrides = {} if options.roi_size is None else {"roi_size": options.roi_size}
    settings = {"logging_file": False, "workflow_type": "train", "cache_dir": str(options.cache_dir)}
    bundle = StrictWorkflow(files, **settings, **overrides).parser
    size = bundle["roi_size"]
    if len(size) != 3 or any(not isinstance(n, int) or n < 8 for n in size):
        raise ConfigError(f"roi_size must be three whole numbers of 8 voxels or more, got {size!r}.")
    target, kind = options.target, options.kind
    people = hcp.persons(options.dataset_dir, target, kind, options.band, options.space, (), options.missing)
    labels, families = people["label"].to_numpy(), people["family"].tolist()
    check_enough(None if kind == "regression" else labels, families, options.folds)
    names = {0: target} if kind == "regression" else hcp.classes(options.dataset_dir, target, kind)
    preprocessing = bundle.get_parsed_content("preprocessing")
    rows, brain_ml = volumes_to_rows(people["image"], preprocessing, options.num_workers, options.cache_dir)
    table = hcp.table(options.dataset_dir)
    simple = _simple_columns(table.loc[people.index], target) | {"brain volume": brain_ml}
    volumes, gram = rows.reshape(-1, *size), gram_matrix(rows)
    return _Cohort(people.index, labels, families, names, volumes, gram, simple, hcp.knows_families(table))


def _score_models(cohort: _Cohort, options: HCPOptions) -> tuple[pandas.DataFrame, pandas.DataFrame, pandas.DataFrame]:
    """A row for each model, for each model and outer fold, and for each model and person."""
    models = REGRESSORS if options.kind == "regression" else CLASSIFIERS
    simple = np.column_stack(list(cohort.simple.values()))
    cases: dict[str, tuple[np.ndarray, Model, float | None]] = {
        f"PCA, {name}": (cohort.gram, model, options.n_components) for name, model in models.items()
    }
    cases[f"{', '.join(cohort.simple)} alone"] = (simple, _linear_model(options), None)
    table, by_fold, predictions = [], [], []
    for name, (features, model, n_components) in cases.items():
        scores, predicted = nested_cross_validation(
            features, cohort.labels, cohort.families, model, n_components, options.folds, options.seed
        )
        table.append({"model": name} | _summary(scores, predicted, cohort.families, options.seed))
        by_fold.append(scores.assign(model=name))
        predictions.append(predicted.assign(subject=cohort.subjects[predicted["person"]], model=name))
    return pandas.DataFrame(table), pandas.concat(by_fold), pandas.concat(predictions)


def _linear_model(options: HCPOptions) -> Model:
    return REGRESSORS["ridge"] if options.kind == "regression" else CLASSIFIERS["logistic regression"]


def _simple_columns(people: pandas.DataFrame, target: str) -> dict[str, np.ndarray]:
    """The columns of SIMPLE that the table has, without the target, columns with gaps, and constant columns."""
    columns = {}
    for name in (name for name in SIMPLE if name in people and name != target):
        values = people[name]
        if not pandas.api.types.is_numeric_dtype(values):
            codes = pandas.Series(pandas.factorize(values, sort=True)[0], index=values.index, dtype=float)
            values = codes.where(codes >= 0)
        if values.notna().all() and values.nunique() > 1:
            columns[name] = values.to_numpy(dtype=float)
    return columns


def _summary(scores: pandas.DataFrame, predicted: pandas.DataFrame, families: list[str], seed: int) -> dict[str, Any]:
    """Means and standard deviations over folds; with two classes also the AUC with an interval over families."""
    row: dict[str, Any] = {"n": len(predicted)}
    for name in (column.removeprefix("test_") for column in scores if column.startswith("test_")):
        if scores[f"test_{name}"].notna().all():
            row |= {name: scores[f"test_{name}"].mean(), f"{name}_std": scores[f"test_{name}"].std()}
            row[f"training_{name}"] = scores[f"training_{name}"].mean()
    if "auc" in row:
        target, score, fold = (predicted[name].to_numpy(dtype=float) for name in ("target", "score", "fold"))
        groups = [families[person] for person in predicted["person"]]
        row["auc"], row["auc_low"], row["auc_high"] = auc_interval(target, score, fold, groups, seed=seed)
    return row


def _show_persons(out: Path, volumes: np.ndarray, gram: np.ndarray, labels: np.ndarray, names: dict[int, str]) -> None:
    """Figures of all persons, (n, x, y, z)."""
    everyone, size = range(len(volumes)), volumes.shape[1:]
    flat = volumes.reshape(len(volumes), -1)
    ratio = GramPCA(len(volumes) - 1).fit(gram).explained_variance_ratio_
    save_figure(explained_variance_figure(ratio), out / "explained_variance.png")
    pca = GramPCA(max(RECONSTRUCTED)).fit(gram)
    scores = pca.transform(gram)
    parts = components(flat, pca, everyone, most=4)
    first = {f"component {number + 1}": part.reshape(size) for number, part in enumerate(parts)}
    save_figure(volumes_figure(first, "eigenbrains", list(first)), out / "eigenbrains.png")
    numbers = sorted({min(number, scores.shape[1]) for number in RECONSTRUCTED})
    sums = rebuilt(flat, pca, everyone, scores[0], numbers)
    reconstructed = {f"{kept} components": part.reshape(size) for kept, part in zip(numbers, sums, strict=True)}
    shown = {"original": volumes[0]} | reconstructed
    save_figure(volumes_figure(shown, "one person, reconstructed"), out / "reconstructions.png")
    save_figure(projections_figure(scores, labels, names), out / "projections.png")
    if len(names) > 1:
        of_class = {name: (labels == code).reshape(-1, 1, 1, 1) for code, name in names.items() if code in labels}
        means = {name: volumes.mean(axis=0, where=members) for name, members in of_class.items()}  # no copies
        (first_name, low), (second_name, high) = list(means.items())[:2]  # check_enough saw two classes
        difference = f"{second_name} - {first_name}"
        save_figure(volumes_figure(means | {difference: high - low}, "means", [difference]), out / "class_means.png")


def _show_learning(out: Path, cohort: _Cohort, options: HCPOptions) -> None:
    """Training and test scores of ridge or logistic regression against the penalty, and the number of persons."""
    model: BaseEstimator = _linear_model(options).estimator
    pipeline, scoring = pipeline_of(model, options.n_components), scoring_of(model)
    gram, labels = cohort.gram, cohort.labels
    name, values = ("C", np.logspace(-5, 2, 8)) if is_classifier(model) else ("alpha", np.logspace(-2, 5, 8))
    splitter = splitter_of(model, options.folds, options.seed)
    common: dict[str, Any] = {"groups": cohort.families, "cv": splitter, "scoring": scoring}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="sklearn")
        training, test = validation_curve(
            pipeline, gram, labels, param_name=f"model__{name}", param_range=values, **common
        )
        penalty = train_and_test_figure(values, training, test, f"{name} of the penalty", scoring, log=True)
        shares = np.linspace(0.3, 1.0, 5)
        sizes, training, test = learning_curve(
            pipeline, gram, labels, train_sizes=shares, shuffle=True, random_state=options.seed, **common
        )
    save_figure(penalty, out / "penalty.png")
    save_figure(
        train_and_test_figure(sizes, training, test, "persons in training", scoring), out / "learning_curve.png"
    )
