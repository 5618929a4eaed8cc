"""Scans drawn from a label map, as a network for cortical areas sees them: by structures that another network found."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.inferers import Inferer
from monai.transforms import MapTransform, RandomizableTransform, Transform
from monai.utils import convert_to_tensor
from torch import nn
from torch.nn.functional import affine_grid, grid_sample

from custom.checkpoints.load import load_checkpoint, load_weights
from custom.transforms.area_shares import (
    frame_of_cortex,
    framed,
    framed_shares,
    shares_of_labels,
    shares_of_logits,
    voxels_in_cells,
)
from custom.transforms.synthesize_scan import SynthesizeScand


class DrawSharesd(Transform):
    """Draws a scan from a label map and finds its structures with a network.

    It is deterministic (the drawing has a fixed seed), so that MONAI's PersistentDataset keeps the result on disk.

    Args:
        key: the map, codes (1, x, y, z). Replaced by areas (8, x, y, z), uint8, of the voxels of each cell; 0 where
            there is no cortex.
        synthesize: draws scan and labels, with `fixed_seed` and sides. Its labels 0 to classes - 1 are structures;
            classes + a is area a of the cortex.
        network: finds structures in a scan.
        weights: the network's file.
        inferer: runs the network.
        classes: structures, with the background.
        cortex: the structure that has areas.

    Sets "found" and "true": shares (classes + 1, x, y, z) of the structures that the network found and of the drawn
    ones, in 1/255, uint8. All are inside the frame around the cortex that was found.
    """

    def __init__(
        self,
        key: str,
        synthesize: SynthesizeScand,
        network: nn.Module,
        weights: str | Path,
        inferer: Inferer,
        classes: int,
        cortex: int,
    ) -> None:
        self.key = key
        self.synthesize = synthesize
        self.network = network.eval()
        self.weights: str | Path | None = weights
        self.inferer = inferer
        self.classes = classes
        self.cortex = cortex

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its entries set, as the class describes."""
        if self.weights is not None:
            load_weights(self.network, load_checkpoint(self.weights), self.weights)
            self.weights = None
        result = dict(self.synthesize(data))
        drawn, side = (convert_to_tensor(channel, track_meta=False) for channel in result[self.key])
        labels = torch.where(drawn < self.classes, drawn, self.cortex)
        areas = (drawn.int() - self.classes + 1).clamp_min(1) - 1
        image = convert_to_tensor(result.pop(self.synthesize.image_key), track_meta=False)
        device = next(self.network.parameters()).device
        with torch.inference_mode():
            found = shares_of_logits(self.inferer(image[None].to(device), self.network)[0]).cpu()
        true = shares_of_labels(labels, side, self.classes).cpu()
        frame = frame_of_cortex(found[self.cortex]) or frame_of_cortex(torch.ones_like(found[0]))
        assert frame is not None
        result["found"] = (255 * framed_shares(found, frame)).round().to(torch.uint8).clone()
        result["true"] = (255 * framed_shares(true, frame)).round().to(torch.uint8).clone()
        result[self.key] = framed(voxels_in_cells(areas.to(torch.uint8).cpu()), frame).clone()
        return result


class RandSharesd(RandomizableTransform, MapTransform):
    """What a training step sees of DrawSharesd's item: found or true shares, mirrored, turned and stretched a little.

    Args:
        keys: the areas (8, x, y, z).
        image_key: gets the shares, float32 (C, x, y, z).
        found: share of the steps that see the structures that a network found; the others see the true ones.
        degrees: the greatest rotation about each axis.
        stretch: the greatest change of length along each axis, as a share of it.
        flip: mirror left and right in half of the steps.
    """

    def __init__(
        self,
        keys: Any,
        image_key: str = "image",
        found: float = 0.8,
        degrees: float = 8.0,
        stretch: float = 0.08,
        flip: bool = True,
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, 1.0)
        self.image_key = image_key
        self.found = found
        self.degrees = degrees
        self.stretch = stretch
        self.flip = flip

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its keys replaced and the image set; without "found" and "true"."""
        result = dict(data)
        both = {name: torch.as_tensor(result.pop(name)) for name in ("found", "true")}
        shares = both["found" if self.R.rand() < self.found else "true"].float() / 255
        flipped = self.flip and self.R.rand() < 0.5
        matrix = torch.eye(3, dtype=torch.float64)
        if self.degrees or self.stretch:
            angles = torch.as_tensor(self.R.uniform(-1, 1, 3) * self.degrees).deg2rad()
            skew = torch.zeros(3, 3, dtype=torch.float64)
            skew[0, 1], skew[0, 2], skew[1, 2] = angles
            matrix = torch.linalg.matrix_exp(skew - skew.T)
            matrix = matrix @ torch.diag(1 + torch.as_tensor(self.R.uniform(-1, 1, 3) * self.stretch))
        for key in self.key_iterator(result):
            areas = torch.as_tensor(result[key])
            if flipped:
                shares, areas = mirrored(shares, areas)
            result[key] = _warped(areas.float(), matrix, "nearest").to(torch.uint8)
        shares = _warped(shares, matrix, "bilinear")
        shares[0] = 1 - shares[1:-1].sum(dim=0)
        result[self.image_key] = shares
        return result


def mirrored(shares: torch.Tensor, areas: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Shares (K + 1, x, y, z) and areas (8, x, y, z) with left and right exchanged."""
    shares = shares.flip(1)
    shares[-1] = (1 - shares[0] - shares[-1]).clamp_min(0)
    return shares, areas.unflatten(0, (2, 4)).flip(0).flatten(0, 1).flip(1)


def _warped(cells: torch.Tensor, matrix: torch.Tensor, mode: str) -> torch.Tensor:
    """(C, x, y, z) after a linear map about the middle, given in cells; 0 from beyond."""
    size = torch.tensor(cells.shape[1:], dtype=torch.float64)
    scaled = (matrix * size[None, :] / size[:, None]).flip(0, 1)  # torch counts the last axis first, -1 to 1 a side
    theta = torch.cat([scaled, torch.zeros(3, 1)], dim=1)[None].float()
    grid = affine_grid(theta, [1, *cells.shape], align_corners=False)
    return grid_sample(cells[None], grid, mode=mode, padding_mode="zeros", align_corners=False)[0]
