"""bfloat16 on the CPU: MONAI's engines enter autocast on CUDA only."""

from __future__ import annotations

import copy
import logging
from typing import Any, cast

import torch
from monai.inferers import Inferer, SimpleInferer
from torch import nn

logger = logging.getLogger(__name__)


class CPUAutocastInferer(Inferer):
    """Runs another inferer, with the network in bfloat16 where its input is on the CPU; results are float32.

    On other devices, and with `amp` off, it changes nothing. It stays in float32 too where a gradient is wanted and a
    convolution meets fewer voxels along an axis than its kernel has: there the bfloat16 gradient of torch 2.13
    (oneDNN, AVX-512) reads memory that was never written, and is NaN or, worse, merely wrong.

    Args:
        inferer: the inferer that does the work; SimpleInferer by default.
        amp: use bfloat16.
    """

    def __init__(self, inferer: Inferer | None = None, amp: bool = True) -> None:
        super().__init__()
        self.inferer = inferer or SimpleInferer()
        self.amp = amp
        self.gradient_is_sound: dict[torch.Size, bool] = {}

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> Any:
        if (
            not self.amp
            or inputs.device.type != "cpu"
            or (torch.is_grad_enabled() and not self._sound(inputs, network))
        ):
            return self.inferer(inputs, network, *args, **kwargs)

        def in_bfloat16(*args: Any, **kwargs: Any) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return network(*args, **kwargs).float()  # windows are stitched in float32

        return self.inferer(inputs, in_bfloat16, *args, **kwargs)

    def _sound(self, inputs: torch.Tensor, network: Any) -> bool:
        shape = inputs.shape
        if shape not in self.gradient_is_sound:
            self.gradient_is_sound[shape] = not meets_few_voxels(getattr(network, "module", network), inputs)
            if not self.gradient_is_sound[shape]:
                logger.warning(
                    "Sub-volumes of %s are too small to train in bfloat16: float32 is used.", tuple(shape[2:])
                )
        return self.gradient_is_sound[shape]


def meets_few_voxels(network: nn.Module, inputs: torch.Tensor) -> bool:
    """Whether one of a network's convolutions meets an input that is smaller along an axis than its kernel."""
    found: list[bool] = []

    def look(layer: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        sides, kernel = args[0].shape[2:], cast(tuple, layer.kernel_size)
        found.append(any(side < size for side, size in zip(sides, kernel, strict=True)))

    twin = copy.deepcopy(network).eval()  # its statistics and hooks are thrown away
    for layer in twin.modules():
        if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
            layer.register_forward_pre_hook(look)
    with torch.no_grad():
        twin(inputs[:1])
    return any(found)
