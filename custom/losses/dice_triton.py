"""Dice and cross-entropy on CUDA: three Triton kernels. The formulas are in custom/losses/multi_class_dice.py.

Forward reads logits and labels once, with the softmax in registers. Each program leaves its own sums per class, and a
second kernel of one program adds them in float64, always in the same order: no atomics, the same result at every run.
Backward reads both once more, makes the softmax again and writes the gradient, all that is made of the volume's size.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
import triton.language as tl

from custom.losses.dice_plain import empty_gradient, precision

TILE = 2048  # logits that one program holds at a time, classes times voxels; 16 for each of its 128 threads
PROGRAMS_PER_CORE = 8  # of a multiprocessor, in forward; each leaves a row of sums to add


@triton.jit
def _softmax_tile(
    logits, labels, item, v, voxels, c, by_item, by_class, by_voxel, yb, yv, ignore_index,
    REAL: tl.constexpr, CHANNELS_LAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile's shifted logits, softmax and log of its sum, which entry is the label's, which voxels count, labels."""
    item = item.to(tl.int64)
    v = v.to(tl.int64)
    inside = v < voxels
    y = tl.load(labels + item * yb + v * yv, mask=inside, other=0)
    counts = inside if ignore_index is None else inside & (y != ignore_index)
    real = c < REAL
    # Known at compile time, channels-last strides let a thread load a voxel's classes at once.
    place = (
        v[None, :] * REAL + c[:, None] if CHANNELS_LAST else v[None, :] * by_voxel + c[:, None].to(tl.int64) * by_class
    )
    x = tl.load(logits + item * by_item + place, mask=real[:, None] & inside[None, :], other=0).to(PRECISION)
    x = tl.where(real[:, None], x, -float("inf"))
    x -= tl.max(x, axis=0)[None, :]
    e = tl.exp(x)
    total = tl.sum(e, axis=0)
    # A label with a fraction, out of range, NaN, equals no class.
    y = y.to(PRECISION)
    at_label = (y[None, :] == c[:, None].to(PRECISION)) & counts[None, :] & real[:, None]
    return x, e / total[None, :], tl.log(total), at_label, counts, y


@triton.jit
def _sums(
    logits, labels, sums, worst, voxels, groups, lb, lc, lv, yb, yv, ignore_index,
    SQUARED: tl.constexpr, WITH_CE: tl.constexpr, REAL: tl.constexpr, CHANNELS_LAST: tl.constexpr,
    PRECISION: tl.constexpr, CLASSES: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """sums: (B, groups, 4, C): intersection, prediction, target, likelihood; worst: (B, groups). Grid: B * groups."""
    program = tl.program_id(0)
    item, group = program // groups, program % groups
    c = tl.arange(0, CLASSES)
    intersection = tl.zeros((CLASSES, TILE), PRECISION)
    prediction = tl.zeros((CLASSES, TILE), PRECISION)
    target = tl.zeros((CLASSES, TILE), PRECISION)
    likelihood = tl.zeros((CLASSES, TILE), PRECISION)
    wrong = tl.full((TILE,), -float("inf"), PRECISION)
    for start in range(group * TILE, voxels, groups * TILE):
        v = start + tl.arange(0, TILE)
        x, p, log_total, at_label, counts, y = _softmax_tile(
            logits, labels, item, v, voxels, c, lb, lc, lv, yb, yv, ignore_index, REAL, CHANNELS_LAST, PRECISION
        )
        intersection += tl.where(at_label, p, 0)
        prediction += tl.where(counts[None, :], p * p if SQUARED else p, 0)
        target += tl.where(at_label, 1, 0)
        if WITH_CE:
            likelihood += tl.where(at_label, x - log_total[None, :], 0)
        is_class = tl.sum(at_label.to(tl.int32), axis=0) == 1
        shown = tl.where(tl.abs(y) < float("inf"), y, float("inf"))
        wrong = tl.maximum(wrong, tl.where(counts & (is_class == 0), shown, -float("inf")))
    real = c < REAL
    place = sums + program.to(tl.int64) * 4 * REAL + c
    tl.store(place, tl.sum(intersection, axis=1), mask=real)
    tl.store(place + REAL, tl.sum(prediction, axis=1), mask=real)
    tl.store(place + 2 * REAL, tl.sum(target, axis=1), mask=real)
    tl.store(place + 3 * REAL, tl.sum(likelihood, axis=1), mask=real)
    tl.store(worst + program, tl.max(wrong, axis=0))


@triton.jit
def _dice_terms(
    intersection, prediction, target, weight, smooth_nr, smooth_dr, terms, slopes, c, most_wrong,
    REAL: tl.constexpr, JACCARD: tl.constexpr,
):  # fmt: skip
    """Writes one row's terms (C,) and slopes (2, C), and returns the sum of the terms."""
    good = tl.zeros_like(weight) + most_wrong == -float("inf")  # Triton's interpreter cannot broadcast a boolean
    numerator, denominator = 2 * intersection + smooth_nr, prediction + target
    if JACCARD:
        denominator = 2 * (denominator - intersection)
    denominator += smooth_dr
    real = c < REAL
    counted = real & (weight > 0)
    term = tl.where(counted, weight * (1 - numerator / denominator), 0)
    by_prediction = weight * numerator / (denominator * denominator)
    by_intersection = -2 * weight / denominator
    if JACCARD:
        by_prediction *= 2
        by_intersection -= by_prediction
    tl.store(slopes + c, tl.where(counted & good, by_intersection, 0), mask=real)
    tl.store(slopes + REAL + c, tl.where(counted & good, by_prediction, 0), mask=real)
    tl.store(terms + c, tl.where(good, term, float("nan")), mask=real)
    return tl.sum(term, axis=0)


@triton.jit
def _finish(
    sums, worst, dice_weight, ce_weight, constants, terms, loss, slopes, greatest, items, groups, number,
    JACCARD: tl.constexpr, BATCH: tl.constexpr, MEAN: tl.constexpr, WITH_CE: tl.constexpr,
    REAL: tl.constexpr, CLASSES: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """terms: (rows, C); slopes: (rows, 3, C); loss and greatest: one number. One program; wrong labels make NaN."""
    c = tl.arange(0, CLASSES)
    real = c < REAL
    g = tl.arange(0, GROUPS)
    lambda_ce, smooth_nr, smooth_dr = tl.load(constants), tl.load(constants + 1), tl.load(constants + 2)
    most = tl.full((GROUPS,), -float("inf"), tl.float64)
    for start in range(0, items * groups, GROUPS):
        most = tl.maximum(
            most, tl.load(worst + start + g, mask=start + g < items * groups, other=-float("inf")).to(tl.float64)
        )
    most_wrong = tl.max(most, axis=0)
    tl.store(greatest, most_wrong)
    good = most_wrong == -float("inf")
    weight = tl.load(dice_weight + c, mask=real, other=0) / number
    all_intersection = tl.zeros((CLASSES,), tl.float64)
    all_prediction = tl.zeros((CLASSES,), tl.float64)
    all_target = tl.zeros((CLASSES,), tl.float64)
    all_likelihood = tl.zeros((CLASSES,), tl.float64)
    total = tl.zeros((), tl.float64)
    for item in range(items):
        intersection = tl.zeros((CLASSES,), tl.float64)
        prediction = tl.zeros((CLASSES,), tl.float64)
        target = tl.zeros((CLASSES,), tl.float64)
        for start in range(0, groups, GROUPS):
            place = sums + (item * groups + start + g[:, None]).to(tl.int64) * 4 * REAL + c[None, :]
            valid = (start + g[:, None] < groups) & real[None, :]
            intersection += tl.sum(tl.load(place, mask=valid, other=0).to(tl.float64), axis=0)
            prediction += tl.sum(tl.load(place + REAL, mask=valid, other=0).to(tl.float64), axis=0)
            target += tl.sum(tl.load(place + 2 * REAL, mask=valid, other=0).to(tl.float64), axis=0)
            all_likelihood += tl.sum(tl.load(place + 3 * REAL, mask=valid, other=0).to(tl.float64), axis=0)
        all_intersection += intersection
        all_prediction += prediction
        all_target += target
        if not BATCH:
            total += _dice_terms(
                intersection, prediction, target, weight, smooth_nr, smooth_dr,
                terms + item * REAL, slopes + item * 3 * REAL, c, most_wrong, REAL, JACCARD,
            )  # fmt: skip
    if BATCH:
        total += _dice_terms(
            all_intersection, all_prediction, all_target, weight, smooth_nr, smooth_dr,
            terms, slopes, c, most_wrong, REAL, JACCARD,
        )  # fmt: skip
    ce_slope = tl.zeros((CLASSES,), tl.float64)
    if WITH_CE:
        ce_slope += lambda_ce * tl.load(ce_weight + c, mask=real, other=0)
        if MEAN:
            whole = tl.sum(tl.load(ce_weight + c, mask=real, other=0) * all_target, axis=0)
            ce_slope = tl.where(whole > 0, ce_slope / whole, 0)
        total -= tl.sum(tl.where(ce_slope > 0, ce_slope * all_likelihood, 0), axis=0)
    ce_slope = tl.where(tl.zeros_like(ce_slope) + most_wrong == -float("inf"), ce_slope, 0)
    for row in range(1 if BATCH else items):
        tl.store(slopes + (row * 3 + 2) * REAL + c, ce_slope, mask=real)
    tl.store(loss, tl.where(good, total, float("nan")))


@triton.jit
def _gradient(
    grad, logits, labels, slopes, gradient, voxels, tiles, lb, lc, lv, yb, yv, gb, gc, gv,
    row_stride, grad_row, grad_class, ignore_index, SQUARED: tl.constexpr, REAL: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, PRECISION: tl.constexpr, CLASSES: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """gradient: like the logits (B, C, voxels). Grid: B * tiles."""
    item, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    c = tl.arange(0, CLASSES)
    real = c < REAL
    v = tile * TILE + tl.arange(0, TILE)
    _, p, _, at_label, counts, _ = _softmax_tile(
        logits, labels, item, v, voxels, c, lb, lc, lv, yb, yv, ignore_index, REAL, CHANNELS_LAST, PRECISION
    )
    upstream = tl.load(grad + item * grad_row + c * grad_class, mask=real, other=0).to(PRECISION)
    row = slopes + item * row_stride + c
    by_intersection = upstream * tl.load(row, mask=real, other=0)
    by_prediction = upstream * tl.load(row + REAL, mask=real, other=0)
    ce = upstream * tl.load(row + 2 * REAL, mask=real, other=0)
    q = 2 * p * by_prediction[:, None] if SQUARED else by_prediction[:, None]
    q += tl.where(at_label, by_intersection[:, None], 0)
    ce_here = tl.sum(tl.where(at_label, ce[:, None], 0), axis=0)
    result = p * (q - tl.sum(p * q, axis=0)[None, :] + ce_here[None, :]) - tl.where(at_label, ce[:, None], 0)
    result = tl.where(counts[None, :], result, 0)
    v = v.to(tl.int64)
    place = v[None, :] * REAL + c[:, None] if CHANNELS_LAST else v[None, :] * gv + c[:, None].to(tl.int64) * gc
    tl.store(gradient + item.to(tl.int64) * gb + place, result, mask=real[:, None] & (v < voxels)[None, :])


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
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As dice_plain.forward, but wrong labels make the loss NaN and the slopes 0 instead of raising.

    Logits whose spatial axes do not merge (for instance a crop) are copied.
    """
    x, y = logits.flatten(2), labels.flatten(1)
    items, classes, voxels = x.shape
    kinds = _kinds(x)
    groups = min(triton.cdiv(voxels, kinds["TILE"]), max(1, PROGRAMS_PER_CORE * _cores(x.device) // items))
    rows, kind = 1 if batch else items, precision(logits)
    sums = x.new_empty((items, groups, 4, classes), dtype=kind)
    worst = x.new_empty((items, groups), dtype=kind)
    terms, slopes = x.new_empty((rows, classes), dtype=kind), x.new_empty((rows, 3, classes), dtype=kind)
    loss, greatest = x.new_empty((), dtype=kind), x.new_empty(1, dtype=kind)
    number = rows * (classes - (not include_background)) if reduction == "mean" else 1
    with _on(x.device):
        _sums[(items * groups,)](
            x, y, sums, worst, voxels, groups, *x.stride(), *y.stride(), ignore_index,
            SQUARED=squared_pred, WITH_CE=with_ce, **kinds,
        )  # fmt: skip
        _finish[(1,)](
            sums, worst, dice_weight, ce_weight, constants, terms, loss, slopes, greatest, items, groups, number,
            JACCARD=jaccard, BATCH=batch, MEAN=reduction == "mean", WITH_CE=with_ce,
            REAL=classes, CLASSES=kinds["CLASSES"], GROUPS=max(1, TILE // kinds["CLASSES"] // 4),
        )  # fmt: skip
    return terms if reduction == "none" else loss, slopes, greatest


def backward(
    grad: torch.Tensor,
    logits: torch.Tensor,
    labels: torch.Tensor,
    slopes: torch.Tensor,
    squared_pred: bool,
    ignore_index: int | None,
) -> torch.Tensor:
    """As dice_plain.backward."""
    gradient = empty_gradient(logits)
    x, y, g = logits.flatten(2), labels.flatten(1), gradient.flatten(2)
    items, _, voxels = x.shape
    kinds = _kinds(x, g)
    tiles = triton.cdiv(voxels, kinds["TILE"])
    grad_row, grad_class = (grad.stride(0) * (len(grad) > 1), grad.stride(1)) if grad.ndim else (0, 0)
    row_stride = slopes.stride(0) if len(slopes) > 1 else 0
    with _on(x.device):
        _gradient[(items * tiles,)](
            grad, x, y, slopes, g, voxels, tiles, *x.stride(), *y.stride(), *g.stride(), row_stride, grad_row,
            grad_class, ignore_index, SQUARED=squared_pred, **kinds,
        )  # fmt: skip
    return gradient


def _kinds(x: torch.Tensor, *others: torch.Tensor) -> dict[str, Any]:
    """The compile-time constants for logits (B, C, voxels) and other tensors of that shape."""
    classes = x.shape[1]
    size = triton.next_power_of_2(classes)
    return {
        "REAL": classes,
        "CHANNELS_LAST": all(tensor.stride()[1:] == (1, classes) for tensor in (x, *others)),
        "PRECISION": tl.float64 if x.dtype == torch.float64 else tl.float32,
        "CLASSES": size,
        "TILE": max(1, TILE // size),
    }


def _on(device: torch.device) -> AbstractContextManager:
    """Triton launches on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@functools.cache
def _cores(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
