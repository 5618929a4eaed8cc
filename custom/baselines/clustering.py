"""Tissue by intensity alone: a Gaussian mixture over the channels, inside a given brain mask."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.mixture import GaussianMixture

FIT_ON = 300_000  # voxels at most, drawn at random


def cluster_tissues(image: np.ndarray, reference: np.ndarray, seed: int = 0) -> np.ndarray:
    """Clusters voxels by intensity, with the brain mask and the class names of the reference labels.

    Clusters are matched to labels by their greatest overlap with the reference: an upper bound for clustering.

    Args:
        image: (C, x, y, z), any scale.
        reference: (x, y, z), labels 0 (outside the mask) to n; n clusters are made.
        seed: of the mixture's start.

    Returns:
        (x, y, z), labels 0 to n, of the reference's type.
    """
    mask = reference > 0
    names = np.unique(reference[mask])
    values = image[:, mask].T.astype(np.float64)
    sample = np.random.default_rng(seed).permutation(len(values))[:FIT_ON] if len(values) > FIT_ON else slice(None)
    clusters = GaussianMixture(len(names), n_init=2, random_state=seed).fit(values[sample]).predict(values)
    overlap = np.array(
        [[np.sum((clusters == c) & (reference[mask] == name)) for name in names] for c in range(len(names))]
    )
    match = dict(zip(*linear_sum_assignment(overlap, maximize=True), strict=True))
    result = np.zeros_like(reference)
    result[mask] = names[[match[cluster] for cluster in clusters]]
    return result
