"""Principal components of volumes from their inner products, so that each fold's PCA costs no pass over the voxels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import numpy as np
from sklearn.decomposition import KernelPCA

from custom.errors import ConfigError

CHUNK = 4096  # voxels at once


def gram_matrix(volumes: np.ndarray) -> np.ndarray:
    """Inner products of persons' volumes, their mean volume removed first, summed in float64.

    Removing one volume from all changes no PCA, and keeps digits that a large common mean would cost.

    Args:
        volumes: (n, voxels), any float type; a memory-mapped array is read once.

    Returns:
        (n, n), float64.

    Raises:
        ValueError: another number of axes, or a value that isn't finite.
    """
    if volumes.ndim != 2:
        raise ValueError(f"volumes must be (n, voxels), got {volumes.shape}.")
    gram = np.zeros((len(volumes), len(volumes)))
    for start in range(0, volumes.shape[1], CHUNK):
        part = np.asarray(volumes[:, start : start + CHUNK], dtype=np.float64)
        part -= part.mean(axis=0)
        gram += part @ part.T
    if not np.isfinite(gram).all():
        raise ValueError("volumes hold values that aren't finite.")
    return gram


def check_components(wanted: Any) -> float:
    """A number of components, or a fraction of the variance; raises ConfigError where it is neither."""
    a_number = isinstance(wanted, (int, float)) and not isinstance(wanted, bool)
    if not a_number or not (0 < wanted < 1 or (wanted >= 1 and int(wanted) == wanted)):
        raise ConfigError(f"n_components must be a whole number, or a fraction above 0 and below 1: got {wanted!r}.")
    return wanted


class GramPCA(KernelPCA):
    """scikit-learn's KernelPCA on a precomputed Gram matrix, whose components may be a fraction of the variance.

    Fitted on the persons of a training fold, (m, m), it centres that part by itself, and gives the scores that PCA
    gives on their volumes (but for signs); others come as their inner products with the training persons, (k, m).
    Cross-validation of scikit-learn cuts rows and columns by itself, as for any precomputed kernel.

    Args:
        n_components: a whole number, at most; or the least fraction of the training variance, above 0 and below 1.

    Attributes:
        explained_variance_ratio_: of each component kept, of the training variance.

    Raises:
        ConfigError: another n_components.
    """

    def __init__(self, n_components: float = 0.95) -> None:
        super().__init__(n_components=n_components, kernel="precomputed", eigen_solver="dense", remove_zero_eig=True)

    @classmethod
    def _get_param_names(cls) -> list[str]:
        return ["n_components"]

    def fit(self, X: np.ndarray, y: Any = None) -> Self:  # noqa: N803  scikit-learn's name
        wanted: Any = check_components(self.n_components)  # type: ignore[has-type]
        self.n_components = None if wanted < 1 else int(min(wanted, len(X) - 1))
        try:
            super().fit(X, y)
        finally:
            self.n_components = wanted
        share = self.eigenvalues_ / (np.trace(X) - X.sum() / len(X))  # the trace of the centred matrix
        kept = int(np.searchsorted(np.cumsum(share), wanted - 1e-12) + 1) if wanted < 1 else len(share)
        self.eigenvalues_: np.ndarray = self.eigenvalues_[:kept]
        self.eigenvectors_: np.ndarray = self.eigenvectors_[:, :kept]
        self.explained_variance_ratio_ = share[:kept]
        return self

    def fit_transform(self, X: np.ndarray, y: Any = None, **params: Any) -> np.ndarray:  # noqa: N803
        self.fit(X, y)
        return self.eigenvectors_ * np.sqrt(self.eigenvalues_)


def components(volumes: np.ndarray, pca: GramPCA, members: Iterable[int]) -> np.ndarray:
    """The eigenvolumes of a fitted GramPCA ("eigenbrains"), unit vectors.

    Args:
        volumes: (n, voxels), all persons.
        pca: fitted on the members' part of their Gram matrix.
        members: rows of the persons that it was fitted on, in that order.

    Returns:
        (components, voxels), float32.
    """
    rows = list(members)
    weights = pca.eigenvectors_ / np.sqrt(pca.eigenvalues_)
    weights = weights - weights.mean(axis=0)  # the members' mean volume drops out
    result = np.empty((weights.shape[1], volumes.shape[1]), dtype=np.float32)
    for start in range(0, volumes.shape[1], CHUNK):
        part = np.asarray(volumes[:, start : start + CHUNK], dtype=np.float64)[rows]
        result[:, start : start + CHUNK] = weights.T @ part
    return result
