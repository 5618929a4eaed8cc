"""From the structures of a scan to the areas of its cortex, on the scan's own grid."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import nn
from torch.nn.functional import embedding_bag

from custom.checkpoints.load import load_checkpoint, load_weights
from custom.transforms.area_shares import frame_of_cortex, framed_shares, shares_of_logits
from custom.transforms.resample_scan import with_meta_of

WANTED = "wants_areas"  # the entry of an item that asks for areas
AT_ONCE = 200_000  # voxels that are read off together


@dataclass
class AreaMeasures:
    """Sums over a scan's voxels, {code of an area: sum}.

    Args:
        voxels: the voxels with this label.
        agreement: the area's probability, summed over the voxels with its label.
        probability: the area's probability, summed over all of the cortex on its side.
        at_edge: its voxels in the outermost slices of the scan.
    """

    voxels: dict[int, int] = field(default_factory=dict)
    agreement: dict[int, float] = field(default_factory=dict)
    probability: dict[int, float] = field(default_factory=dict)
    at_edge: dict[int, int] = field(default_factory=dict)

    def expected_dice(self, code: int) -> float:
        """The Dice that the probabilities expect of an area inside the cortex, 0 to 1; NaN for one without voxels."""
        both = self.voxels[code] + self.probability[code]
        return 2 * self.agreement[code] / both if self.voxels[code] else float("nan")


class FindAreasd(MapTransform):
    """Runs a network that finds areas of the cortex in what another network found.

    It does nothing for an item without WANTED. The weights are read when they are needed first.

    Args:
        keys: logits (K + 1, x, y, z) with an affine: structures and the side.
        network: from shares of structures in cells of 2x2x2 voxels (custom.transforms.area_shares) to areas.
        weights: the network's file.
        cortex: the structure that has areas.

    Sets item["area_probabilities"]: (C, x, y, z) in cells, with their affine; absent if there is no cortex.

    Raises:
        CheckpointError: no weights, or weights of another network.
    """

    def __init__(self, keys: Any, network: nn.Module, weights: str | Path, cortex: int) -> None:
        super().__init__(keys)
        self.network = network.eval()
        self.weights = Path(weights)
        self.cortex = cortex
        self.loaded = False

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its entry set, as the class describes."""
        result = dict(data)
        if not result.get(WANTED):
            return result
        if not self.loaded:
            load_weights(self.network, load_checkpoint(self.weights), self.weights)
            self.loaded = True
        for key in self.key_iterator(result):
            logits = torch.as_tensor(result[key]).as_subclass(torch.Tensor)
            some = logits[:-1, ::2, ::2, ::2].max(dim=0).indices
            frame = frame_of_cortex((some == self.cortex).float())
            if frame is None:
                continue
            cut, rest = _cut(frame, some.shape)
            shares = shares_of_logits(logits[(slice(None), *(slice(2 * first, 2 * last) for first, last in cut))])
            inside = framed_shares(shares, rest)[None].contiguous(memory_format=torch.channels_last_3d)
            self.network.to(shares.device)
            with torch.inference_mode():
                probabilities = self.network(inside)[0].float().softmax(dim=0)
            to_voxels = np.diag([2.0, 2.0, 2.0, 1.0])  # the middle of cell 0 lies between voxels 0 and 1
            to_voxels[:3, 3] = [2 * start + 0.5 for start, _ in frame]
            affine = np.asarray(result[key].affine, dtype=np.float64) @ to_voxels
            result["area_probabilities"] = MetaTensor(probabilities, affine=torch.as_tensor(affine))
        return result


def _cut(frame: Sequence[tuple[int, int]], shape: Sequence[int]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The first and last cells of a grid that a frame holds, and the frame as seen from there."""
    cut = [(max(0, start), min(n, start + length)) for (start, length), n in zip(frame, shape, strict=True)]
    return cut, [(start - first, length) for (start, length), (first, _) in zip(frame, cut, strict=True)]


class LabelAreasd(MapTransform):
    """Gives each voxel of the cortex its most probable area.

    It does nothing for an item without WANTED.

    Args:
        keys: codes of structures (1, X, Y, Z) on the scan's grid.
        sides: {code of the cortex: what is added to the number of an area on that side}.
        numbers: the areas that exist, of the network's outputs.

    Sets item["areas"], codes (1, X, Y, Z), int16, 0 outside the cortex, and item["area_measures"], AreaMeasures.
    """

    def __init__(self, keys: Any, sides: Mapping[int, int], numbers: Sequence[int]) -> None:
        super().__init__(keys)
        self.sides = dict(sides)
        self.numbers = torch.as_tensor(list(numbers))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its entries set, as the class describes."""
        result = dict(data)
        if not result.get(WANTED):
            return result
        probabilities = result.pop("area_probabilities", None)
        for key in self.key_iterator(result):
            scan = result[key]
            codes = torch.as_tensor(scan).as_subclass(torch.Tensor)[0]
            areas = torch.zeros(codes.shape, dtype=torch.int16)
            measures = AreaMeasures()
            for code, first in self.sides.items():
                at = (codes == code).nonzero()
                found, sums = self._read(at, scan, probabilities)
                areas[tuple(at.T)] = (found + first).to(torch.int16)
                edge = ((at == 0) | (at == torch.as_tensor(codes.shape) - 1)).any(dim=1)
                counts, at_edge = (torch.bincount(some, minlength=sums.shape[1]) for some in (found, found[edge]))
                for number in self.numbers.tolist():
                    measures.voxels[first + number] = int(counts[number])
                    measures.at_edge[first + number] = int(at_edge[number])
                    measures.probability[first + number] = float(sums[0, number])
                    measures.agreement[first + number] = float(sums[1, number])
            result["areas"] = with_meta_of(scan, areas[None])
            result["area_measures"] = measures
        return result

    def _read(self, at: torch.Tensor, scan: MetaTensor, probabilities: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The area of each voxel (n, 3), (n,); and of each area its probability over all of them, and over its own."""
        found = torch.zeros(len(at), dtype=torch.int64)
        sums = torch.zeros(2, int(self.numbers.max()) + 1, dtype=torch.float64)
        if not len(at) or probabilities is None:
            return found, sums
        values = torch.as_tensor(probabilities).as_subclass(torch.Tensor)[self.numbers]
        affine = np.linalg.inv(np.asarray(probabilities.affine)) @ np.asarray(scan.affine, dtype=np.float64)
        matrix = torch.as_tensor(affine, dtype=torch.float32)
        size = torch.as_tensor(values.shape[1:])
        strides = torch.as_tensor([int(size[1] * size[2]), int(size[2]), 1])
        rows = values.flatten(1).T.contiguous().cpu()  # a row for each cell: its areas lie together in memory
        corners = torch.cartesian_prod(*[torch.arange(2)] * 3)
        for start in range(0, len(at), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            places = at[part].float() @ matrix[:3, :3].T + matrix[:3, 3]
            places = places.clamp_min(0).minimum(size - 1)
            low = places.floor()
            share = places - low
            cells = (low.long()[:, None] + corners).minimum(size - 1) @ strides
            weights = torch.where(corners > 0, share[:, None], 1 - share[:, None]).prod(dim=2)
            read = embedding_bag(cells, rows, per_sample_weights=weights, mode="sum")  # trilinear interpolation
            read /= read.sum(dim=1, keepdim=True).clamp_min(1e-6)
            best = read.max(dim=1)
            found[part] = self.numbers[best.indices]
            sums[0].index_add_(0, self.numbers, read.sum(dim=0).double())
            sums[1].index_add_(0, found[part], best.values.double())
        return found, sums
