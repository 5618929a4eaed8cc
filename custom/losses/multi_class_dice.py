"""The soft Dice loss over mutually exclusive classes, alone and with cross-entropy.

With p the softmax over classes, g the one-hot label, k = 1 or, with `squared_pred`, 2, and sums over the voxels that
count (of each item, or of the whole batch with `batch`):

    I_c = sum p_c g_c      P_c = sum p_c^k      T_c = sum g_c      D_c = P_c + T_c, or 2 (P_c + T_c - I_c) for Jaccard
    dice_c = w_c (1 - (2 I_c + smooth_nr) / (D_c + smooth_dr))
    ce = -sum_c v_c sum(g_c log p_c) / sum_c v_c T_c

The gradient at one voxel with label y, where A_c = d dice_c / d I_c and B_c = d dice_c / d P_c, is

    q_c = A_c g_c + k p_c^(k-1) B_c      d/dlogit_c = p_c (q_c - sum_j p_j q_j) + v_y (p_c - g_c) / sum_j v_j T_j

So one pass over logits and labels gives a few sums per class, and a second pass gives the gradient; no one-hot array
is made. custom/losses/dice_operator.py chooses the implementation: Triton kernels on CUDA, PyTorch elsewhere.

Source: Milletari, Navab, Ahmadi 2016, "V-Net: Fully Convolutional Neural Networks for Volumetric Medical Image
Segmentation", 3DV, whose loss has the squares.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.data import MetaTensor
from torch import nn

from custom.losses.dice_operator import dice_and_ce_loss

REDUCTIONS = ("mean", "sum", "none")


class MultiClassDiceLoss(nn.Module):
    """One minus the soft Dice of softmax(logits) and integer labels.

    Same meaning as monai.losses.DiceLoss(softmax=True, to_onehot_y=True, ...), computed in float32, or float64 for
    float64 logits. One difference: a class of weight 0 adds 0 even where MONAI's 0/0 without smoothing gives NaN.

    Args:
        include_background: count class 0 as well.
        squared_pred: sums of squares in the denominator, as in V-Net.
        jaccard: the soft Jaccard index instead of Dice.
        reduction: "mean", "sum" or "none" (then the shape is (B, C, 1, ...) or, with `batch`, (C, 1, ...)).
        smooth_nr: added to the numerator.
        smooth_dr: added to the denominator.
        batch: sum over the whole batch before dividing.
        weight: a factor for all counted classes, or a factor for each of them; none negative. As in MONAI, it is not
            used if only one class counts.
        ignore_index: voxels with this label do not count, whether it is a class or not.

    Raises:
        ValueError: an unknown reduction; a negative weight.
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
        weight: Sequence[float] | float | torch.Tensor | None = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f'reduction must be "mean", "sum" or "none", got {reduction!r}.')
        self.include_background = include_background
        self.squared_pred = squared_pred
        self.jaccard = jaccard
        self.reduction = reduction
        self.smooth_nr = float(smooth_nr)
        self.smooth_dr = float(smooth_dr)
        self.batch = batch
        factors = torch.as_tensor(1.0 if weight is None else weight, dtype=torch.float64)
        if factors.ndim > 1 or not (factors >= 0).all():
            raise ValueError(f"weight must be a number, or a number for each class, none negative, got {weight}.")
        self.weight: float | tuple[float, ...] = factors.item() if factors.ndim == 0 else tuple(factors.tolist())
        self.ignore_index = ignore_index
        self.lambda_dice, self.lambda_ce = 1.0, 0.0
        self._constants: dict[tuple[object, ...], list[torch.Tensor]] = {}

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss: a number, or with reduction "none" (B, C, 1, ...) or (C, 1, ...).

        Args:
            logits: (B, C, H, W[, D]), any float type, C >= 2.
            labels: (B, 1, H, W[, D]), integers from 0 to C - 1, or `ignore_index`, in any integer or float type.

        Raises:
            ValueError: shapes, types or devices that do not match; labels that are no class. On CUDA wrong labels make
                the loss NaN and its gradient zero. The error is raised at a later call of a Dice loss, because
                otherwise every step would have to wait for the device.
        """
        if logits.ndim < 3 or logits.shape[1] < 2 or labels.shape != (logits.shape[0], 1, *logits.shape[2:]):
            raise ValueError(
                f"logits must be (B, C, ...) with C >= 2 and labels (B, 1, ...), "
                f"got {tuple(logits.shape)} and {tuple(labels.shape)}."
            )
        if logits.numel() == 0:
            raise ValueError(f"logits must hold a voxel, got {tuple(logits.shape)}.")
        if not logits.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise ValueError(f"logits must be floats and labels whole numbers, got {logits.dtype} and {labels.dtype}.")
        if logits.device != labels.device:
            raise ValueError(f"logits and labels must be on one device, got {logits.device} and {labels.device}.")
        logits, labels = (x.as_tensor() if isinstance(x, MetaTensor) else x for x in (logits, labels))
        loss = dice_and_ce_loss(
            logits,
            labels,
            *self._device_constants(logits.shape[1], logits.device),
            self.lambda_ce > 0,
            self.include_background,
            self.squared_pred,
            self.jaccard,
            self.batch,
            self.reduction,
            self.ignore_index,
        )
        if self.reduction == "none":
            loss = loss[0] if self.batch else loss
            loss = loss[..., 0 if self.include_background else 1 :]
            return loss.reshape(*loss.shape, *[1] * (logits.ndim - 2))
        return loss

    def _weights(self, classes: int) -> tuple[list[float], list[float]]:
        """The w_c and v_c of the formulas above, for each class.

        Raises:
            ValueError: the number of weights differs from that of counted classes.
        """
        first = 0 if self.include_background else 1
        weights = self._weight_list(classes - first)
        return [0.0] * first + (weights if len(weights) > 1 else [1.0]), [0.0] * classes

    def _weight_list(self, classes: int) -> list[float]:
        if isinstance(self.weight, float):
            return [self.weight] * classes
        if len(self.weight) != classes:
            raise ValueError(
                f"weight must have {classes} values, one for each counted class, "
                f"got {len(self.weight)}: {list(self.weight)}."
            )
        return list(self.weight)

    def _device_constants(self, classes: int, device: torch.device) -> list[torch.Tensor]:
        """Both weights and (lambda_ce, smooth_nr, smooth_dr) on the device; kept, since a copy makes a step wait.

        A compiled step makes them anew, on the device: what it made, its CUDA graph would overwrite later.
        """
        constants = (self.lambda_ce, self.smooth_nr, self.smooth_dr)
        dtype = torch.float32 if device.type == "mps" else torch.float64
        if torch.compiler.is_compiling():
            lists = self._constant_lists(classes)
            return [torch.cat([torch.full((1,), v, dtype=dtype, device=device) for v in values]) for values in lists]
        key = (classes, device, self.include_background, self.lambda_dice, self.weight, constants)
        if key not in self._constants:
            lists = self._constant_lists(classes)
            self._constants = {key: [torch.tensor(values, dtype=dtype, device=device) for values in lists]}
        return self._constants[key]

    def _constant_lists(self, classes: int) -> tuple[list[float], ...]:
        dice, ce = self._weights(classes)
        return [self.lambda_dice * factor for factor in dice], ce, [self.lambda_ce, self.smooth_nr, self.smooth_dr]


class MultiClassDiceCELoss(MultiClassDiceLoss):
    """The weighted sum of the soft Dice loss and cross-entropy, in one pass over logits and labels.

    Same meaning as monai.losses.DiceCELoss(softmax=True, to_onehot_y=True, ...), with ignore_index, which MONAI's does
    not have. If every voxel is ignored, cross-entropy is 0 instead of torch's 0/0, so that a crop without labels does
    not end a training.

    Args:
        include_background: as in MultiClassDiceLoss.
        squared_pred: as in MultiClassDiceLoss.
        jaccard: as in MultiClassDiceLoss.
        reduction: "mean" (cross-entropy: over voxels, by their weights) or "sum". The two parts have no common shape
            for "none".
        smooth_nr: as in MultiClassDiceLoss.
        smooth_dr: as in MultiClassDiceLoss.
        batch: as in MultiClassDiceLoss.
        weight: a factor for each class, with the background. Cross-entropy uses all, Dice those of counted classes.
        lambda_dice: factor of Dice, not negative.
        lambda_ce: factor of cross-entropy, not negative.
        ignore_index: as in MultiClassDiceLoss.

    Raises:
        ValueError: a reduction other than "mean" and "sum", a negative weight or lambda.
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
        weight: Sequence[float] | torch.Tensor | None = None,
        lambda_dice: float = 1.0,
        lambda_ce: float = 1.0,
        ignore_index: int | None = None,
    ) -> None:
        if reduction not in REDUCTIONS[:2]:
            raise ValueError(f'reduction must be "mean" or "sum", got {reduction!r}: the parts differ in shape.')
        if lambda_dice < 0 or lambda_ce < 0:
            raise ValueError(f"lambda_dice and lambda_ce must not be negative, got {lambda_dice} and {lambda_ce}.")
        super().__init__(
            include_background, squared_pred, jaccard, reduction, smooth_nr, smooth_dr, batch, weight, ignore_index
        )
        self.lambda_dice = float(lambda_dice)
        self.lambda_ce = float(lambda_ce)

    def _weights(self, classes: int) -> tuple[list[float], list[float]]:
        weights = self._weight_list(classes)
        dice = weights if self.include_background or classes > 2 else [1.0, 1.0]
        return dice if self.include_background else [0.0, *dice[1:]], weights
