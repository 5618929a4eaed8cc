"""bfloat16 on the CPU: MONAI's engines enter autocast on CUDA only."""

from __future__ import annotations

import logging
from typing import Any

import torch
from monai.inferers import Inferer, SimpleInferer
from torch import nn

from custom.inferers.probe import convolutions

logger = logging.getLogger(__name__)


class CPUAutocastInferer(Inferer):
    """Runs another inferer, with the network in bfloat16 if its input is on the CPU; results are float32.

    It changes nothing on other devices, with `amp` off, or on a CPU without bfloat16 (without AVX-512 torch emulates
    it, a hundred times slower). With gradients it also stays in float32 if the input of a convolution is smaller along
    an axis than its kernel: there the bfloat16 gradient of torch 2.13 (oneDNN, AVX-512) reads uninitialised memory, and
    is NaN or, worse, plausible but wrong.

    Args:
        inferer: the inferer that does the work; SimpleInferer by default.
        amp: use bfloat16.
    """

    def __init__(self, inferer: Inferer | None = None, amp: bool = True) -> None:
        super().__init__()
        self.inferer = inferer or SimpleInferer()
        self.amp = amp and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        self.has_sound_gradient: dict[torch.Size, bool] = {}

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> Any:
        """The other inferer's result for inputs (B, C, ...), in float32."""
        if (
            not self.amp
            or inputs.device.type != "cpu"
            or (torch.is_grad_enabled() and not self._has_sound_gradient(inputs, network))
        ):
            return self.inferer(inputs, network, *args, **kwargs)

        def in_bfloat16(*args: Any, **kwargs: Any) -> Any:
            with torch.autocast("cpu", torch.bfloat16):
                output = network(*args, **kwargs)
            if isinstance(output, tuple):  # in training some networks give two
                return tuple(tensor.float() for tensor in output)
            return output.float()  # windows are stitched in float32

        return self.inferer(inputs, in_bfloat16, *args, **kwargs)

    def _has_sound_gradient(self, inputs: torch.Tensor, network: Any) -> bool:
        shape = inputs.shape
        if shape not in self.has_sound_gradient:
            self.has_sound_gradient[shape] = not has_small_inputs(network, inputs)
            if not self.has_sound_gradient[shape]:
                logger.warning(
                    "Sub-volumes of %s are too small to train in bfloat16: float32 is used.", tuple(shape[2:])
                )
        return self.has_sound_gradient[shape]


def has_small_inputs(network: nn.Module, inputs: torch.Tensor) -> bool:
    """Whether the input of one of a network's convolutions is smaller along an axis than its kernel."""
    layers = convolutions(network, inputs[:1])
    return any(n < kernel for layer in layers for n, kernel in zip(layer.in_size, layer.kernel, strict=True))
