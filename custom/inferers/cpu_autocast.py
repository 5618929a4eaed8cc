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
    """Runs another inferer, with the network in bfloat16 where its input is on the CPU; results are float32.

    On other devices, with `amp` off, and on a CPU that doesn't compute in bfloat16 (without AVX-512 torch imitates it,
    a hundred times slower), it changes nothing. It stays in float32 too where a gradient is wanted and a
    convolution meets fewer voxels along an axis than its kernel has: there the bfloat16 gradient of torch 2.13
    (oneDNN, AVX-512) reads memory that was never written, and is NaN or, worse, merely wrong.

    Args:
        inferer: the inferer that does the work; SimpleInferer by default.
        amp: use bfloat16.
    """

    def __init__(self, inferer: Inferer | None = None, amp: bool = True) -> None:
        super().__init__()
        self.inferer = inferer or SimpleInferer()
        self.amp = amp and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        self.gradient_is_sound: dict[torch.Size, bool] = {}

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> Any:
        if (
            not self.amp
            or inputs.device.type != "cpu"
            or (torch.is_grad_enabled() and not self._sound(inputs, network))
        ):
            return self.inferer(inputs, network, *args, **kwargs)

        def in_bfloat16(*args: Any, **kwargs: Any) -> Any:
            with torch.autocast("cpu", torch.bfloat16):
                output = network(*args, **kwargs)
            if isinstance(output, tuple):  # in training some networks give two
                return tuple(one.float() for one in output)
            return output.float()  # windows are stitched in float32

        return self.inferer(inputs, in_bfloat16, *args, **kwargs)

    def _sound(self, inputs: torch.Tensor, network: Any) -> bool:
        shape = inputs.shape
        if shape not in self.gradient_is_sound:
            self.gradient_is_sound[shape] = not meets_few_voxels(network, inputs)
            if not self.gradient_is_sound[shape]:
                logger.warning(
                    "Sub-volumes of %s are too small to train in bfloat16: float32 is used.", tuple(shape[2:])
                )
        return self.gradient_is_sound[shape]


def meets_few_voxels(network: nn.Module, inputs: torch.Tensor) -> bool:
    """Whether one of a network's convolutions meets an input that is smaller along an axis than its kernel."""
    met = convolutions(network, inputs[:1])
    return any(side < size for one in met for side, size in zip(one.entering, one.kernel, strict=True))
