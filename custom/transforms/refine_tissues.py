"""Tissue probabilities of a network, made to agree with the intensities of the very scan."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.transforms.utils import generate_spatial_bounding_box
from scipy.ndimage import gaussian_filter
from torch.nn.functional import avg_pool3d, interpolate


class RefineTissuesd(MapTransform):
    """Expectation maximisation of a Gaussian mixture inside the brain, with the network's probabilities as its prior.

    A network that was trained on many contrasts knows where tissues lie better than where a scan's boundaries are;
    the scan's intensities tell them, once it is known which intensity is which tissue. Each tissue's mean varies
    slowly over space, so that a bias field does no harm. The brain's outline stays the network's.

    After Ashburner and Friston 2005, Unified segmentation, NeuroImage 26(3), 839-851 (the prior there is an atlas),
    with the slowly varying means of Pappas 1992, IEEE Trans. Signal Processing 40(4), 901-914.

    Args:
        keys: probabilities (C, x, y, z), background first, replaced.
        image_key: the scan on the same grid, (1, x, y, z), any values; its affine says how large voxels are (1 mm
            where it has none).
        trust: power of the prior: 1 takes the network at its word, 0 takes the intensities alone.
        scale_mm: over which a tissue's mean may vary.
        iterations: of the maximisation.
    """

    def __init__(
        self, keys: Any, image_key: str = "image", trust: float = 0.5, scale_mm: float = 25.0, iterations: int = 10
    ) -> None:
        super().__init__(keys)
        self.image_key = image_key
        self.trust = trust
        self.scale_mm = scale_mm
        self.iterations = iterations

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            probabilities = torch.as_tensor(result[key])
            affine = np.asarray(getattr(result[self.image_key], "affine", np.eye(4)), dtype=np.float64)
            spacing = np.linalg.norm(affine[:3, :3], axis=0)
            image = torch.as_tensor(result[self.image_key])[0].to(probabilities.device)
            refined = self.refined(image, probabilities, spacing)
            result[key] = MetaTensor(refined, affine=affine) if isinstance(probabilities, MetaTensor) else refined
        return result

    def refined(self, image: torch.Tensor, probabilities: torch.Tensor, spacing: np.ndarray) -> torch.Tensor:
        """New probabilities (C, x, y, z) for a scan (x, y, z) with voxels of `spacing` mm."""
        start, end = generate_spatial_bounding_box(probabilities[:1] < 0.5)
        box = tuple(slice(a, b) for a, b in zip(start, end, strict=True))
        if not probabilities[0][box].numel():  # no brain
            return probabilities
        brain = (probabilities[0] < 0.5)[box]
        scan = image[box].float()
        low, high = np.percentile(scan[brain].cpu().numpy(), [0.5, 99.5])
        scan = ((scan - low) / max(high - low, 1e-6)).clamp(-0.2, 1.2)  # one bright vessel must not move a mean
        tissue = probabilities[(slice(1, None), *box)].float().clamp_min(1e-4) * brain
        tissue = tissue / tissue.sum(dim=0).clamp_min(1e-6)
        prior = torch.log(tissue.clamp_min(1e-4)) * self.trust
        steps = [max(1, round(2 / size)) for size in spacing]  # the means are learnt from a voxel every 2 mm
        some = (slice(None), *(slice(None, None, step) for step in steps))
        blocks = [max(1, round(6 / (size * step))) for size, step in zip(spacing, steps, strict=True)]
        sigma = [self.scale_mm / (size * step * n) for size, step, n in zip(spacing, steps, blocks, strict=True)]
        learnt, scan_some, prior_some, brain_some = tissue[some], scan[some[1:]], prior[some], brain[some[1:]]
        for _ in range(self.iterations):
            local, variance = _means(scan_some, learnt, blocks, sigma)
            learnt = _posterior(scan_some, prior_some, local, variance) * brain_some
        local, variance = _means(scan_some, learnt, blocks, sigma)
        tissue = _posterior(scan, prior, local, variance) * brain
        result = probabilities.clone()
        inside = probabilities[(slice(None), *box)]
        result[(slice(1, None), *box)] = torch.where(brain, tissue * (1 - inside[0]), inside[1:]).to(result.dtype)
        return result


def _means(
    scan: torch.Tensor, tissue: torch.Tensor, blocks: list[int], sigma: list[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each tissue's local mean on a coarse grid, (C - 1, ...), and its variance around it, (C - 1, 1, 1, 1)."""
    weight = tissue.flatten(1).sum(dim=1).clamp_min(1.0).view(-1, 1, 1, 1)
    overall = (tissue * scan).flatten(1).sum(dim=1).view(-1, 1, 1, 1) / weight
    summed = [_smooth(volume, blocks, sigma) for volume in (tissue * scan, tissue)]
    few = 0.02  # where less than this share of the surroundings is of a tissue, its overall mean counts
    local = (summed[0] + few * overall) / (summed[1] + few)
    mean = interpolate(local[None], size=scan.shape, mode="trilinear")[0]
    squares = (tissue * (scan - mean) ** 2).flatten(1).sum(dim=1).view(-1, 1, 1, 1)
    pooled = squares.sum() / weight.sum()  # half of it, so that no tissue shrinks to a few voxels of one value
    return local, (0.5 * squares / weight + 0.5 * pooled).clamp_min(1e-4)


def _posterior(scan: torch.Tensor, prior: torch.Tensor, local: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    mean = interpolate(local[None], size=scan.shape, mode="trilinear")[0]
    return torch.softmax(prior - 0.5 * ((scan - mean) ** 2 / variance + torch.log(variance)), dim=0)


def _smooth(volumes: torch.Tensor, blocks: list[int], sigma: list[float]) -> torch.Tensor:
    """Block means, then a Gaussian: (C, x, y, z) to about (C, x / block, ...)."""
    coarse = avg_pool3d(volumes[None], blocks, ceil_mode=True, count_include_pad=False)[0]
    smoothed = gaussian_filter(coarse.cpu().numpy(), [0, *sigma], mode="constant")
    return torch.as_tensor(smoothed, device=volumes.device)
