"""From a network's logits to structures and tissues on the scan's own grid, in little memory whatever that grid."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform
from scipy import ndimage

from custom.transforms.grids import Alignment, align, interpolated, slabs, spacing_of
from custom.transforms.local_mixture import LocalMixture
from custom.transforms.measures import Measures, Outputs, SlabLabels
from custom.transforms.resample_scan import with_meta_of

SMALLEST_PIECE = 0.05  # of the largest connected piece: smaller ones are no brain
LEARN_MM = 2.0  # the mixture learns from a voxel every so many mm
NOTHING = 0.99  # above this probability of background a voxel is left out


class LabelStructuresd(MapTransform):
    """Labels every voxel of a scan, slab by slab, from a network's logits on a coarser grid.

    The probabilities are interpolated to the scan's voxels. Structures are gathered into groups that share an
    intensity, as SAMSEG does (Puonti et al. 2016, NeuroImage 143, 235-249); a mixture (LocalMixture) makes the groups
    agree with the scan's intensities, and each structure follows its group. A voxel gets the tissue with the greatest
    sum of probabilities, then the greatest structure of that tissue, then a side: so structures sum to tissues.

    Args:
        keys: logits (K + 1, x, y, z), background first, the side last, with the affine of the network's grid. Replaced
            by labels (1, X, Y, Z), uint8, on the scan's grid.
        outputs: what the logits mean.
        labels: for each of the K outputs, its label in the result.
        scan_key: the scan (1, X, Y, Z), whose axes run along the network's grid's.
        mask_key: where the item has it, a brain mask (1, X, Y, Z): what is outside is background.
        trust: power of the mixture's prior; 0 for no refinement.

    Also sets item["structures"], codes (1, X, Y, Z), uint8; item["measures"], see `Measures`; and, where
    item["wants_probabilities"], item["probabilities"] of the tissues (T, X, Y, Z), float16.
    """

    def __init__(
        self,
        keys: Any,
        outputs: Outputs,
        labels: Sequence[int],
        scan_key: str = "scan",
        mask_key: str = "mask",
        trust: float = 1.0,
    ) -> None:
        super().__init__(keys)
        self.outputs = outputs
        self.labels = torch.as_tensor(list(labels), dtype=torch.uint8)
        self.scan_key = scan_key
        self.mask_key = mask_key
        self.trust = trust

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its keys replaced, as the class describes."""
        result = dict(data)
        for key in self.key_iterator(result):
            logits, scan = result[key], result[self.scan_key]
            mask = result.get(self.mask_key)
            labeller = _Labeller(
                torch.as_tensor(logits).as_subclass(torch.Tensor),
                np.asarray(logits.affine, dtype=np.float64),
                torch.as_tensor(scan).as_subclass(torch.Tensor)[0],
                np.asarray(scan.affine, dtype=np.float64),
                None if mask is None else torch.as_tensor(mask).as_subclass(torch.Tensor)[0],
                self.outputs,
                self.trust,
            )
            shape = scan.shape[1:]
            labels = torch.full(shape, int(self.labels[0]), dtype=torch.uint8)
            codes = torch.zeros(shape, dtype=torch.uint8)
            wanted = bool(result.get("wants_probabilities", False))
            tissues = torch.zeros((max(self.outputs.tissues), *shape) if wanted else (0,), dtype=torch.float16)
            measures = Measures(self.outputs)
            for part, slab in labeller.run():
                labels[part][slab.inside] = self.labels[slab.structure.long()]
                codes[part][slab.inside] = slab.code
                measures.add(slab)
                if wanted:
                    for tissue, values in zip(tissues, slab.tissues[1:], strict=True):
                        tissue[part][slab.inside] = values.half()
            result[key] = with_meta_of(scan, labels[None])
            result["structures"] = with_meta_of(scan, codes[None])
            result["measures"] = measures
            if wanted:
                result["probabilities"] = with_meta_of(scan, tissues)
        return result


class _Labeller:
    """The probabilities of one scan, ready to be read off slab by slab."""

    def __init__(
        self,
        logits: torch.Tensor,
        network_affine: np.ndarray,
        scan: torch.Tensor,
        affine: np.ndarray,
        mask: torch.Tensor | None,
        outputs: Outputs,
        trust: float,
    ) -> None:
        self.scan, self.mask, self.outputs, self.trust = scan, mask, outputs, trust
        self.spacing = spacing_of(affine)
        self.alignment: Alignment = align(affine, network_affine)
        classes, side, box = _brain_alone(logits)
        self.device = classes.device
        order = [0, *(1 + axis for axis in self.alignment.axes)]  # the scan's order of axes
        self.classes = classes.permute(order).contiguous()
        self.side = side[None].permute(order)
        self.corner = [box[axis].start for axis in self.alignment.axes]
        self.box = [self._scan_range(axis) for axis in range(3)]
        self.fourth = self._near_fourth() if classes.numel() else None
        groups = torch.zeros(max(outputs.groups) + 1, len(outputs.groups), device=self.device)
        groups[list(outputs.groups), range(len(outputs.groups))] = 1
        self.to_groups = groups
        tissues = torch.zeros(max(outputs.tissues) + 1, len(outputs.tissues), device=self.device)
        tissues[list(outputs.tissues), range(len(outputs.tissues))] = 1
        self.to_tissues = tissues
        self.codes = torch.as_tensor([list(outputs.right), list(outputs.left)], dtype=torch.uint8, device=self.device)

    def run(self) -> Any:
        """Yields the slices of each slab, with the labels in it."""
        size = [part.stop - part.start for part in self.box]
        if min(size) <= 0 or not self.classes.numel():
            return
        mixture = self._mixture() if self.trust else None
        for piece in slabs(size):
            part = (*self.box[:2], slice(self.box[2].start + piece.start, self.box[2].start + piece.stop))
            yield part, self._label(part, mixture)

    def _scan_range(self, axis: int) -> slice:
        """The scan's voxels along an axis that the box holds."""
        ends = np.array([-0.5, self.classes.shape[1 + axis] - 0.5]) + self.corner[axis]
        low, high = sorted((ends - self.alignment.offset[axis]) / self.alignment.scale[axis])
        return slice(max(0, int(np.ceil(low))), min(self.scan.shape[axis], int(np.floor(high)) + 1))

    def _positions(self, axis: int, indices: np.ndarray) -> np.ndarray:
        positions: np.ndarray = self.alignment.positions(axis, indices) - self.corner[axis]
        return positions

    def _mixture(self) -> LocalMixture | None:
        steps = [max(1, round(LEARN_MM / size)) for size in self.spacing]
        some = [np.arange(part.start, part.stop, step) for part, step in zip(self.box, steps, strict=True)]
        prior = torch.einsum("gk,kxyz->gxyz", self.to_groups, self.classes)
        prior = interpolated(prior, [self._positions(axis, at) for axis, at in enumerate(some)])
        scan = self.scan[tuple(slice(p.start, p.stop, step) for p, step in zip(self.box, steps, strict=True))]
        self.steps = steps
        if not bool((prior[0] < 0.5).any()):
            return None
        return LocalMixture(scan.float().to(self.device), prior, self.spacing * steps, self.trust)

    def _label(self, part: tuple[slice, ...], mixture: LocalMixture | None) -> SlabLabels:
        indices = [np.arange(side.start, side.stop) for side in part]
        positions = [self._positions(axis, at) for axis, at in enumerate(indices)]
        dense = interpolated(self.classes, positions)
        inside = dense[0] < NOTHING
        if self.mask is not None:
            inside &= self.mask[part].to(self.device) > 0
        at = inside.flatten().nonzero()[:, 0]
        probabilities = dense.flatten(1).index_select(1, at)
        prior = probabilities.sum(dim=1, dtype=torch.float64).cpu()
        if mixture is not None:
            starts = [side.start for side in self.box]
            on_fit = [(at - start) / step for at, start, step in zip(indices, starts, self.steps, strict=True)]
            means = mixture.means_at(on_fit).flatten(1).index_select(1, at)
            groups = self.to_groups @ probabilities
            scan = self.scan[part].float().to(self.device)[inside]
            factor = mixture.refined(scan, groups, means) / groups.clamp_min(1e-6)
            probabilities = probabilities * factor[list(self.outputs.groups)]
        tissues = self.to_tissues @ probabilities
        of_tissue = torch.as_tensor(self.outputs.tissues, device=self.device)[:, None] == tissues.max(dim=0).indices
        structure = torch.where(of_tissue, probabilities, -1).max(dim=0).indices
        left = interpolated(self.side, positions).flatten().index_select(0, at)
        code = self.codes[(left > 0.5).long(), structure]
        nearest = [
            np.clip(np.rint(at), 0, n - 1).astype(int) for at, n in zip(positions, self.side.shape[1:], strict=True)
        ]
        assert self.fourth is not None
        fourth = torch.as_tensor(self.fourth[np.ix_(*nearest)], device=self.device)[inside]
        code[(structure == self.outputs.ventricle) & fourth] = self.outputs.fourth
        structure = structure.to(torch.uint8).cpu()
        return SlabLabels(inside.cpu(), probabilities, tissues, structure, code.cpu(), left, prior)

    def _near_fourth(self) -> np.ndarray:
        """Which voxels of the box are nearer to the fourth ventricle's surroundings than to the third's, bool."""
        labels = self.classes.max(dim=0).indices.cpu().numpy()
        distances = []
        for near in (self.outputs.near_third, self.outputs.near_fourth):
            away = ~np.isin(labels, near)
            distances.append(ndimage.distance_transform_edt(away) if not away.all() else np.full(labels.shape, np.inf))
        return distances[1] < distances[0]


def _brain_alone(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, tuple[slice, ...]]:
    """Probabilities of the classes and of the left side, within the box of the brain; outside its pieces, background.

    Returns:
        (K, x, y, z), (x, y, z), and the box in the logits' voxels. All are empty if there is no brain.
    """
    label = (logits[:-1].max(dim=0).indices > 0).cpu().numpy()
    pieces, count = ndimage.label(label, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    if not count:
        empty = logits[:-1, :0, :0, :0]
        return empty, empty[0], (slice(0, 0),) * 3
    kept = np.isin(pieces, 1 + np.flatnonzero(sizes >= SMALLEST_PIECE * sizes.max()))
    bounds = ndimage.find_objects(kept.astype(np.uint8))[0]
    box: Any = tuple(slice(max(0, side.start - 2), side.stop + 2) for side in bounds)
    other = torch.as_tensor((pieces > 0) & ~kept, device=logits.device)[box]
    classes = logits[(slice(0, -1), *box)].float().softmax(dim=0)
    classes.masked_fill_(other, 0)
    classes[0].masked_fill_(other, 1)
    return classes, logits[(-1, *box)].float().sigmoid(), box
