"""What the labels of a scan mean, and the sums over voxels from which volumes and confidence follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Outputs:
    """What a network's outputs mean, but the last one, which is the side (positive on the left).

    Args:
        tissues: for each output, 0 background, or the number of its tissue from 1.
        groups: for each output, 0 background, or the number from 1 of those that share an intensity.
        left: for each output, its code on the left side.
        right: for each output, its code on the right side.
        ventricle: the output that holds both the third and the fourth ventricle, told apart by what is nearer.
        near_third: outputs that lie around the third ventricle.
        near_fourth: outputs that lie around the fourth ventricle.
        fourth: the code of the fourth.
    """

    tissues: Sequence[int]
    groups: Sequence[int]
    left: Sequence[int]
    right: Sequence[int]
    ventricle: int
    near_third: Sequence[int]
    near_fourth: Sequence[int]
    fourth: int


@dataclass
class SlabLabels:
    """One slab's voxels that may be brain, n of them.

    Args:
        inside: which voxels of the slab these are, bool.
        probabilities: of the outputs, (K, n), on the network's device.
        tissues: their sums, (T + 1, n).
        structure: the output that each voxel is labelled with, (n,); code: the same with a side.
        left: probability of the left side, (n,).
        prior: the sums of the network's own probabilities over the n voxels, before the scan's intensities refined
            them, (K,).
    """

    inside: torch.Tensor
    probabilities: torch.Tensor
    tissues: torch.Tensor
    structure: torch.Tensor
    code: torch.Tensor
    left: torch.Tensor
    prior: torch.Tensor


class Measures:
    """Sums over a scan's voxels from which volumes and confidence follow, for each code and each tissue.

    Attributes:
        voxels: {code: number of voxels with this label}; tissues have the keys -1, -2, ...
        probability: {code: sum of its probability over all voxels}.
        agreement: {code: sum of its probability over the voxels with this label}.
        prior: for each output, the sum of the network's own probability over all voxels, (K,).
    """

    def __init__(self, outputs: Outputs) -> None:
        self.outputs = outputs
        self.codes = sorted({*outputs.left, *outputs.right, outputs.fourth} - {0})
        self.tissue_codes = [-n for n in range(1, max(outputs.tissues) + 1)]
        names = [*self.codes, *self.tissue_codes]
        self.voxels: dict[int, int] = dict.fromkeys(names, 0)
        self.probability: dict[int, float] = dict.fromkeys(names, 0.0)
        self.agreement: dict[int, float] = dict.fromkeys(names, 0.0)
        self.prior = torch.zeros(len(outputs.left), dtype=torch.float64)

    def add(self, slab: SlabLabels) -> None:
        """Counts one slab."""
        self.prior += slab.prior
        least = int(max(self.codes)) + 1
        code, structure = slab.code.long().cpu(), slab.structure.long()
        at_label = slab.probabilities.gather(0, structure[None].to(slab.probabilities.device))[0].cpu()
        voxels = torch.bincount(code, minlength=least)
        agreement = torch.bincount(code, weights=at_label.double(), minlength=least)
        on_left = (slab.probabilities @ slab.left).double().cpu()
        total = slab.probabilities.sum(dim=1).double().cpu()
        fourth = self.outputs.fourth
        for output, (left, right) in enumerate(zip(self.outputs.left, self.outputs.right, strict=True)):
            if output == 0:
                continue
            if left != right:
                self.probability[left] += float(on_left[output])
                self.probability[right] += float(total[output] - on_left[output])
            elif output == self.outputs.ventricle:  # shared as the labels are
                both = max(1, int(voxels[left] + voxels[fourth]))
                self.probability[left] += float(total[output]) * int(voxels[left]) / both
                self.probability[fourth] += float(total[output]) * int(voxels[fourth]) / both
            else:
                self.probability[left] += float(total[output])
        for label_code in self.codes:
            self.voxels[label_code] += int(voxels[label_code])
            self.agreement[label_code] += float(agreement[label_code])
        tissue = torch.as_tensor(self.outputs.tissues)[structure.cpu()]
        for number, name in enumerate(self.tissue_codes, start=1):
            has_it = (tissue == number).to(slab.tissues.device)
            self.voxels[name] += int(has_it.sum())
            self.probability[name] += float(slab.tissues[number].sum())
            self.agreement[name] += float(slab.tissues[number][has_it].sum())

    def expected_brain(self, around: int) -> float:
        """Voxels of brain by the network's own probabilities: of all outputs but background and the code `around` it.

        Labels of thin sulci follow the contrast: of one head, their sum differs more between contrasts than this one.
        """
        inside = [code not in (0, around) for code in self.outputs.left]
        return float(self.prior[torch.as_tensor(inside)].sum())

    def expected_dice(self, code: int) -> float:
        """The Dice that the probabilities themselves expect of a label, 0 to 1; NaN for a label without voxels."""
        both = self.voxels[code] + self.probability[code]
        return 2 * self.agreement[code] / both if self.voxels[code] else float("nan")
