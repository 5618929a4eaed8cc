"""Tissue probabilities of a network, made to agree with the intensities of the very scan."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.transforms.utils import generate_spatial_bounding_box

from custom.transforms.grids import spacing_of
from custom.transforms.local_mixture import LocalMixture


class RefineTissuesd(MapTransform):
    """Expectation maximisation of a Gaussian mixture inside the brain, with the network's probabilities as its prior.

    A network that was trained on many contrasts knows where tissues lie better than where a scan's boundaries are;
    the scan's intensities tell them, once it is known which intensity is which tissue. Each tissue's mean varies
    slowly over space, so that a bias field does no harm. The brain's outline stays the network's. The mixture is
    custom.transforms.local_mixture's, learned from a voxel every 2 mm.

    Args:
        keys: probabilities (C, x, y, z), background first, replaced.
        image_key: the scan on the same grid, (1, x, y, z), any values; its affine says how large voxels are (1 mm
            where it has none).
        trust: of custom.transforms.local_mixture.LocalMixture.
        scale_mm: of LocalMixture.
        iterations: of LocalMixture.
    """

    def __init__(
        self, keys: Any, image_key: str = "image", trust: float = 1.0, scale_mm: float = 25.0, iterations: int = 10
    ) -> None:
        super().__init__(keys)
        self.image_key = image_key
        self.options: dict[str, Any] = {"trust": trust, "scale_mm": scale_mm, "iterations": iterations}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its keys replaced, as the class describes."""
        result = dict(data)
        for key in self.key_iterator(result):
            probabilities = torch.as_tensor(result[key])
            affine = np.asarray(getattr(result[self.image_key], "affine", np.eye(4)), dtype=np.float64)
            image = torch.as_tensor(result[self.image_key])[0].to(probabilities.device)
            refined = self.refined(image, probabilities, spacing_of(affine))
            if isinstance(refined, MetaTensor):
                refined.affine = torch.as_tensor(affine)
            result[key] = refined
        return result

    def refined(self, image: torch.Tensor, probabilities: torch.Tensor, spacing: np.ndarray) -> torch.Tensor:
        """New probabilities (C, x, y, z) for a scan (x, y, z) with voxels of `spacing` mm."""
        start, end = generate_spatial_bounding_box(probabilities[:1] < 0.5)
        box = tuple(slice(a, b) for a, b in zip(start, end, strict=True))
        if not probabilities[0][box].numel():  # no brain
            return probabilities
        inside, scan = probabilities[(slice(None), *box)].float(), image[box]
        steps = [max(1, round(2 / size)) for size in spacing]
        some = tuple(slice(None, None, step) for step in steps)
        mixture = LocalMixture(scan[some], inside[(slice(None), *some)], spacing * steps, **self.options)
        positions = [np.arange(n) / step for n, step in zip(scan.shape, steps, strict=True)]
        result = probabilities.clone()
        result[(slice(None), *box)] = mixture.refined(scan, inside, mixture.means_at(positions)).to(result.dtype)
        return result
