"""The Triton kernels of the Dice losses. The formulas are in custom/losses/multi_class_dice.py.

A program holds CLASSES x TILE logits at a time, and a thread all CLASSES of its voxels, so that the softmax needs no
exchange between threads. With more classes than that it reads its tile once for the softmax's sum and once more,
mostly from the cache, for the result.

`sums` leaves each program's sums in `work`, (3 C + 2, programs): intersection, prediction and target of each class,
the weighted log-likelihood, and the greatest wrong label or -inf. `finish`, of one program, adds them in float64 and
always in the same order: no atomics, so every run gives the same bits.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _labels(labels, v, voxels, stride, ignore_index):
    """Labels at the voxels v, and which of them count."""
    inside = v < voxels
    y = tl.load(labels + v * stride, mask=inside, other=0)
    return y, inside if ignore_index is None else inside & (y != ignore_index)


@triton.jit
def _logits(
    logits, v, c, voxels, by_class, by_voxel,
    REAL: tl.constexpr, CHANNELS_LAST: tl.constexpr, PRECISION: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    """Logits (CLASSES, TILE) of classes c at voxels v; -inf beyond the last class."""
    # Known at compile time, channels-last strides let a thread load a voxel's classes at once.
    row = c[:, None].to(tl.int64) * by_class
    place = v[None, :] * REAL + c[:, None] if CHANNELS_LAST else row + v[None, :] * by_voxel
    if REAL % CLASSES == 0:
        x = tl.load(logits + place, mask=(v < voxels)[None, :], other=0).to(PRECISION)
    else:
        x = tl.load(logits + place, mask=(c < REAL)[:, None] & (v < voxels)[None, :], other=0).to(PRECISION)
        x = tl.where((c < REAL)[:, None], x, -float("inf"))
    return x


@triton.jit
def _grown(top, x):
    """The greatest logit so far, and what the sum so far is multiplied by when that grows; 0 instead of -inf."""
    higher = tl.maximum(top, tl.max(x, axis=0))
    higher = tl.where(higher == -float("inf"), 0, higher)
    return higher, tl.exp(top - higher)


@triton.jit
def _added(values, CLASSES: tl.constexpr, TILE: tl.constexpr, VECTOR: tl.constexpr, CHANNELS_LAST: tl.constexpr):
    """Sums over the voxels that one thread holds: VECTOR neighbours or, with channels last, VECTOR distant ones."""
    if CHANNELS_LAST:
        return tl.sum(tl.reshape(values, (CLASSES, VECTOR, TILE // VECTOR)), axis=1)
    return tl.sum(tl.reshape(values, (CLASSES, TILE // VECTOR, VECTOR)), axis=2)


@triton.jit(do_not_specialize=["groups", "ignore_index"])
def sums(
    logits, labels, ce_weight, work, voxels, groups, lb, lc, lv, yb, yv, ignore_index,
    SQUARED: tl.constexpr, WITH_CE: tl.constexpr, REAL: tl.constexpr, CHANNELS_LAST: tl.constexpr,
    PRECISION: tl.constexpr, CLASSES: tl.constexpr, TILE: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """Grid: items * groups. A program takes every groups-th tile of its item, with many classes only one."""
    CHUNKS: tl.constexpr = (REAL + CLASSES - 1) // CLASSES
    HELD: tl.constexpr = TILE // VECTOR
    program, programs = tl.program_id(0), tl.num_programs(0)
    item, group = (program // groups).to(tl.int64), (program % groups).to(tl.int64)
    logits += item * lb
    labels += item * yb
    classes = tl.arange(0, CLASSES)
    intersection = tl.zeros((CLASSES, HELD), PRECISION)
    prediction = tl.zeros((CLASSES, HELD), PRECISION)
    target = tl.zeros((CLASSES, HELD), PRECISION)
    likelihood = tl.zeros((TILE,), PRECISION)
    wrong = tl.full((TILE,), -float("inf"), PRECISION)
    for start in range(group * TILE, voxels, groups * TILE):
        v = tl.multiple_of(start + tl.arange(0, TILE), VECTOR)
        y, counts = _labels(labels, v, voxels, yv, ignore_index)
        y = y.to(PRECISION)
        top = tl.full((TILE,), -float("inf"), PRECISION)
        total = tl.zeros((TILE,), PRECISION)
        for chunk in range(CHUNKS):
            c = chunk * CLASSES + classes
            x = _logits(logits, v, c, voxels, lc, lv, REAL, CHANNELS_LAST, PRECISION, CLASSES)
            higher, shrunk = _grown(top, x)
            total = total * shrunk + tl.sum(tl.exp(x - higher[None, :]), axis=0)
            top = higher
        share = tl.where(counts, 1 / total, 0)
        log_total = top + tl.log(total)
        for chunk in range(CHUNKS):
            c = chunk * CLASSES + classes
            x = _logits(logits, v, c, voxels, lc, lv, REAL, CHANNELS_LAST, PRECISION, CLASSES)
            # Voxels that do not count have p = 0 even if their logits are NaN.
            p = tl.where(counts[None, :], tl.exp(x - top[None, :]) * share[None, :], 0)
            # A label with a fraction, out of range or NaN equals no class. The comparison of x, true unless it is NaN,
            # keeps the compiler from laying this out apart from x and exchanging it between threads.
            at_label = (y[None, :] == c[:, None].to(PRECISION)) & counts[None, :] & (x <= float("inf"))
            if WITH_CE:
                factor = tl.load(ce_weight + c, mask=c < REAL, other=0).to(PRECISION)
                log_p = tl.where(at_label & (factor > 0)[:, None], x - log_total[None, :], 0)
                likelihood += tl.sum(log_p * factor[:, None], axis=0)
            here = _added(tl.where(at_label, p, 0), CLASSES, TILE, VECTOR, CHANNELS_LAST)
            there = _added(p * p if SQUARED else p, CLASSES, TILE, VECTOR, CHANNELS_LAST)
            given = _added(tl.where(at_label, 1.0, 0.0).to(PRECISION), CLASSES, TILE, VECTOR, CHANNELS_LAST)
            if CHUNKS == 1:
                intersection += here
                prediction += there
                target += given
            else:
                place = work + c.to(tl.int64) * programs + program
                tl.store(place, tl.sum(here, axis=1), mask=c < REAL)
                tl.store(place + REAL * programs, tl.sum(there, axis=1), mask=c < REAL)
                tl.store(place + 2 * REAL * programs, tl.sum(given, axis=1), mask=c < REAL)
        known = (y >= 0) & (y < REAL) & (tl.floor(y) == y)
        shown = tl.where(tl.abs(y) < float("inf"), y, float("inf"))
        wrong = tl.maximum(wrong, tl.where(counts & (known == 0), shown, -float("inf")))
    place = work + classes * programs + program
    if CHUNKS == 1:
        tl.store(place, tl.sum(intersection, axis=1), mask=classes < REAL)
        tl.store(place + REAL * programs, tl.sum(prediction, axis=1), mask=classes < REAL)
        tl.store(place + 2 * REAL * programs, tl.sum(target, axis=1), mask=classes < REAL)
    tl.store(work + 3 * REAL * programs + program, tl.sum(likelihood, axis=0))
    tl.store(work + (3 * REAL + 1) * programs + program, tl.max(wrong, axis=0))


@triton.jit
def _dice_terms(intersection, prediction, target, weight, smooth_nr, smooth_dr, JACCARD: tl.constexpr):
    """Each class's term and its slopes by intersection and by prediction; 0 where its weight is 0."""
    numerator, denominator = 2 * intersection + smooth_nr, prediction + target
    if JACCARD:
        denominator = 2 * (denominator - intersection)
    denominator += smooth_dr
    by_prediction = weight * numerator / (denominator * denominator)
    by_intersection = -2 * weight / denominator
    if JACCARD:
        by_prediction *= 2
        by_intersection -= by_prediction
    term = tl.where(weight > 0, weight * (1 - numerator / denominator), 0)
    return term, tl.where(weight > 0, by_intersection, 0), tl.where(weight > 0, by_prediction, 0)


@triton.jit(do_not_specialize=["rows", "span", "number"])
def finish(
    work, dice_weight, ce_weight, constants, loss, slopes, mailbox, rows, span, number,
    JACCARD: tl.constexpr, TERMS: tl.constexpr, MEAN: tl.constexpr, WITH_CE: tl.constexpr,
    REAL: tl.constexpr, CLASSES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Loss, or terms (rows, C), and slopes (rows, 3, C), of `span` programs a row. One program.

    Wrong labels make the loss NaN and the slopes 0, and are written to `mailbox`, two float64 in the host's memory: the
    greatest wrong label and the number of classes. So the host learns of them without waiting.
    """
    programs = rows * span
    c = tl.arange(0, CLASSES)
    real = c < REAL
    entry = c[:, None].to(tl.int64) * programs
    lambda_ce, smooth_nr, smooth_dr = tl.load(constants), tl.load(constants + 1), tl.load(constants + 2)
    wrong = tl.full((CLASSES, WIDTH), -float("inf"), tl.float64)
    likelihood = tl.zeros((CLASSES, WIDTH), tl.float64)
    spread = c[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    for start in range(0, programs, CLASSES * WIDTH):
        place = work + 3 * REAL * programs.to(tl.int64) + start + spread
        there = start + spread < programs
        likelihood += tl.load(place, mask=there, other=0).to(tl.float64)
        wrong = tl.maximum(wrong, tl.load(place + programs, mask=there, other=-float("inf")).to(tl.float64))
    worst = tl.max(tl.max(wrong, axis=1), axis=0)
    good = worst == -float("inf")
    if mailbox is not None:
        tl.store(mailbox + 1, REAL, mask=worst > -float("inf"))
        tl.store(mailbox, worst, mask=worst > -float("inf"))
    weight = tl.load(dice_weight + c, mask=real, other=0) / number
    all_target = tl.zeros((CLASSES,), tl.float64)
    total = tl.zeros((), tl.float64)
    for row in range(rows):
        intersection = tl.zeros((CLASSES, WIDTH), tl.float64)
        prediction = tl.zeros((CLASSES, WIDTH), tl.float64)
        target = tl.zeros((CLASSES, WIDTH), tl.float64)
        for start in range(0, span, WIDTH):
            g = start + tl.arange(0, WIDTH)
            place = work + entry + (row * span + g)[None, :]
            there = real[:, None] & (g < span)[None, :]
            intersection += tl.load(place, mask=there, other=0).to(tl.float64)
            prediction += tl.load(place + REAL * programs.to(tl.int64), mask=there, other=0).to(tl.float64)
            target += tl.load(place + 2 * REAL * programs.to(tl.int64), mask=there, other=0).to(tl.float64)
        given = tl.sum(target, axis=1)
        term, by_intersection, by_prediction = _dice_terms(
            tl.sum(intersection, axis=1), tl.sum(prediction, axis=1), given, weight, smooth_nr, smooth_dr, JACCARD
        )
        all_target += given
        total += tl.sum(term, axis=0)
        slope = slopes + row * 3 * REAL + c
        tl.store(slope, tl.where(good, by_intersection, 0), mask=real)
        tl.store(slope + REAL, tl.where(good, by_prediction, 0), mask=real)
        if TERMS:
            tl.store(loss + row * REAL + c, tl.where(good, term, float("nan")), mask=real)
    ce_slope = tl.zeros((CLASSES,), tl.float64)
    if WITH_CE:
        factor = tl.load(ce_weight + c, mask=real, other=0)
        whole = tl.sum(factor * all_target, axis=0) if MEAN else 1.0
        scale = tl.where(whole > 0, lambda_ce / whole, 0)
        ce_slope += scale * factor
        # Without cross-entropy in the sum an infinite likelihood does not matter.
        total -= tl.where(scale > 0, scale * tl.sum(tl.sum(likelihood, axis=1), axis=0), 0)
    for row in range(rows):
        tl.store(slopes + (row * 3 + 2) * REAL + c, tl.where(good, ce_slope, 0), mask=real)
    if not TERMS:
        tl.store(loss, tl.where(good, total, float("nan")))


@triton.jit(do_not_specialize=["tiles", "grad_row", "ignore_index"])
def gradient(
    grad, logits, labels, slopes, result, voxels, tiles, lb, lc, lv, yb, yv, gb, gc, gv,
    row_stride, grad_row, grad_class, ignore_index, SQUARED: tl.constexpr, REAL: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, PRECISION: tl.constexpr, CLASSES: tl.constexpr, TILE: tl.constexpr,
    VECTOR: tl.constexpr,
):  # fmt: skip
    """result: like the logits (B, C, voxels). Grid: items * tiles."""
    CHUNKS: tl.constexpr = (REAL + CLASSES - 1) // CLASSES
    item, tile = (tl.program_id(0) // tiles).to(tl.int64), (tl.program_id(0) % tiles).to(tl.int64)
    logits += item * lb
    labels += item * yb
    slopes += item * row_stride
    grad += item * grad_row
    result += item * gb
    classes = tl.arange(0, CLASSES)
    v = tl.multiple_of(tile * TILE + tl.arange(0, TILE), VECTOR)
    y, counts = _labels(labels, v, voxels, yv, ignore_index)
    y = y.to(PRECISION)
    top = tl.full((TILE,), -float("inf"), PRECISION)
    total = tl.zeros((TILE,), PRECISION)
    pull = tl.zeros((TILE,), PRECISION)  # sum of e_j (by_prediction_j + by_intersection_j at the label)
    pull_squared = tl.zeros((TILE,), PRECISION)  # sum of e_j^2 by_prediction_j
    ce_here = tl.zeros((TILE,), PRECISION)
    for chunk in range(CHUNKS):
        c = chunk * CLASSES + classes
        x = _logits(logits, v, c, voxels, lc, lv, REAL, CHANNELS_LAST, PRECISION, CLASSES)
        upstream = tl.load(grad + c * grad_class, mask=c < REAL, other=0).to(PRECISION)
        by_intersection = upstream * tl.load(slopes + c, mask=c < REAL, other=0)
        by_prediction = upstream * tl.load(slopes + REAL + c, mask=c < REAL, other=0)
        ce = upstream * tl.load(slopes + 2 * REAL + c, mask=c < REAL, other=0)
        at_label = y[None, :] == c[:, None].to(PRECISION)
        higher, shrunk = _grown(top, x)
        e = tl.exp(x - higher[None, :])
        total = total * shrunk + tl.sum(e, axis=0)
        q = tl.where(at_label, by_intersection[:, None], 0)
        if SQUARED:
            pull_squared = pull_squared * shrunk * shrunk + tl.sum(e * e * by_prediction[:, None], axis=0)
        else:
            q += by_prediction[:, None]
        pull = pull * shrunk + tl.sum(e * q, axis=0)
        ce_here += tl.sum(tl.where(at_label, ce[:, None], 0), axis=0)
        top = higher
    share = 1 / total
    rest = ce_here - pull * share - 2 * pull_squared * share * share
    for chunk in range(CHUNKS):
        c = chunk * CLASSES + classes
        x = _logits(logits, v, c, voxels, lc, lv, REAL, CHANNELS_LAST, PRECISION, CLASSES)
        upstream = tl.load(grad + c * grad_class, mask=c < REAL, other=0).to(PRECISION)
        by_intersection = upstream * tl.load(slopes + c, mask=c < REAL, other=0)
        by_prediction = upstream * tl.load(slopes + REAL + c, mask=c < REAL, other=0)
        ce = upstream * tl.load(slopes + 2 * REAL + c, mask=c < REAL, other=0)
        at_label = y[None, :] == c[:, None].to(PRECISION)
        p = tl.exp(x - top[None, :]) * share[None, :]
        q = 2 * p * by_prediction[:, None] if SQUARED else by_prediction[:, None]
        q += tl.where(at_label, by_intersection[:, None], 0)
        slope = p * (q + rest[None, :]) - tl.where(at_label, ce[:, None], 0)
        slope = tl.where(counts[None, :], slope, 0)
        place = v[None, :] * REAL + c[:, None] if CHANNELS_LAST else c[:, None].to(tl.int64) * gc + v[None, :] * gv
        tl.store(result + place, slope, mask=(c < REAL)[:, None] & (v < voxels)[None, :])
