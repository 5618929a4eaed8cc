"""The operator of both Dice losses: its schema, its gradient, and its implementation for each device.

Registered with torch.library, so that torch.compile and autocast treat it as one operator. On CUDA the kernels of
dice_triton compute it if Triton works; on other devices, and without Triton, dice_plain does.
"""

from __future__ import annotations

import functools
import importlib.util
import threading
import warnings
from typing import Any

import torch

from custom.losses import dice_plain

FORWARD, BACKWARD = "brain_mri_bundles::dice_and_ce", "brain_mri_bundles::dice_and_ce_backward"

torch.library.define(
    FORWARD,
    "(Tensor logits, Tensor labels, Tensor dice_weight, Tensor ce_weight, Tensor constants, bool with_ce, "
    "bool include_background, bool squared_pred, bool jaccard, bool batch, str reduction, int? ignore_index) "
    "-> (Tensor loss, Tensor slopes, Tensor worst)",
)
torch.library.define(
    BACKWARD,
    "(Tensor grad, Tensor logits, Tensor labels, Tensor slopes, bool squared_pred, int? ignore_index) -> Tensor",
)
torch.library.impl(FORWARD, "default")(dice_plain.forward)
torch.library.impl(BACKWARD, "default")(dice_plain.backward)

dice_and_ce = torch.ops.brain_mri_bundles.dice_and_ce
_backward = torch.ops.brain_mri_bundles.dice_and_ce_backward


@torch.library.impl(FORWARD, "cuda")
def _forward_on_cuda(logits: torch.Tensor, *arguments: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    if not _triton_works(logits.device):
        return dice_plain.forward(logits, *arguments)
    from custom.losses import dice_triton

    wrong_labels_of_cuda.raise_if_any()
    loss, slopes, worst = dice_triton.forward(logits, *arguments)
    wrong_labels_of_cuda.watch(worst, logits.shape[1])
    return loss, slopes, worst


@torch.library.impl(BACKWARD, "cuda")
def _backward_on_cuda(grad: torch.Tensor, logits: torch.Tensor, *arguments: Any) -> torch.Tensor:
    if not _triton_works(logits.device):
        return dice_plain.backward(grad, logits, *arguments)
    from custom.losses import dice_triton

    return dice_triton.backward(grad, logits, *arguments)


@functools.cache
def _triton_works(device: torch.device) -> bool:
    """Whether Triton works: it comes with CUDA builds of torch on Linux, and needs a C compiler at its first kernel."""
    if importlib.util.find_spec("triton") is None:
        return False
    from custom.losses import dice_triton

    logits, labels = torch.zeros(1, 3, 2, device=device), torch.zeros(1, 1, 2, dtype=torch.uint8, device=device)
    weights, constants = torch.ones(2, 3, dtype=torch.float64, device=device).unbind(0)
    try:
        dice_triton.forward(logits, labels, weights, weights, constants, True, True, False, False, False, "mean", None)
    except Exception as error:
        warnings.warn(f"Triton does not work, so the Dice loss is slower: {error}", stacklevel=2)
        return False
    return True


@torch.library.register_fake(FORWARD)
def _forward_shapes(logits: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    batch, reduction = rest[8], rest[9]
    rows, classes = 1 if batch else logits.shape[0], logits.shape[1]
    slopes = logits.new_empty((rows, 3, classes), dtype=dice_plain.precision(logits))
    return slopes.new_empty((rows, classes) if reduction == "none" else ()), slopes, slopes.new_empty(1)


@torch.library.register_fake(BACKWARD)
def _backward_shape(_grad: torch.Tensor, logits: torch.Tensor, *_rest: Any) -> torch.Tensor:
    return dice_plain.empty_gradient(logits)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    logits, labels, *_, ignore_index = inputs
    ctx.save_for_backward(logits, labels, output[1])
    ctx.squared_pred, ctx.ignore_index = inputs[7], ignore_index


def _gradient(ctx: Any, grad: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
    logits, labels, slopes = ctx.saved_tensors
    return _backward(grad, logits, labels, slopes, ctx.squared_pred, ctx.ignore_index), *[None] * 11


def _no_second_gradient(ctx: Any, *_: Any) -> None:
    raise NotImplementedError(
        "The Dice losses can be differentiated only once. Use monai.losses.DiceLoss for second derivatives."
    )


torch.library.register_autograd(FORWARD, _gradient, setup_context=_keep)
torch.library.register_autograd(BACKWARD, _no_second_gradient)


class _WrongLabels:
    """Reports wrong labels of a CUDA kernel without making any step wait for the device.

    The kernel writes the greatest wrong label to one number. `watch` starts its copy to the host; `raise_if_any`, at
    each later call, looks at the copies that have arrived. CUDA graphs replay kernels only: with them, a loss of NaN is
    the only sign of wrong labels.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arriving: list[tuple[torch.cuda.Event, torch.Tensor, int]] = []

    def watch(self, worst: torch.Tensor, classes: int) -> None:
        """Starts the copy of `worst`, (1,), the greatest wrong label or -inf, to the host."""
        if torch.cuda.is_current_stream_capturing():
            return
        with torch.cuda.device(worst.device):
            copied = torch.empty(1, dtype=worst.dtype, pin_memory=True)
            copied.copy_(worst, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        with self._lock:
            self._arriving.append((event, copied, classes))

    def raise_if_any(self) -> None:
        """Looks at all copies that have arrived.

        Raises:
            ValueError: labels of an earlier call were no classes.
        """
        if torch.cuda.is_current_stream_capturing():
            return
        with self._lock:
            while self._arriving and self._arriving[0][0].query():
                _, copied, classes = self._arriving.pop(0)
                if copied.item() != -torch.inf:
                    self._arriving.clear()
                    raise ValueError(f"In an earlier call: {dice_plain.wrong_labels(classes, copied.item())}")


wrong_labels_of_cuda = _WrongLabels()
