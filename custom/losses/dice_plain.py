"""Dice and cross-entropy from logits and labels in PyTorch operations, on any device, a block of voxels at a time.

Blocks fit into a core's cache and nothing else is kept: no one-hot, softmax or product of a whole volume is made.
The formulas are in custom/losses/multi_class_dice.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

BLOCK = {"cpu": 2**19}  # logits in a block: 2 MB of float32; twice as many are still one block
BLOCK_ELSEWHERE = 2**24  # elsewhere fewer launches matter more than a cache


def forward(
    logits: torch.Tensor,
    labels: torch.Tensor,
    dice_weight: torch.Tensor,
    ce_weight: torch.Tensor,
    constants: torch.Tensor,
    with_ce: bool,
    include_background: bool,
    squared_pred: bool,
    jaccard: bool,
    batch: bool,
    reduction: str,
    ignore_index: int | None,
    *,
    kept: list[torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss, and what backward needs.

    Args:
        logits: (B, C, ...) of any float type.
        labels: (B, 1, ...).
        dice_weight: (C,), float64: w of the formulas.
        ce_weight: (C,), float64: v of the formulas.
        constants: (3,), float64: the factor of cross-entropy, smooth_nr, smooth_dr.
        with_ce: False leaves cross-entropy out.
        include_background: if False, dice_weight[0] must be 0.
        squared_pred: squares of the probabilities in the denominator.
        jaccard: the soft Jaccard index instead of Dice.
        batch: sum over the whole batch before dividing.
        reduction: "mean", "sum" or "none".
        ignore_index: voxels with this label do not count.
        kept: receives one-hot labels, probabilities and free memory, for backward, if all is one block.

    Returns:
        loss: a scalar, or with reduction "none" (1 or B, C).
        slopes: (1 or B, 3, C): A, B and lambda_ce v / sum(v T) of the formulas.

    Raises:
        ValueError: a label that is no class.
    """
    lambda_ce, smooth_nr, smooth_dr = constants
    sums = logits.new_zeros((4, *logits.shape[:2]), dtype=dice_weight.dtype)
    counted = sums.new_zeros(())
    with torch.autocast(logits.device.type, enabled=False):
        for items, _, counts, one_hot, x, free, spare, _ in _blocks(logits, labels, ignore_index):
            if with_ce:
                log_p = torch.log_softmax(x, 1, out=free)
                p, spare = torch.exp(log_p, out=spare), free
                # -inf times the zeros of the one-hot is NaN.
                log_p.mul_(one_hot).nan_to_num_(nan=0.0, posinf=torch.inf, neginf=-torch.inf)
                sums[3, items] += log_p.sum(2)
            else:
                p = torch.softmax(x, 1, out=free)
            sums[0, items] += torch.mul(p, one_hot, out=spare).sum(2)
            sums[2, items] += one_hot.sum(2)
            if kept is not None and one_hot.numel() == logits.numel() and counts is None:
                kept[:] = one_hot, p, spare
                p = torch.square(p, out=spare) if squared_pred else p
            else:
                p = p.square_() if squared_pred else p
                p = p if counts is None else p.mul_(counts)
            sums[1, items] += p.sum(2)
            counted += p[:, 0].numel() if counts is None else counts.sum()
    if sums[2].sum() != counted:  # each voxel that counts must have met one class
        raise ValueError(wrong_labels(logits.shape[1], _worst(labels, logits.shape[1], ignore_index)))
    intersection, prediction, target = sums[:3].sum(1, keepdim=True) if batch else sums[:3]
    terms, slopes = _dice(intersection, prediction, target, dice_weight, smooth_nr, smooth_dr, jaccard)
    number = len(terms) * (len(dice_weight) - (not include_background)) if reduction == "mean" else 1
    terms, slopes = terms / number, slopes / number
    ce_slope, ce = torch.zeros_like(ce_weight), ce_weight.new_zeros(())
    if with_ce:
        _, _, target, log_likelihood = sums.sum(1)
        whole = (ce_weight * target).sum() if reduction == "mean" else torch.ones_like(ce)
        ce_slope = torch.where(whole > 0, lambda_ce * ce_weight / whole, 0)
        ce = -torch.where(ce_slope > 0, ce_slope * log_likelihood, 0).sum()
    slopes = torch.cat([slopes, ce_slope.expand_as(terms)[:, None]], dim=1)
    loss = terms if reduction == "none" else terms.sum() + ce
    dtype = precision(logits)
    return loss.to(dtype), slopes.to(dtype)


def backward(
    grad: torch.Tensor,
    logits: torch.Tensor,
    labels: torch.Tensor,
    slopes: torch.Tensor,
    squared_pred: bool,
    ignore_index: int | None,
    *,
    kept: list[torch.Tensor] | None = None,
) -> torch.Tensor:
    """The gradient with respect to the logits, in their shape, type and layout.

    Args:
        grad: a scalar or, with reduction "none", (1 or B, C).
        logits: as in forward.
        labels: as in forward.
        slopes: from forward.
        squared_pred: as in forward.
        ignore_index: as in forward.
        kept: from forward. Its contents are used up.
    """
    gradient = empty_gradient(logits)
    places = gradient.flatten(2) if _merged(logits).ndim == 3 else gradient
    slopes = (slopes * (grad[:, None] if grad.ndim else grad)).expand(len(logits), -1, -1)
    with torch.autocast(logits.device.type, enabled=False):
        with_ce = bool(slopes[:, 2].any())
        blocks = _kept_block(kept) or _blocks(logits, labels, ignore_index)
        for items, place, counts, one_hot, x, free, spare, rows in blocks:
            by_intersection, by_prediction, by_likelihood = slopes[items].split(1, dim=1)  # (I, 1, C) each
            p = free if kept else torch.softmax(x, 1, out=free)
            pull, ce, rest = rows  # of each voxel: A_y p_y - v_y / ..., v_y / ..., and what all its classes share
            torch.bmm(by_intersection, torch.mul(p, one_hot, out=spare), out=pull)
            if with_ce:
                pull.sub_(torch.bmm(by_likelihood, one_hot, out=ce))
            if squared_pred:
                torch.bmm(2 * by_prediction, torch.square(p, out=spare), out=rest)
                q = torch.mul(p, 2 * by_prediction.mT, out=spare)
            else:
                torch.bmm(by_prediction, p, out=rest)
                q = by_prediction.mT
            target = places[items, :, place]
            straight = target.shape == p.shape and target.dtype == p.dtype
            result = torch.sub(q, rest.add_(pull), out=target if straight else spare).mul_(p).addcmul_(one_hot, pull)
            result = result if counts is None else result.mul_(counts)
            if not straight:
                target.copy_(result.reshape(target.shape))
    return gradient


def precision(logits: torch.Tensor) -> torch.dtype:
    """The type in which the loss is computed: float64 for float64 logits, else float32."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def empty_gradient(logits: torch.Tensor) -> torch.Tensor:
    """Like the logits, laid out so that the spatial axes merge without a copy."""
    merged = _merged(logits)
    if merged.ndim == 3:
        gradient: torch.Tensor = torch.empty_like(merged).unflatten(2, logits.shape[2:])
        return gradient
    return logits.new_empty(logits.shape)


def wrong_labels(classes: int, worst: float) -> str:
    """The message about labels that are no classes."""
    return f"labels must be whole numbers from 0 to {classes - 1}, or ignore_index; they hold {worst:g}."


def _dice(
    intersection: torch.Tensor,
    prediction: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    smooth_nr: torch.Tensor,
    smooth_dr: torch.Tensor,
    jaccard: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row's terms (rows, C) and their slopes by intersection and prediction (rows, 2, C)."""
    numerator, denominator = 2 * intersection + smooth_nr, prediction + target
    denominator = (2 * (denominator - intersection) if jaccard else denominator) + smooth_dr
    by_prediction = weight * numerator / denominator.square()
    by_intersection = -2 * weight / denominator
    if jaccard:
        by_prediction = 2 * by_prediction
        by_intersection = by_intersection - by_prediction
    terms = weight * (1 - numerator / denominator)
    slopes = torch.stack([by_intersection, by_prediction], dim=1)
    return torch.where(weight > 0, terms, 0), torch.where(weight > 0, slopes, 0)


def _merged(logits: torch.Tensor) -> torch.Tensor:
    """The logits with their spatial axes merged if that needs no copy, else unchanged."""
    try:
        return logits.view(*logits.shape[:2], -1)
    except RuntimeError:
        return logits


def _kept_block(kept: list[torch.Tensor] | None) -> list[tuple[Any, ...]]:
    """What `_blocks` yields, with the probabilities in the first free memory, if forward kept its only block."""
    if not kept:
        return []
    one_hot, p, spare = kept
    rows = p.new_empty((3, len(p), 1, p.shape[2]))
    return [(slice(None), slice(None), None, one_hot, None, p, spare, rows)]


def _blocks(logits: torch.Tensor, labels: torch.Tensor, ignore_index: int | None) -> Iterator[tuple[Any, ...]]:
    """Blocks of voxels of one item, or of several small items.

    The same memory serves every block: freed and allocated again, it would go back to the system each time.

    Yields:
        The block's items; its place along the first spatial axis; which voxels count, (I, 1, N), or None for all;
        one-hot labels, logits (not to be written to), twice free memory, the second of which may hold the logits, all
        (I, C, N); free memory for three rows, (3, I, 1, N).
    """
    items, classes = logits.shape[:2]
    dtype = precision(logits)
    names = torch.arange(classes, device=logits.device, dtype=dtype)[:, None]
    logits = _merged(logits)
    labels = labels.flatten(2) if logits.ndim == 3 else labels
    length, row = logits.shape[2], logits[0, 0, 0].numel()
    block = BLOCK.get(logits.device.type, BLOCK_ELSEWHERE)
    at_once = max(1, max(block, logits.numel() * (logits.numel() <= 2 * block)) // (classes * row))
    step = min(length, at_once)
    together = min(items, at_once // step)
    room = logits.new_empty((3, together, classes, step * row), dtype=dtype)
    rows = logits.new_empty((4, together, 1, step * row), dtype=dtype)
    for first in range(0, items, together):
        for start in range(0, length, step):
            chosen, place = slice(first, first + together), slice(start, start + step)
            labels_here = labels[chosen, :, place].flatten(2)
            inside = (slice(None), slice(labels_here.shape[0]), slice(None), slice(labels_here.shape[2]))
            one_hot, free, spare = room[inside]
            x = logits[chosen, :, place]
            if ignore_index is not None or x.dtype != dtype or x.shape != spare.shape:
                x = spare.copy_(x.reshape(spare.shape))
            y = rows[inside][3].copy_(labels_here)
            # Written straight into floats: making the comparison's booleans first takes ten times as long.
            torch.eq(y, names, out=one_hot)
            counts = None
            if ignore_index is not None:
                counts = (y != ignore_index).to(dtype)
                one_hot *= counts
                x.masked_fill_(counts == 0, 0)  # voxels that do not count may be NaN
            yield chosen, place, counts, one_hot, x, free, spare, rows[inside][:3]


def _worst(labels: torch.Tensor, classes: int, ignore_index: int | None) -> float:
    values = labels.double() if ignore_index is None else labels[labels != ignore_index].double()
    wrong = values[~torch.isin(values, torch.arange(classes, dtype=values.dtype, device=values.device))]
    return wrong.max().item()
