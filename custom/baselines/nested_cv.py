"""What can be said of a person from principal components: classic models in nested cross-validation."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence

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
from custom.metrics.classification import roc_auc


def _of_deviations(model: BaseEstimator) -> TransformedTargetRegressor:
    """Learns the target in deviations of the training persons: an SVR's tolerance is in the target's unit."""
    return TransformedTargetRegressor(model, transformer=StandardScaler())


STRENGTHS = {"model__C": [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0]}
NEIGHBOURS = {"model__n_neighbors": [1, 3, 5, 9, 15]}
CLASSIFIERS: dict[str, tuple[BaseEstimator, dict]] = {
    "logistic regression": (LogisticRegression(max_iter=5000), STRENGTHS),
    "linear SVM": (SVC(kernel="linear"), STRENGTHS),
    "RBF SVM": (SVC(kernel="rbf"), {"model__C": [0.1, 1.0, 10.0, 100.0]}),
    "KNN": (KNeighborsClassifier(), NEIGHBOURS),
}
REGRESSORS: dict[str, tuple[BaseEstimator, dict]] = {
    "ridge": (Ridge(), {"model__alpha": [0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0]}),
    "linear SVM": (_of_deviations(SVR(kernel="linear")), {"model__regressor__C": STRENGTHS["model__C"]}),
    "RBF SVM": (_of_deviations(SVR(kernel="rbf")), {"model__regressor__C": [0.1, 1.0, 10.0, 100.0]}),
    "KNN": (KNeighborsRegressor(), NEIGHBOURS),
}


def nested_cross_validation(
    features: np.ndarray,
    target: np.ndarray,
    groups: Sequence[str],
    model: BaseEstimator,
    grid: dict,
    n_components: float | None,
    folds: int = 5,
    seed: int = 0,
) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """Scores of one model, whose settings are chosen inside each outer fold's training part.

    PCA, scaling and settings see no person of the fold that is scored; a group (a family) is never divided.

    Args:
        features: a Gram matrix (n, n) of custom.baselines.gram_pca, or with n_components None plain numbers (n, k).
        target: (n,), classes 0, 1, ... or numbers.
        groups: of each person.
        model: a scikit-learn classifier or regressor.
        grid: its settings to choose from, as GridSearchCV takes them, of a pipeline whose last step is "model".
        n_components: of GramPCA.
        folds: outer and inner.
        seed: of the division into folds.

    Returns:
        A row for each outer fold: the chosen settings, training and test scores ("auc" and "balanced_accuracy", or "r2"
        and "mae"); and a row for each person: the fold that tested it, its target, prediction and score (of class 1, or
        the prediction; of more than two classes one for each).

    Raises:
        DataError: too few groups, in all or with a class.
    """
    classify = is_classifier(model)
    check_enough(target if classify else None, groups, folds)
    outer_folds, inner_folds = splitter_of(model, folds, seed), splitter_of(model, folds, seed + 1)
    names = np.asarray(groups)
    rows, predicted = [], []
    with tempfile.TemporaryDirectory() as folder:  # each fold's PCA serves all settings
        pipeline = pipeline_of(model, n_components, None if n_components is None else Memory(folder, verbose=0))
        for fold, (training, test) in enumerate(outer_folds.split(features, target, names)):
            inner = list(inner_folds.split(training, target[training], names[training]))
            search = GridSearchCV(pipeline, grid, cv=inner, scoring=scoring_of(model))
            columns = (training,) if n_components is not None else ()
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module="sklearn")
                search.fit(_part(features, training, *columns), target[training])
            row: dict = {"fold": fold, "n_training": len(training), "n_test": len(test)}
            row |= {name.split("__")[-1]: value for name, value in search.best_params_.items()}
            for part, members in (("training", training), ("test", test)):
                taken = _part(features, members, *columns)
                found = search.predict(taken)
                score = _scores_of_class_1(search, taken) if classify else found
                row |= {
                    f"{part}_{name}": value for name, value in measures(target[members], found, score, classify).items()
                }
                if part == "test":
                    shown = {
                        "person": members,
                        "fold": fold,
                        "target": target[members],
                        "prediction": found,
                    }
                    predicted.append(pandas.DataFrame(shown | _columns(score)))
            rows.append(row)
    return pandas.DataFrame(rows), pandas.concat(predicted).sort_values("person", ignore_index=True)


def pipeline_of(model: BaseEstimator, n_components: float | None, memory: Memory | None = None) -> Pipeline:
    """PCA from a Gram matrix (unless n_components is None), scaling, and the model, each fitted where the whole is."""
    pca = [] if n_components is None else [("pca", GramPCA(n_components))]
    return Pipeline([*pca, ("scale", StandardScaler()), ("model", model)], memory=memory)


def splitter_of(model: BaseEstimator, folds: int, seed: int) -> StratifiedGroupKFold | GroupKFold:
    """Folds that divide no group; for a classifier with the classes' shares as equal as may be."""
    kind = StratifiedGroupKFold if is_classifier(model) else GroupKFold
    return kind(folds, shuffle=True, random_state=seed)


def scoring_of(model: BaseEstimator) -> str:
    """What settings are chosen by, as scikit-learn names it."""
    return "balanced_accuracy" if is_classifier(model) else "r2"


def measures(target: np.ndarray, prediction: np.ndarray, score: np.ndarray, classify: bool) -> dict[str, float]:
    """Area under the ROC curve (two classes only) and balanced accuracy; or R squared and mean absolute error."""
    if not classify:
        return {"r2": float(r2_score(target, prediction)), "mae": float(mean_absolute_error(target, prediction))}
    two = len(np.unique(target)) == 2
    return {
        "auc": float(roc_auc_score(target, score)) if two and score.ndim == 1 else float("nan"),
        "balanced_accuracy": float(balanced_accuracy_score(target, prediction)),
    }


def check_enough(target: np.ndarray | None, groups: Sequence[str], folds: int) -> None:
    """Raises DataError where outer and inner folds can't be made: too few groups, in all or with persons of a class."""
    least = 2 * folds
    if (n := len(set(groups))) < least:
        raise DataError(f"{n} families are too few for {folds} outer and {folds} inner folds: {least} are the least.")
    if target is not None:
        names = np.unique(target)
        if len(names) < 2:
            raise DataError(f"All {len(target)} persons have the target {names.tolist()}: there is nothing to learn.")
        for name in names:
            if (n := len(set(np.asarray(groups)[target == name]))) < least:
                raise DataError(
                    f"Class {name} is found in {n} families, too few for {folds} folds: {least} are the least."
                )


def auc_within_folds(target: np.ndarray, score: np.ndarray, fold: np.ndarray) -> float:
    """The share of pairs of a fold, one person of each class, whose scores are in order: AUC without mixing models.

    Args:
        target: (n,), 0 and 1.
        score: (n,), higher for class 1; scores of different folds are of different models, and aren't compared.
        fold: (n,).

    Returns:
        0 to 1; NaN where no fold has both classes.
    """
    right, pairs = 0.0, 0
    for number in np.unique(fold):
        here = fold == number
        ones = target[here] == 1
        if n := int(ones.sum()) * int((~ones).sum()):
            right += roc_auc(ones, score[here]) * n
            pairs += n
    return float(right / pairs) if pairs else float("nan")


def bootstrap_interval(
    target: np.ndarray, score: np.ndarray, fold: np.ndarray, groups: Sequence[str], draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """`auc_within_folds` of out-of-fold scores, with a 95% interval from bootstrap samples of families.

    Args:
        target, score, fold: as auc_within_folds takes them.
        groups: each person's family; families are drawn, with all their persons.
        draws: bootstrap samples.
        seed: of the draws.
    """
    names, member_of = np.unique(np.asarray(groups), return_inverse=True)
    members = [np.flatnonzero(member_of == number) for number in range(len(names))]
    rng, areas = np.random.default_rng(seed), []
    for _ in range(draws):
        chosen = np.concatenate([members[number] for number in rng.integers(0, len(names), len(names))])
        areas.append(auc_within_folds(target[chosen], score[chosen], fold[chosen]))
    low, high = np.nanquantile(areas, [0.025, 0.975])
    return auc_within_folds(target, score, fold), float(low), float(high)


def _columns(score: np.ndarray) -> dict[str, np.ndarray]:
    """One score for two classes or a number, else one for each class."""
    return {"score": score} if score.ndim == 1 else {f"score_{code}": score[:, code] for code in range(score.shape[1])}


def _part(features: np.ndarray, rows: np.ndarray, columns: np.ndarray | None = None) -> np.ndarray:
    return features[rows] if columns is None else features[np.ix_(rows, columns)]


def _scores_of_class_1(search: GridSearchCV, features: np.ndarray) -> np.ndarray:
    """Of two classes one number each, else one for each class."""
    if hasattr(search, "decision_function"):
        return search.decision_function(features)
    probabilities = search.predict_proba(features)
    return probabilities[:, 1] if probabilities.shape[1] == 2 else probabilities
