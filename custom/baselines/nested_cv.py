"""Classic models on principal components, scored by nested cross-validation."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas
from joblib import Memory
from sklearn.base import BaseEstimator, is_classifier
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score, mean_absolute_error, r2_score, roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from custom.baselines.gram_pca import GramPCA
from custom.errors import DataError
from custom.metrics.bootstrap import Interval, bootstrap_intervals
from custom.metrics.classification import roc_auc


class Model(NamedTuple):
    """A scikit-learn classifier or regressor, and its settings to choose from.

    `grid` is as GridSearchCV takes it, for a pipeline whose last step is "model".
    """

    estimator: BaseEstimator
    grid: dict[str, list[float]]


def _of_z_scores(model: BaseEstimator) -> TransformedTargetRegressor:
    """Learns z-scores of the target: an SVR's tolerance is in the target's unit."""
    return TransformedTargetRegressor(model, transformer=StandardScaler())


STRENGTHS = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0]
RBF_STRENGTHS = [0.1, 1.0, 10.0, 100.0]
NEIGHBOURS: dict[str, list[float]] = {"model__n_neighbors": [1, 3, 5, 9, 15]}
CLASSIFIERS = {
    "logistic regression": Model(LogisticRegression(max_iter=5000), {"model__C": STRENGTHS}),
    "linear SVM": Model(SVC(kernel="linear"), {"model__C": STRENGTHS}),
    "RBF SVM": Model(SVC(kernel="rbf"), {"model__C": RBF_STRENGTHS}),
    "KNN": Model(KNeighborsClassifier(), NEIGHBOURS),
}
REGRESSORS = {
    "ridge": Model(Ridge(), {"model__alpha": [0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0]}),
    "linear SVM": Model(_of_z_scores(SVR(kernel="linear")), {"model__regressor__C": STRENGTHS}),
    "RBF SVM": Model(_of_z_scores(SVR(kernel="rbf")), {"model__regressor__C": RBF_STRENGTHS}),
    "KNN": Model(KNeighborsRegressor(), NEIGHBOURS),
}


def nested_cross_validation(
    features: np.ndarray,
    target: np.ndarray,
    groups: Sequence[str],
    model: Model,
    n_components: float | None,
    folds: int = 5,
    seed: int = 0,
) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """Scores of one model, whose settings are chosen inside each outer fold's training part.

    PCA, scaling and the choice of settings see no person of the fold that is scored. A group (a family) is never
    divided.

    Args:
        features: a Gram matrix (n, n) of custom.baselines.gram_pca, or with n_components None plain numbers (n, k).
        target: (n,), classes 0, 1, ... or numbers.
        groups: (n,), the family of each person.
        model: the model and its grid.
        n_components: of GramPCA.
        folds: number of outer and of inner folds.
        seed: of the division into folds.

    Returns:
        A row for each outer fold: the chosen settings, training and test scores ("auc" and "balanced_accuracy", or "r2"
        and "mae"); and a row for each person: the fold that tested it, its target, prediction and score (of class 1, or
        the prediction; with more than two classes a score for each).

    Raises:
        DataError: too few groups, in all or with a class.
    """
    classify = is_classifier(model.estimator)
    check_enough(target if classify else None, groups, folds)
    outer_folds, inner_folds = (splitter_of(model.estimator, folds, number) for number in (seed, seed + 1))
    names = np.asarray(groups)
    rows, predicted = [], []
    with tempfile.TemporaryDirectory() as folder:  # each fold's PCA serves all settings
        memory = None if n_components is None else Memory(folder, verbose=0)
        pipeline = pipeline_of(model.estimator, n_components, memory)
        for fold, (training, test) in enumerate(outer_folds.split(features, target, names)):
            inner = list(inner_folds.split(training, target[training], names[training]))
            search = GridSearchCV(pipeline, model.grid, cv=inner, scoring=scoring_of(model.estimator))
            columns = None if n_components is None else training
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module="sklearn")
                search.fit(_part(features, training, columns), target[training])
            row: dict[str, Any] = {"fold": fold, "n_training": len(training), "n_test": len(test)}
            row |= {name.split("__")[-1]: value for name, value in search.best_params_.items()}
            for part, members in (("training", training), ("test", test)):
                prediction, score = _predict(search, _part(features, members, columns), classify)
                scores = measures(target[members], prediction, score, classify)
                row |= {f"{part}_{name}": value for name, value in scores.items()}
            rows.append(row)
            tested = {"person": test, "fold": fold, "target": target[test], "prediction": prediction}
            predicted.append(pandas.DataFrame(tested | _columns(score)))
    return pandas.DataFrame(rows), pandas.concat(predicted).sort_values("person", ignore_index=True)


def pipeline_of(model: BaseEstimator, n_components: float | None, memory: Memory | None = None) -> Pipeline:
    """PCA from a Gram matrix (unless n_components is None), scaling, and the model, all fitted on the same persons."""
    pca = [] if n_components is None else [("pca", GramPCA(n_components))]
    return Pipeline([*pca, ("scale", StandardScaler()), ("model", model)], memory=memory)


def splitter_of(model: BaseEstimator, folds: int, seed: int) -> StratifiedGroupKFold | GroupKFold:
    """Folds that divide no group; for a classifier with the classes' shares as equal as possible."""
    kind = StratifiedGroupKFold if is_classifier(model) else GroupKFold
    return kind(folds, shuffle=True, random_state=seed)


def scoring_of(model: BaseEstimator) -> str:
    """scikit-learn's name of the score by which settings are chosen."""
    return "balanced_accuracy" if is_classifier(model) else "r2"


def measures(target: np.ndarray, prediction: np.ndarray, score: np.ndarray, classify: bool) -> dict[str, float]:
    """ROC AUC (two classes only) and balanced accuracy; or R squared and mean absolute error."""
    if not classify:
        return {"r2": float(r2_score(target, prediction)), "mae": float(mean_absolute_error(target, prediction))}
    two = len(np.unique(target)) == 2
    return {
        "auc": float(roc_auc_score(target, score)) if two and score.ndim == 1 else float("nan"),
        "balanced_accuracy": float(balanced_accuracy_score(target, prediction)),
    }


def check_enough(target: np.ndarray | None, groups: Sequence[str], folds: int) -> None:
    """Checks that outer and inner folds can be made.

    Raises:
        DataError: too few groups, in all or with persons of a class; only one class.
    """
    least = 2 * folds
    if (n := len(set(groups))) < least:
        raise DataError(
            f"{n} families are too few for {folds} outer and {folds} inner folds. At least {least} are needed."
        )
    if target is not None:
        names = np.unique(target)
        if len(names) < 2:
            raise DataError(f"All {len(target)} persons have the target {names.tolist()}. There is nothing to learn.")
        for name in names:
            if (n := len(set(np.asarray(groups)[target == name]))) < least:
                raise DataError(
                    f"Class {name} occurs in {n} families, too few for {folds} folds. At least {least} are needed."
                )


def auc_within_folds(target: np.ndarray, score: np.ndarray, fold: np.ndarray) -> float:
    """The share of pairs of a fold, one person of each class, whose scores are in order: AUC without mixing models.

    Args:
        target: (n,), 0 and 1.
        score: (n,), higher for class 1. Scores of different folds come from different models and are not compared.
        fold: (n,), the fold that tested each person.

    Returns:
        0 to 1; NaN where no fold has both classes.
    """
    right, pairs = 0.0, 0
    for number in np.unique(fold):
        members = fold == number
        positive = target[members] == 1
        if n := int(positive.sum()) * int((~positive).sum()):
            right += roc_auc(positive, score[members]) * n
            pairs += n
    return float(right / pairs) if pairs else float("nan")


def auc_interval(
    target: np.ndarray, score: np.ndarray, fold: np.ndarray, groups: Sequence[str], draws: int = 2000, seed: int = 0
) -> Interval:
    """`auc_within_folds` of out-of-fold scores, with a 95% interval from bootstrap samples of families.

    Args:
        target: (n,), as auc_within_folds takes it.
        score: (n,), as auc_within_folds takes it.
        fold: (n,), as auc_within_folds takes it.
        groups: (n,), the family of each person; families are drawn, with all their persons.
        draws: bootstrap samples.
        seed: of the draws.
    """

    def auc(rows: np.ndarray) -> float:
        return auc_within_folds(target[rows], score[rows], fold[rows])

    return bootstrap_intervals({"auc": auc}, groups, draws, seed)["auc"]


def _columns(score: np.ndarray) -> dict[str, np.ndarray]:
    """A column for two classes or a number, else a column for each class."""
    return {"score": score} if score.ndim == 1 else {f"score_{code}": score[:, code] for code in range(score.shape[1])}


def _part(features: np.ndarray, rows: np.ndarray, columns: np.ndarray | None) -> np.ndarray:
    part: np.ndarray = features[rows] if columns is None else features[np.ix_(rows, columns)]
    return part


def _predict(search: GridSearchCV, features: np.ndarray, classify: bool) -> tuple[np.ndarray, np.ndarray]:
    """Predictions (n,), and scores: (n,) for two classes or a number, else (n, classes)."""
    prediction: np.ndarray = search.predict(features)
    if not classify:
        return prediction, prediction
    score: np.ndarray
    if hasattr(search, "decision_function"):
        score = search.decision_function(features)
    else:
        score = search.predict_proba(features)
        score = score[:, 1] if score.shape[1] == 2 else score
    return prediction, score
