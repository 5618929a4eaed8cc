"""Principal components of volumes from their inner products, so that each fold's PCA costs no pass over the voxels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Self

import numpy as np
from sklearn.decomposition import KernelPCA

from custom.errors import ConfigError

CHUNK = 4096  # voxels at once
MAPPED_VALUES = (
    2**25
)  # of all persons at once where rows lie on a disk, which is read in long pieces: 268 MB in float64


def _chunks(volumes: np.ndarray) -> Iterator[slice]:
    """Ranges of voxels that together are all of them."""
    step = max(CHUNK, MAPPED_VALUES // len(volumes)) if isinstance(volumes, np.memmap) else CHUNK
    return (slice(start, start + step) for start in range(0, volumes.shape[1], step))


def gram_matrix(volumes: np.ndarray) -> np.ndarray:
    """Inner products of persons' volumes after subtraction of their mean volume, summed in float64.

    The subtraction does not change a PCA, and keeps digits that a large common mean would cost.

    Args:
        volumes: (n, voxels), any float type; a memory-mapped array is read once.

    Returns:
        (n, n), float64.

    Raises:
        ValueError: volumes is not a matrix, or holds NaN or infinity.
    """
    if volumes.ndim != 2:
        raise ValueError(f"volumes must be (n, voxels), got {volumes.shape}.")
    gram = np.zeros((len(volumes), len(volumes)))
    for voxels in _chunks(volumes):
        part = np.array(volumes[:, voxels], dtype=np.float64)
        part -= part.mean(axis=0)
        gram += part @ part.T
    if not np.isfinite(gram).all():
        raise ValueError("volumes hold NaN or infinity. Check the scans.")
    return gram


def check_components(wanted: Any) -> float:
    """Checks a number of components, or a fraction of the variance, and returns it.

    Raises:
        ConfigError: any other value.
    """
    is_number = isinstance(wanted, (int, float)) and not isinstance(wanted, bool)
    if not is_number or not (0 < wanted < 1 or (wanted >= 1 and int(wanted) == wanted)):
        raise ConfigError(f"n_components must be a whole number, or a fraction above 0 and below 1, got {wanted!r}.")
    return float(wanted) if 0 < wanted < 1 else int(wanted)


class GramPCA(KernelPCA):
    """scikit-learn's KernelPCA on a precomputed Gram matrix, whose components may be a fraction of the variance.

    It is fitted on the inner products of a training fold, (m, m), centres them, and gives the same scores as PCA on
    the volumes (up to signs). Other persons are passed as their inner products with the training persons, (k, m).
    scikit-learn's cross-validation cuts rows and columns of such a matrix, as of any precomputed kernel.

    Args:
        n_components: the greatest number of components, or the least fraction of the training variance, 0 to 1.

    Attributes:
        explained_variance_ratio_: (components,), the share of the training variance of each component that is kept.

    Raises:
        ConfigError: fit: n_components is no whole number and no fraction.
    """

    def __init__(self, n_components: float = 0.95) -> None:
        super().__init__(n_components=n_components, kernel="precomputed", eigen_solver="dense", remove_zero_eig=True)

    @classmethod
    def _get_param_names(cls) -> list[str]:
        return ["n_components"]

    def fit(self, X: np.ndarray, y: Any = None) -> Self:  # noqa: N803  scikit-learn's name
        """Fits to the inner products of the training persons, (m, m); y is not used."""
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

    def fit_transform(self, X: np.ndarray, y: Any = None, **params: Any) -> np.ndarray:  # noqa: ARG002, N803
        """Fits, and returns the scores of the training persons, (m, components)."""
        self.fit(X, y)
        scores: np.ndarray = self.eigenvectors_ * np.sqrt(self.eigenvalues_)
        return scores


def components(volumes: np.ndarray, pca: GramPCA, members: Iterable[int], most: int | None = None) -> np.ndarray:
    """The eigenvolumes of a fitted GramPCA ("eigenbrains"), unit vectors.

    Args:
        volumes: (n, voxels), all persons.
        pca: fitted on the members' part of their Gram matrix.
        members: row numbers of the persons that it was fitted on, in the order of the fit.
        most: how many, the first ones; None for all.

    Returns:
        (components, voxels), float32.
    """
    return _sums(volumes, list(members), _weights(pca)[:, :most].T)


def rebuilt(
    volumes: np.ndarray, pca: GramPCA, members: Iterable[int], scores: np.ndarray, numbers: Iterable[int]
) -> np.ndarray:
    """One person's volume from the mean and the first components, for several numbers of components.

    Args:
        volumes: (n, voxels), all persons.
        pca: fitted on the members' part of their Gram matrix.
        members: row numbers of the persons that it was fitted on, in the order of the fit.
        scores: of the person, (components,).
        numbers: of components, as many as wanted.

    Returns:
        (numbers, voxels), float32: sums of the members' volumes, so that no component takes memory.
    """
    rows, weights = list(members), _weights(pca)
    shares = [weights[:, :kept] @ scores[:kept] + 1 / len(rows) for kept in numbers]
    return _sums(volumes, rows, np.stack(shares))


def _weights(pca: GramPCA) -> np.ndarray:
    """What each member's volume adds to each component, (members, components); the members' mean drops out."""
    uncentred = pca.eigenvectors_ / np.sqrt(pca.eigenvalues_)
    weights: np.ndarray = uncentred - uncentred.mean(axis=0)
    return weights


def _sums(volumes: np.ndarray, rows: list[int], weights: np.ndarray) -> np.ndarray:
    """Weighted sums of some rows: weights (k, rows) to (k, voxels), float32."""
    result = np.empty((len(weights), volumes.shape[1]), dtype=np.float32)
    for voxels in _chunks(volumes):
        result[:, voxels] = weights @ np.asarray(volumes[:, voxels], dtype=np.float64)[rows]
    return result
