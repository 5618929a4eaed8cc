"""Nested cross-validation of PCA and logistic regression from a Gram matrix, against scikit-learn on the voxels.

    python scripts/benchmarks/nested_cv.py [--persons 1113] [--voxels 125000] [--components 100] [--repeats 1]

Simulated volumes with a weak signal; 5 outer and 5 inner folds, six strengths of the penalty, one process. The peer is
a Pipeline that fits scikit-learn's randomized PCA once in each fold (cached for the penalties). Prints seconds of both,
the Gram matrix included, their ratio, both ROC AUCs, and, on the first --exact_voxels voxels, how many
out-of-fold predictions differ from those after a full-SVD PCA.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time

import numpy as np
import torch
from joblib import Memory
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from custom.baselines.gram_pca import gram_matrix
from custom.baselines.nested_cv import CLASSIFIERS, nested_cross_validation


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--persons", type=int, default=1113)
    arguments.add_argument("--voxels", type=int, default=125_000)
    arguments.add_argument("--components", type=int, default=100)
    arguments.add_argument("--repeats", type=int, default=1)
    arguments.add_argument("--exact_voxels", type=int, default=5000)
    options = arguments.parse_args()
    volumes, target = simulate(options.persons, options.voxels)
    ours, theirs = [], []
    for _ in range(options.repeats):
        start = time.perf_counter()
        ours_scores = by_gram(volumes, target, options.components)
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        expected = by_voxels(volumes, target, options.components, "randomized")
        theirs.append(time.perf_counter() - start)
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    print(f"CPU, {torch.get_num_threads()} threads, {volumes.shape} volumes, {options.components} components")
    for name, times in (("Gram matrix", ours), ("randomized PCA in each fold", theirs)):
        print(f"{name}: {statistics.median(times):.1f} s ({min(times):.1f}, {max(times):.1f})")
    print(f"{statistics.median(ratios):.1f} times faster ({min(ratios):.1f}, {max(ratios):.1f})")
    print(f"AUC: {roc_auc_score(target, ours_scores):.4f} and {roc_auc_score(target, expected):.4f}")
    part = volumes[:, : options.exact_voxels]
    ours_scores = by_gram(part, target, options.components)
    expected = by_voxels(part, target, options.components, "full")
    differ = int(((ours_scores > 0) != (expected > 0)).sum())
    greatest = np.abs(ours_scores - expected).max() / np.abs(expected).max()
    print(f"against a full-SVD PCA of {part.shape[1]} voxels: {differ} predictions differ, decisions by {greatest:.0e}")


def simulate(persons: int, voxels: int) -> tuple[np.ndarray, np.ndarray]:
    """A common volume, fifty ways to differ, a weak signal, noise: float32 (persons, voxels), and classes."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, 2, persons)
    ways = rng.standard_normal((50, voxels), dtype=np.float32)
    weights = rng.standard_normal((persons, 50), dtype=np.float32) * np.linspace(3, 0.5, 50, dtype=np.float32)
    weights[:, 10] += 1.5 * target
    volumes = rng.standard_normal((persons, voxels), dtype=np.float32)
    volumes += weights @ ways
    volumes += 100 + 10 * rng.standard_normal(voxels, dtype=np.float32)
    return volumes, target


def by_gram(volumes: np.ndarray, target: np.ndarray, components: int) -> np.ndarray:
    persons = [str(number) for number in range(len(target))]
    model = CLASSIFIERS["logistic regression"]
    _, predicted = nested_cross_validation(gram_matrix(volumes), target, persons, model, components)
    scores: np.ndarray = predicted["score"].to_numpy()
    return scores


def by_voxels(volumes: np.ndarray, target: np.ndarray, components: int, solver: str) -> np.ndarray:
    """The same folds, settings and model, on the voxels themselves."""
    model, grid = CLASSIFIERS["logistic regression"]
    assert isinstance(model, LogisticRegression)
    persons, scores = np.arange(len(target)).astype(str), np.zeros(len(target))
    with tempfile.TemporaryDirectory() as folder:
        pca = PCA(components, svd_solver=solver, random_state=0)
        steps = [("pca", pca), ("scale", StandardScaler()), ("model", clone(model))]
        pipeline = Pipeline(steps, memory=Memory(folder, verbose=0))
        splits = [StratifiedGroupKFold(5, shuffle=True, random_state=seed) for seed in (0, 1)]
        for training, test in splits[0].split(volumes, target, persons):
            inner = list(splits[1].split(training, target[training], persons[training]))
            search = GridSearchCV(pipeline, grid, cv=inner, scoring="balanced_accuracy")
            scores[test] = search.fit(volumes[training], target[training]).decision_function(volumes[test])
    return scores


if __name__ == "__main__":
    main()
