"""The soft Dice loss over mutually exclusive classes (Milletari, Navab, Ahmadi 2016, V-Net)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class MultiClassDiceLoss(nn.Module):
    """One minus the soft Dice of softmax(logits) and integer labels.

    With p the softmax, g the one-hot label and sums over voxels (and the batch, if `batch`):
    loss_c = 1 - (2 sum(p g) + smooth_nr) / (sum(p) + sum(g) + smooth_dr).
    Same meaning as monai.losses.DiceLoss(softmax=True, to_onehot_y=True, ...). Computed in float32, or float64.

    Args:
        include_background: count class 0 too.
        squared_pred: sums of squares in the denominator, as in V-Net.
        jaccard: the soft Jaccard index instead of Dice: 2 (sum(p) + sum(g) - sum(p g)) in the denominator.
        reduction: "mean", "sum" or "none" (then the shape is (B, C) or, with `batch`, (C,)).
        smooth_nr, smooth_dr: added to the numerator and denominator.
        batch: sum over the whole batch before dividing.
        weight: one factor for all counted classes, or one for each of them.

    Raises:
        ValueError: an unknown reduction, or shapes that don't fit.
    """

    def __init__(
        self,
        include_background: bool = True,
        squared_pred: bool = False,
        jaccard: bool = False,
        reduction: str = "mean",
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        batch: bool = False,
        weight: Sequence[float] | float | None = None,
    ) -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f'reduction must be "mean", "sum" or "none", got {reduction!r}.')
        self.include_background = include_background
        self.squared_pred = squared_pred
        self.jaccard = jaccard
        self.reduction = reduction
        self.smooth_nr = smooth_nr
        self.smooth_dr = smooth_dr
        self.batch = batch
        self.weight = weight

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """
        Args:
            logits: (B, C, H, W[, D]), any float type, C >= 2.
            labels: (B, 1, H, W[, D]), integers from 0 to C - 1 in any type.
        """
        if logits.ndim < 3 or logits.shape[1] < 2 or labels.shape != (logits.shape[0], 1, *logits.shape[2:]):
            raise ValueError(
                f"logits must be (B, C, ...) with C >= 2 and labels (B, 1, ...), "
                f"got {tuple(logits.shape)} and {tuple(labels.shape)}."
            )
        dtype = logits.dtype if logits.dtype == torch.float64 else torch.float32
        prediction = logits.to(dtype).softmax(dim=1)
        target = torch.zeros_like(prediction).scatter_(1, labels.long(), 1)
        if not self.include_background:
            prediction, target = prediction[:, 1:], target[:, 1:]
        voxels = tuple(range(2, logits.ndim))
        over = (0, *voxels) if self.batch else voxels
        intersection = (prediction * target).sum(over)
        power = 2 if self.squared_pred else 1
        total = prediction.pow(power).sum(over) + target.sum(over)
        if self.jaccard:
            total = 2 * (total - intersection)
        loss = 1 - (2 * intersection + self.smooth_nr) / (total + self.smooth_dr)
        if self.weight is not None:
            weight = torch.as_tensor(self.weight, dtype=loss.dtype, device=loss.device)
            if weight.ndim and len(weight) != loss.shape[-1]:
                raise ValueError(f"weight must have {loss.shape[-1]} values, one for each class, got {len(weight)}.")
            loss = loss * weight
        if self.reduction == "none":
            return loss
        return loss.mean() if self.reduction == "mean" else loss.sum()
