"""A Gaussian mixture whose means vary slowly over space, with a network's probabilities as its prior.

After Ashburner and Friston 2005, Unified segmentation, NeuroImage 26(3), 839-851 (the prior there is an atlas), with
the slowly varying means of Pappas 1992, IEEE Trans. Signal Processing 40(4), 901-914, which take up a bias field.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch.nn.functional import avg_pool3d

from custom.transforms.grids import interpolated

LEAST = 1e-4  # probability: no class is impossible


class LocalMixture:
    """Fits the mixture to some of a scan's voxels by expectation maximisation, then says what any of its voxels are.

    Args:
        scan: intensities (x, y, z) of voxels on a regular grid.
        prior: the classes' probabilities there, (C, x, y, z), background first.
        spacing: of that grid, mm.
        trust: power of the prior: 1 takes the network at its word, 0 takes the intensities alone.
        scale_mm: over which a class's mean may vary.
        iterations: of the maximisation.
    """

    def __init__(
        self,
        scan: torch.Tensor,
        prior: torch.Tensor,
        spacing: Sequence[float] | np.ndarray,
        trust: float = 1.0,
        scale_mm: float = 25.0,
        iterations: int = 10,
    ) -> None:
        self.trust = trust
        self.shape = scan.shape
        brain = prior[0] < 0.5
        self._brain = brain.flatten().nonzero()[:, 0]
        inside = self._of_brain(scan[None])[0].float()
        self.low, self.high = (float(value) for value in np.percentile(inside.cpu().numpy(), [0.5, 99.5]))
        scaled = self._scaled(inside)
        learned = _among_classes(self._of_brain(prior[1:]))
        log_prior = torch.log(learned.clamp_min(LEAST)) * trust
        self._blocks = [max(1, round(6 / size)) for size in spacing]
        self._sigma = [scale_mm / (size * n) for size, n in zip(spacing, self._blocks, strict=True)]
        mean = self._learn(scaled, learned)
        for _ in range(iterations):
            learned = self._posterior(scaled, log_prior, mean)
            mean = self._learn(scaled, learned)

    def means_at(self, positions: Sequence[np.ndarray]) -> torch.Tensor:
        """Each class's mean, (C - 1, x, y, z), at every combination of positions on the grid of the fit."""
        on_means = [(at + 0.5) / n - 0.5 for at, n in zip(positions, self._blocks, strict=True)]
        return interpolated(self.means, on_means)

    def refined(self, scan: torch.Tensor, prior: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
        """New probabilities (C, ...) of voxels; their sum without background stays, and so does what is no brain.

        Args:
            scan: intensities (...).
            prior: (C, ...).
            means: of the classes at these voxels, (C - 1, ...).
        """
        brain = prior[0] < 0.5
        log_prior = torch.log(_among_classes(prior[1:]).clamp_min(LEAST)) * self.trust
        posterior = self._posterior(self._scaled(scan), log_prior, means) * (1 - prior[:1])
        return torch.cat([prior[:1], torch.where(brain, posterior, prior[1:])])

    def _scaled(self, scan: torch.Tensor) -> torch.Tensor:
        scaled = (scan.float() - self.low) / max(self.high - self.low, 1e-6)
        return scaled.clamp(-0.2, 1.2)  # one bright vessel must not move a mean

    def _of_brain(self, volumes: torch.Tensor) -> torch.Tensor:
        """(C, x, y, z) to (C, n), the brain's voxels."""
        return volumes.flatten(1).index_select(1, self._brain)

    def _learn(self, scan: torch.Tensor, learned: torch.Tensor) -> torch.Tensor:
        """Each class's local mean on a coarse grid, and its variance around it; the means at the brain's voxels (C, n).

        Args:
            scan: scaled intensities (n,) of the brain's voxels.
            learned: probabilities (C, n).
        """
        weight = learned.sum(dim=1, keepdim=True).clamp_min(1.0)
        overall = (learned * scan).sum(dim=1, keepdim=True) / weight
        summed = [self._smooth(values) for values in (learned * scan, learned)]
        few = 0.02  # where less than this share of the surroundings is of a class, its overall mean counts
        self.means = (summed[0] + few * overall[..., None, None]) / (summed[1] + few)
        mean = self._of_brain(self.means_at([np.arange(n) for n in self.shape]))
        squares = (learned * (scan - mean) ** 2).sum(dim=1, keepdim=True)
        pooled = squares.sum() / weight.sum()  # half of it, so that no class shrinks to a few voxels of one value
        self.variance = (0.5 * squares / weight + 0.5 * pooled).clamp_min(1e-4)
        return mean

    def _posterior(self, scan: torch.Tensor, log_prior: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        variance = self.variance.view(-1, *[1] * scan.ndim)
        return torch.softmax(log_prior - 0.5 * ((scan - mean) ** 2 / variance + variance.log()), dim=0)

    def _smooth(self, values: torch.Tensor) -> torch.Tensor:
        """Block means of the brain's voxels, then a Gaussian: (C, n) to about (C, x / block, ...)."""
        volumes = values.new_zeros(len(values), *self.shape)
        volumes.flatten(1).index_copy_(1, self._brain, values)
        coarse = avg_pool3d(volumes[None], self._blocks, ceil_mode=True, count_include_pad=False)[0]
        smoothed = gaussian_filter(coarse.cpu().numpy(), [0, *self._sigma], mode="constant")
        return torch.as_tensor(smoothed, device=volumes.device)


def _among_classes(probabilities: torch.Tensor) -> torch.Tensor:
    """Probabilities of the classes, given that a voxel is none of the background."""
    inside = probabilities.float().clamp_min(LEAST)
    return inside / inside.sum(dim=0)
