"""PCA from a Gram matrix against scikit-learn's on the voxels, and the nested cross-validation that rests on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from custom.baselines.gram_pca import GramPCA, components, gram_matrix, rebuilt
from custom.baselines.nested_cv import (
    CLASSIFIERS,
    REGRESSORS,
    Model,
    auc_interval,
    auc_within_folds,
    measures,
    nested_cross_validation,
)
from custom.errors import DataError

PERSONS, VOXELS = 60, 500
LONERS = [str(number) for number in range(PERSONS)]
LOGISTIC = CLASSIFIERS["logistic regression"]


@pytest.fixture(scope="module")
def volumes() -> np.ndarray:
    """Noise on a large common mean, which costs digits where it isn't removed; the first persons differ in scale."""
    rng = np.random.default_rng(0)
    return (1000 + rng.standard_normal((PERSONS, VOXELS)) * np.linspace(3, 1, PERSONS)[:, None]).astype(np.float32)


@pytest.mark.parametrize("kept", [1, 10, 200, 0.6])
def test_scores_of_a_fold_are_pcas(volumes: np.ndarray, kept: float) -> None:
    """Of training and other persons, but for signs; so are the shares of the variance and the components."""
    training, others = np.arange(5, 50), np.r_[0:5, 50:60]
    gram = gram_matrix(volumes)
    ours = GramPCA(kept)
    fitted = ours.fit_transform(gram[np.ix_(training, training)])
    theirs = PCA(kept if kept < 1 else min(kept, len(training) - 1), svd_solver="full").fit(
        volumes[training].astype(float)
    )
    expected = theirs.transform(volumes[training].astype(float))
    assert fitted.shape == expected.shape
    np.testing.assert_allclose(np.abs(fitted), np.abs(expected), atol=1e-8)
    found = ours.transform(gram[np.ix_(others, training)])
    np.testing.assert_allclose(np.abs(found), np.abs(theirs.transform(volumes[others].astype(float))), atol=1e-8)
    np.testing.assert_allclose(ours.explained_variance_ratio_, theirs.explained_variance_ratio_, atol=1e-12)
    np.testing.assert_allclose(np.abs(components(volumes, ours, training)), np.abs(theirs.components_), atol=1e-6)
    first = components(volumes, ours, training, most=1)
    np.testing.assert_array_equal(first, components(volumes, ours, training)[:1])


def test_a_person_from_some_components(volumes: np.ndarray) -> None:
    """As scikit-learn's PCA rebuilds it; also where the voxels come in pieces."""
    training = np.arange(5, 50)
    gram = gram_matrix(volumes)
    ours = GramPCA(30).fit(gram[np.ix_(training, training)])
    theirs = PCA(30, svd_solver="full").fit(volumes[training].astype(float))
    scores = ours.transform(gram[np.ix_([0], training)])[0]
    wanted = theirs.transform(volumes[:1].astype(float))[0]
    found = rebuilt(volumes, ours, training, scores, [2, 30])
    for part, kept in zip(found, (2, 30), strict=True):
        np.testing.assert_allclose(part, theirs.mean_ + wanted[:kept] @ theirs.components_[:kept], atol=1e-3)


def test_pieces_of_the_voxels(volumes: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = gram_matrix(volumes)
    monkeypatch.setattr("custom.baselines.gram_pca.CHUNK", 7)  # voxels at once, 3 at the end
    monkeypatch.setattr("custom.baselines.gram_pca.MAPPED_VALUES", 9 * PERSONS)
    np.testing.assert_allclose(gram_matrix(volumes), whole, rtol=1e-9)
    mapped = np.memmap(tmp_path / "rows", np.float32, "w+", shape=volumes.shape)
    mapped[:] = volumes
    np.testing.assert_allclose(gram_matrix(mapped), whole, rtol=1e-9)
    np.testing.assert_array_equal(mapped, volumes)  # it was only read


@pytest.mark.parametrize("kept", [0, -1, 1.5, True])
def test_components_must_make_sense(volumes: np.ndarray, kept: float) -> None:
    with pytest.raises(ValueError, match=r"n_components must be a whole number, or a fraction"):
        GramPCA(kept).fit(gram_matrix(volumes))


def test_gram_matrix_says_what_it_takes(volumes: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"must be \(n, voxels\), got \(60, 10, 50\)"):
        gram_matrix(volumes.reshape(PERSONS, 10, 50))
    spoilt = volumes.copy()
    spoilt[3, 7] = np.nan
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        gram_matrix(spoilt)


def test_a_clone_keeps_its_setting() -> None:
    assert clone(GramPCA(0.9)).n_components == 0.9


def signal(strength: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Volumes whose first 40 voxels differ between two classes, and the classes."""
    rng = np.random.default_rng(seed)
    target = rng.permutation(np.resize([0, 1], PERSONS))
    volumes = rng.standard_normal((PERSONS, VOXELS))
    volumes[target == 1, :40] += strength
    return volumes, target


def test_predictions_are_those_on_the_voxels() -> None:
    """The same folds and settings with a full-SVD PCA of the voxels: every decision the same."""
    volumes, target = signal(0.7)
    by_fold, predicted = nested_cross_validation(gram_matrix(volumes), target, LONERS, LOGISTIC, 20)
    expected, chosen, persons = np.zeros(PERSONS), [], np.array(LONERS)
    steps = [("pca", PCA(20, svd_solver="full")), ("scale", StandardScaler()), ("model", clone(LOGISTIC.estimator))]
    outer, inner = (StratifiedGroupKFold(5, shuffle=True, random_state=seed) for seed in (0, 1))
    for training, test in outer.split(volumes, target, persons):
        folds = list(inner.split(training, target[training], persons[training]))
        search = GridSearchCV(Pipeline(steps), LOGISTIC.grid, cv=folds, scoring="balanced_accuracy")
        expected[test] = search.fit(volumes[training], target[training]).decision_function(volumes[test])
        chosen.append(search.best_params_["model__C"])
    np.testing.assert_allclose(predicted["score"], expected, atol=1e-6)
    assert by_fold["C"].tolist() == chosen
    assert (predicted["prediction"] == (expected > 0)).all()
    assert by_fold["n_test"].sum() == PERSONS


def aucs(name: str, strength: float, seeds: range, leak: bool = False) -> list[float]:
    """Of one classifier on 60 new persons for each seed; with `leak`, the target chooses voxels before the folds."""
    found = []
    for seed in seeds:
        volumes, target = signal(strength, seed)
        if leak:
            contrast = np.abs(volumes[target == 1].mean(axis=0) - volumes[target == 0].mean(axis=0))
            volumes = volumes[:, np.argsort(contrast)[-30:]]
        _, predicted = nested_cross_validation(gram_matrix(volumes), target, LONERS, CLASSIFIERS[name], 20)
        found.append(auc_within_folds(*(predicted[key].to_numpy(dtype=float) for key in ("target", "score", "fold"))))
    return found


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_find_a_signal_and_nothing_in_noise(name: str) -> None:
    """Noise in more voxels than persons, six seeds: a leak would show as a mean well above one half."""
    assert min(aucs(name, 1.6, range(1))) > 0.9
    assert 0.38 < np.mean(aucs(name, 0.0, range(6))) < 0.58


def test_the_check_for_leaks_can_fail() -> None:
    """Voxels selected by the target outside of the folds make pure noise look like a finding."""
    assert np.mean(aucs("logistic regression", 0.0, range(3), leak=True)) > 0.8


def test_families_stay_together() -> None:
    volumes, target = signal(0.7)
    families = [str(number // 3) for number in range(PERSONS)]
    _, predicted = nested_cross_validation(gram_matrix(volumes), target, families, LOGISTIC, 10)
    assert predicted.groupby([families[person] for person in predicted["person"]])["fold"].nunique().eq(1).all()


@pytest.mark.parametrize("name", REGRESSORS)
def test_regressors_find_a_number(name: str) -> None:
    volumes, _ = signal(0.0)
    rng = np.random.default_rng(1)
    number = rng.standard_normal(PERSONS)
    volumes[:, :60] += 2 * number[:, None]
    by_fold, predicted = nested_cross_validation(gram_matrix(volumes), number, LONERS, REGRESSORS[name], 10)
    assert by_fold["test_r2"].mean() > 0.3
    assert np.corrcoef(predicted["score"], number)[0, 1] > 0.7


def test_plain_numbers_without_pca() -> None:
    _, target = signal(0.0)
    ages = np.column_stack([target + 0.1 * np.random.default_rng(0).standard_normal(PERSONS)])
    by_fold, _ = nested_cross_validation(ages, target, LONERS, LOGISTIC, None)
    assert by_fold["test_auc"].tolist() == [1.0] * 5


def test_measures_by_hand() -> None:
    """Two of three and one of one right: 5/6; of the three pairs one is in the wrong order."""
    target, prediction = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    found = measures(target, prediction, np.array([0.1, 0.2, 0.9, 0.8]), classify=True)
    assert found == {"auc": pytest.approx(2 / 3), "balanced_accuracy": pytest.approx(5 / 6)}
    numbers = measures(np.array([1.0, 3.0]), np.array([1.0, 2.0]), np.array([1.0, 2.0]), classify=False)
    assert numbers == {"r2": pytest.approx(0.5), "mae": pytest.approx(0.5)}


def test_area_compares_within_folds_only() -> None:
    """Each fold is in perfect order, though the second model's scores all lie above the first one's."""
    target, fold = np.array([0, 1, 0, 1, 1]), np.array([0, 0, 1, 1, 1])
    assert auc_within_folds(target, np.array([0.1, 0.2, 5.0, 6.0, 7.0]), fold) == 1.0
    assert auc_within_folds(target, np.array([0.1, 0.2, 6.0, 5.0, 7.0]), fold) == pytest.approx(2 / 3)
    assert auc_within_folds(target, np.array([0.1, 0.1, 5.0, 6.0, 7.0]), fold) == pytest.approx(2.5 / 3)  # a tie
    assert np.isnan(auc_within_folds(target[3:], np.array([1.0, 2.0]), fold[3:]))
    rng = np.random.default_rng(0)
    many, score = np.resize([0, 1], 200), rng.standard_normal(200)
    assert auc_within_folds(many, score, np.zeros(200)) == pytest.approx(roc_auc_score(many, score))


def test_interval_draws_families() -> None:
    """Three alike in each family: as wide as with one of each, not narrower."""
    rng = np.random.default_rng(0)
    target = np.resize([0, 1], 60)
    score, fold = target + rng.standard_normal(60), np.arange(60) // 12
    single = auc_interval(target, score, fold, LONERS, draws=500)
    tripled = [np.repeat(one, 3) for one in (target, score, fold, np.array(LONERS))]
    auc, low, high = auc_interval(*tripled, draws=500)
    assert (auc, low, high) == pytest.approx(single, abs=0.02)
    assert low < auc < high


def test_draws_of_families_are_fixed_by_the_seed() -> None:
    """Figures of the docs rest on these draws: sixty persons, two of each family, five folds."""
    rng = np.random.default_rng(0)
    target = np.resize([0, 1], 60)
    score, fold = target + rng.standard_normal(60), np.arange(60) // 12
    families = [f"f{number // 2}" for number in range(60)]
    drawn = auc_interval(target, score, fold, families)
    assert drawn == pytest.approx((0.8611111111111112, 0.7782487922705313, 0.9504950495049505))
    drawn = auc_interval(target, score, fold, families, draws=500, seed=3)
    assert drawn == pytest.approx((0.8611111111111112, 0.7715460526315789, 0.956866470223325))


def test_three_classes() -> None:
    rng = np.random.default_rng(0)
    target = np.resize([0, 1, 2], PERSONS)
    volumes = rng.standard_normal((PERSONS, VOXELS))
    for code in (1, 2):
        volumes[target == code, 40 * code : 40 * code + 40] += 2
    by_fold, predicted = nested_cross_validation(gram_matrix(volumes), target, LONERS, LOGISTIC, 20)
    assert {"score_0", "score_1", "score_2"} <= set(predicted.columns)
    assert by_fold["test_balanced_accuracy"].mean() > 0.8
    assert by_fold["test_auc"].isna().all()


def test_the_unit_of_a_number_changes_nothing() -> None:
    volumes, _ = signal(0.0)
    number = np.random.default_rng(1).standard_normal(PERSONS)
    volumes[:, :60] += 2 * number[:, None]
    gram, model = gram_matrix(volumes), REGRESSORS["linear SVM"]
    small, large = (nested_cross_validation(gram, scale * number, LONERS, model, 10)[0] for scale in (1.0, 1e5))
    np.testing.assert_allclose(small["test_r2"], large["test_r2"], atol=0.02)


@pytest.mark.parametrize(
    ("target", "groups", "sentence"),
    [
        ([0, 1] * 5, ["a", "b"] * 5, r"2 families are too few for 5 outer and 5 inner folds\. At least 10 are needed"),
        ([0] * 10, LONERS[:10], r"All 10 persons have the target \[0\]"),
        ([0] * 10 + [1] * 2, LONERS[:12], r"Class 1 occurs in 2 families, too few for 5 folds"),
        ([0] * 12 + [1] * 4, [*LONERS[:12], *["a"] * 4], r"Class 1 occurs in 1 families, too few"),
    ],
)
def test_too_little_to_divide(target: list[int], groups: list[str], sentence: str) -> None:
    model = Model(LogisticRegression(), {})
    with pytest.raises(DataError, match=sentence):
        nested_cross_validation(np.zeros((len(target),) * 2), np.array(target), groups, model, 2)
