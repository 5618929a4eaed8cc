"""Dice and cross-entropy on CUDA: allocates, chooses the sizes of the kernels and launches them.

Forward reads logits and labels once, with the softmax in registers, in two launches. Backward reads both once more,
makes the softmax again and writes the gradient, all that is made of the volume's size, in one launch.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
import triton.language as tl

from custom.losses import dice_kernels
from custom.losses.dice_plain import empty_gradient, precision

WARPS = 4  # of 32 threads, in a program
HELD = 16  # logits that one thread holds, or more: of up to HELD_CLASSES classes and at least 4 voxels
HELD_CLASSES = 8  # more would take more registers than leave room for several programs
PROGRAMS_PER_CORE = 6  # of a multiprocessor, in forward; each leaves a row of sums to add


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
    mailbox: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As dice_plain.forward, but wrong labels make the loss NaN and the slopes 0 instead of raising.

    Their greatest and the number of classes then go to `mailbox`, two float64 that the device can write to. Logits
    whose spatial axes do not merge (for instance a crop) are copied.
    """
    x, strides = _by_voxel(logits, 2)
    y, label_strides = _by_voxel(labels, 1)
    items, classes = logits.shape[:2]
    voxels = logits.numel() // (items * classes)
    kinds = _kinds(x, strides)
    tiles = triton.cdiv(voxels, kinds["TILE"])
    many = classes > kinds["CLASSES"]
    groups = tiles if many else min(tiles, max(1, PROGRAMS_PER_CORE * _cores(x.device) // items))
    rows, kind = 1 if batch else items, precision(logits)
    work = torch.empty((3 * classes + 2) * items * groups, dtype=kind, device=x.device)
    slopes = torch.empty((rows, 3, classes), dtype=kind, device=x.device)
    terms = reduction == "none"
    loss = torch.empty((rows, classes) if terms else (), dtype=kind, device=x.device)
    number = rows * (classes - (not include_background)) if reduction == "mean" else 1
    with _on(x.device):
        dice_kernels.sums[(items * groups,)](
            x, y, ce_weight, work, voxels, groups, *strides, *label_strides, ignore_index,
            SQUARED=squared_pred, WITH_CE=with_ce, num_warps=WARPS, **kinds,
        )  # fmt: skip
        dice_kernels.finish[(1,)](
            work, dice_weight, ce_weight, constants, loss, slopes, mailbox, rows, items * groups // rows, number,
            JACCARD=jaccard, TERMS=terms, MEAN=reduction == "mean", WITH_CE=with_ce, REAL=classes,
            CLASSES=triton.next_power_of_2(classes), WIDTH=width(classes), num_warps=8,
        )  # fmt: skip
    return loss, slopes


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
    x, strides = _by_voxel(logits, 2)
    y, label_strides = _by_voxel(labels, 1)
    g, gradient_strides = _by_voxel(gradient, 2)
    items, classes = logits.shape[:2]
    voxels = logits.numel() // (items * classes)
    kinds = _kinds(x, strides, gradient_strides)
    tiles = triton.cdiv(voxels, kinds["TILE"])
    grad_row, grad_class = (grad.stride(0) * (len(grad) > 1), grad.stride(1)) if grad.ndim else (0, 0)
    row_stride = 3 * classes if len(slopes) > 1 else 0
    with _on(x.device):
        dice_kernels.gradient[(items * tiles,)](
            grad, x, y, slopes, g, voxels, tiles, *strides, *label_strides, *gradient_strides, row_stride,
            grad_row, grad_class, ignore_index, SQUARED=squared_pred, num_warps=WARPS, **kinds,
        )  # fmt: skip
    return gradient


def _by_voxel(tensor: torch.Tensor, kept: int) -> tuple[torch.Tensor, tuple[int, ...]]:
    """The tensor, copied if its spatial axes do not merge, and the strides of its first `kept` axes and of voxels."""
    if not tensor.is_contiguous():
        tensor = tensor.flatten(2)
    strides = tensor.stride()
    return tensor, (*strides[:kept], strides[-1])


def sizes(classes: int, bytes_of_logit: int, channels_last: bool) -> dict[str, Any]:
    """What a program and a thread hold, as compile-time constants."""
    held = min(HELD_CLASSES, triton.next_power_of_2(classes))
    each = max(4, HELD // held)  # voxels of a thread: two-byte logits are read 8 bytes at a time
    return {
        "REAL": classes,
        "CHANNELS_LAST": channels_last,
        "CLASSES": held,
        "TILE": 32 * WARPS * each,
        "VECTOR": each if channels_last else min(each, 16 // bytes_of_logit),  # 16 bytes at a time
    }


def width(classes: int) -> int:
    """How many programs' sums `finish` adds at a time."""
    return max(1, 2048 // int(triton.next_power_of_2(classes)))


def _kinds(x: torch.Tensor, *strides: tuple[int, ...]) -> dict[str, Any]:
    """The compile-time constants for logits with these strides by item, class and voxel."""
    classes = x.shape[1]
    channels_last = all(by[1:] == (1, classes) for by in strides)
    precise = tl.float64 if x.dtype == torch.float64 else tl.float32
    return sizes(classes, x.element_size(), channels_last) | {"PRECISION": precise}


def _on(device: torch.device) -> AbstractContextManager:
    """Triton launches on the current device."""
    here = device.type != "cuda" or device.index == torch.cuda.current_device()
    return nullcontext() if here else torch.cuda.device(device)


@functools.cache
def _cores(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count) if device.type == "cuda" else 1
