"""Tissue by intensity alone: a Gaussian mixture over the channels, inside a given brain mask."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.mixture import GaussianMixture

FIT_ON = 300_000  # voxels at most, drawn at random


def cluster_tissues(image: np.ndarray, truth: np.ndarray, seed: int = 0) -> np.ndarray:
    """Clusters voxels by intensity, with all the help that a clustering can get from the truth.

    The mask is the truth's, and so is the match of clusters to labels: the one of greatest overlap.

    Args:
        image: (C, x, y, z), any scale.
        truth: (x, y, z), labels 0 (outside the mask) to n; n clusters are made.
        seed: of the mixture's start.

    Returns:
        (x, y, z), labels 0 to n, of truth's type.
    """
    mask = truth > 0
    names = np.unique(truth[mask])
    values = image[:, mask].T.astype(np.float64)
    some = np.random.default_rng(seed).permutation(len(values))[:FIT_ON] if len(values) > FIT_ON else slice(None)
    clusters = GaussianMixture(len(names), n_init=2, random_state=seed).fit(values[some]).predict(values)
    overlap = np.array([[np.sum((clusters == c) & (truth[mask] == name)) for name in names] for c in range(len(names))])
    match = dict(zip(*linear_sum_assignment(overlap, maximize=True), strict=True))
    result = np.zeros_like(truth)
    result[mask] = names[[match[cluster] for cluster in clusters]]
    return result
