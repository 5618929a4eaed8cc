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
    "-> (Tensor loss, Tensor slopes)",
)
torch.library.define(
    BACKWARD,
    "(Tensor grad, Tensor logits, Tensor labels, Tensor slopes, bool squared_pred, int? ignore_index) -> Tensor",
)
torch.library.impl(FORWARD, "default")(dice_plain.forward)
torch.library.impl(BACKWARD, "default")(dice_plain.backward)

dice_and_ce = torch.ops.brain_mri_bundles.dice_and_ce
_backward = torch.ops.brain_mri_bundles.dice_and_ce_backward


def _forward_on_cuda(logits: torch.Tensor, *arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    if not _triton_works(logits.device):
        return dice_plain.forward(logits, *arguments)
    from custom.losses import dice_triton

    return dice_triton.forward(logits, *arguments, mailbox=wrong_labels_of_cuda.mailbox(logits.device))


def _backward_on_cuda(grad: torch.Tensor, logits: torch.Tensor, *arguments: Any) -> torch.Tensor:
    if not _triton_works(logits.device):
        return dice_plain.backward(grad, logits, *arguments)
    from custom.losses import dice_triton

    return dice_triton.backward(grad, logits, *arguments)


torch.library.impl(FORWARD, "cuda")(_forward_on_cuda)
torch.library.impl(BACKWARD, "cuda")(_backward_on_cuda)


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
def _forward_shapes(logits: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, torch.Tensor]:
    batch, reduction = rest[8], rest[9]
    rows, classes = 1 if batch else logits.shape[0], logits.shape[1]
    slopes = logits.new_empty((rows, 3, classes), dtype=dice_plain.precision(logits))
    return slopes.new_empty((rows, classes) if reduction == "none" else ()), slopes


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


class _Eager(torch.autograd.Function):
    """The operator without the Python that torch.library puts around it, which takes longer than the kernels."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, *arguments: Any) -> torch.Tensor:
        ctx.kept = None
        if logits.is_cuda:
            loss, slopes = _forward_on_cuda(logits, *arguments)
        else:
            ctx.kept = [] if ctx.needs_input_grad[0] else None
            loss, slopes = dice_plain.forward(logits, *arguments, kept=ctx.kept)
        ctx.save_for_backward(logits, arguments[0], slopes)
        ctx.squared_pred, ctx.ignore_index = arguments[6], arguments[10]
        return loss

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        arguments = (grad, *ctx.saved_tensors, ctx.squared_pred, ctx.ignore_index)
        if torch.is_grad_enabled():  # the operator refuses a second derivative with a sentence
            gradient = _backward(*arguments)
        elif grad.is_cuda:
            gradient = _backward_on_cuda(*arguments)
        else:
            kept, ctx.kept = ctx.kept, None
            gradient = dice_plain.backward(*arguments, kept=kept)
        return gradient, *[None] * 11


def dice_and_ce_loss(logits: torch.Tensor, labels: torch.Tensor, *arguments: Any) -> torch.Tensor:
    """The operator's loss, by way of the dispatcher only where something (the compiler, a subclass) needs it."""
    plain = type(logits) in (torch.Tensor, torch.nn.Parameter) and type(labels) is torch.Tensor
    if torch.compiler.is_compiling() or not plain or torch._C._are_functorch_transforms_active():
        loss: torch.Tensor = dice_and_ce(logits, labels, *arguments)[0]
    else:
        loss = _Eager.apply(logits, labels, *arguments)
    return loss


class _WrongLabels:
    """Reports wrong labels of a CUDA kernel without making any step wait for the device.

    Each device has two numbers in the host's memory to which its kernels write: the greatest wrong label and the number
    of classes. They write only where there was one, also when a CUDA graph replays them. Each later call looks.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mailboxes: dict[torch.device, torch.Tensor] = {}

    def mailbox(self, device: torch.device) -> torch.Tensor:
        """The two numbers of a device, -inf if there was no wrong label.

        Raises:
            ValueError: labels of an earlier call were no classes.
        """
        mailbox = self._mailboxes.get(device)
        if mailbox is None:
            with self._lock:
                empty = torch.full((2,), -torch.inf, dtype=torch.float64, pin_memory=True)
                mailbox = self._mailboxes.setdefault(device, empty)
        worst, classes = mailbox.tolist()
        if worst != -torch.inf and not torch.cuda.is_current_stream_capturing():
            mailbox.fill_(-torch.inf)
            raise ValueError(f"In an earlier call: {dice_plain.wrong_labels(int(classes), worst)}")
        return mailbox


wrong_labels_of_cuda = _WrongLabels()
