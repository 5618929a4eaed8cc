"""Whole volumes in one pass where they fit, else in windows; background is never computed."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer, SlidingWindowInferer
from monai.transforms import SpatialPad
from monai.transforms.utils import generate_spatial_bounding_box
from monai.utils import convert_to_dst_type
from torch import nn

from custom.inferers.cpu_autocast import CPUAutocastInferer
from custom.inferers.memory_fallback import first_that_fits
from custom.inferers.probe import convolutions

BACKGROUND_LOGIT = 10.0  # where there is only background, label 0 is certain


class ForegroundInferer(Inferer):
    """Runs a network on the bounding box of the foreground; all other voxels become background.

    The box is padded to a multiple of the network's stride and goes through in one pass if it has at most
    `one_pass_voxels`, the memory is enough, and the network takes any size. Else MONAI's SlidingWindowInferer runs
    windows of `roi_size`, weighted by a Gaussian; windows that hold background only are not computed. With a
    normalisation layer that takes statistics over the volume (instance normalisation), one pass and windows differ a
    little. Where a GPU's memory is not enough for windows either, a copy of the network runs them on the CPU. Warnings
    say so.

    Args:
        roi_size: the windows, in voxels.
        overlap: of neighbouring windows, 0 to below 1.
        one_pass_voxels: the largest box for one pass, as the memory allows; 0 for windows always.
        threshold: a voxel is background if no channel is above it. With 0, a voxel is background if all channels are
            exactly 0, as in skull-stripped scans whose z-scores keep 0.
        margin: added to the box on each side, in voxels.
        amp: bfloat16 on the CPU (MONAI's engines do it on CUDA).
        channels_last: lay the input out as torch.channels_last_3d.
        background_channel: the channel that means background; None without such a channel (sigmoids of regions).
        frame: the least size of one pass, in voxels. The box lies in its middle, with zeros around it. Use the frame of
            the training for a network that takes statistics over the volume.

    Shapes: (B, C, x, y, z) to logits (B, classes, x, y, z), float32.

    Raises:
        ValueError: an overlap out of range.
        DataError: the memory is not enough.
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        overlap: float = 0.25,
        one_pass_voxels: int = 8_000_000,
        threshold: float = 0.0,
        margin: int = 8,
        amp: bool = True,
        channels_last: bool = True,
        background_channel: int | None = 0,
        frame: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= overlap < 1:
            raise ValueError(f"overlap must be 0 to below 1, got {overlap!r}.")
        self.roi_size = tuple(roi_size)
        self.overlap = overlap
        self.one_pass_voxels = one_pass_voxels
        self.threshold = threshold
        self.margin = margin
        self.channels_last = channels_last
        self.background_channel = background_channel
        self.frame = tuple(frame or ())
        self.run = CPUAutocastInferer(amp=amp)
        self.strides: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Logits (B, classes, x, y, z) in float32 for inputs (B, C, x, y, z), with the affine of the inputs."""
        plain = inputs.as_tensor() if isinstance(inputs, MetaTensor) else torch.as_tensor(inputs)
        logits = torch.cat([self._infer_volume(volume[None], network, *args, **kwargs) for volume in plain])
        result: torch.Tensor = convert_to_dst_type(logits, inputs, dtype=logits.dtype)[0]
        return result

    def _infer_volume(self, volume: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Logits (1, classes, x, y, z) of one volume (1, C, x, y, z)."""
        start, end = generate_spatial_bounding_box(volume[0], self._is_head, margin=self.margin, allow_smaller=True)
        if not all(b > a for a, b in zip(start, end, strict=True)):  # only background: one voxel gives the classes
            start, end = [0] * volume[0, 0].ndim, [1] * volume[0, 0].ndim
        box: Any = (..., *(slice(a, b) for a, b in zip(start, end, strict=True)))
        crop = volume[box]
        stride = self._stride(network, crop) if crop[0, 0].numel() <= self.one_pass_voxels else 0

        def infer(window: torch.Tensor, network: Any = network) -> torch.Tensor:
            if self.channels_last and window.ndim == 5:
                window = window.contiguous(memory_format=torch.channels_last_3d)
            logits: torch.Tensor = self.run(window, network, *args, **kwargs)
            return logits.float()

        ways = [("in one pass", lambda: self._in_one_pass(crop, stride, infer))] if stride else []
        ways.append(("in windows", lambda: self._in_windows(crop, infer)))
        if crop.is_cuda and isinstance(network, nn.Module):
            ways.append(("in windows on the CPU", lambda: self._in_windows(crop.cpu(), _on_cpu(infer, network))))
        inside = first_that_fits(ways)
        result = inside.new_empty((1, inside.shape[1], *volume.shape[2:]))
        result[:] = self._certain_background(inside)
        result[box] = inside
        return result

    def _certain_background(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits of a background voxel, (1, classes, 1, 1, 1)."""
        values = logits.new_full((1, logits.shape[1], *[1] * (logits.ndim - 2)), -BACKGROUND_LOGIT)
        if self.background_channel is not None:
            values[:, self.background_channel] = BACKGROUND_LOGIT
        return values

    def _is_head(self, image: torch.Tensor) -> torch.Tensor:
        return image > self.threshold if self.threshold else image != 0

    def _stride(self, network: Any, crop: torch.Tensor) -> int:
        """The network's stride; 0 if one pass is impossible: the network takes only its own window, or is compiled."""
        if isinstance(network, torch.jit.ScriptModule) or not isinstance(network, nn.Module):
            return 0
        if network not in self.strides:
            try:
                self.strides[network] = network_stride(network, crop.shape[1], crop.ndim - 2)
            except (RuntimeError, ValueError):
                self.strides[network] = 0
        return self.strides[network]

    def _in_one_pass(
        self, crop: torch.Tensor, stride: int, infer: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Pads with zeros on both sides to multiples of the stride, infers, and cuts back."""
        size = crop.shape[2:]
        least = self.frame or size
        padded_size = [-(-max(n, m) // stride) * stride for n, m in zip(size, least, strict=True)]
        padded = torch.as_tensor(SpatialPad(padded_size)(crop[0])).as_subclass(torch.Tensor)[None]
        starts = [(padded_n - n) // 2 for padded_n, n in zip(padded.shape[2:], size, strict=True)]
        inside: Any = (..., *(slice(first, first + n) for first, n in zip(starts, size, strict=True)))
        return infer(padded)[inside]

    def _in_windows(self, crop: torch.Tensor, infer: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        background: torch.Tensor | None = None  # of one voxel; the first window gives the number of classes

        def infer_head(window: torch.Tensor) -> torch.Tensor:
            nonlocal background
            is_empty = not self._is_head(window).any()
            if not is_empty or background is None:
                logits = infer(window)
                background = self._certain_background(logits)
            if is_empty:  # a copy, since MONAI weighs windows in place
                return background.expand(-1, -1, *window.shape[2:]).clone()
            return logits

        windows = SlidingWindowInferer(self.roi_size, sw_batch_size=1, overlap=self.overlap, mode="gaussian")
        logits = windows(crop, infer_head)
        assert isinstance(logits, torch.Tensor)  # as infer_head gives one
        return logits


def _on_cpu(infer: Callable[..., torch.Tensor], network: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same with a copy of the network on the CPU; the network itself stays where it is."""
    return functools.partial(infer, network=copy.deepcopy(network).cpu())


def network_stride(network: nn.Module, in_channels: int, spatial_dims: int = 3, probe: int = 64) -> int:
    """The stride of a network: the input's size over that of its deepest layer, seen on a window of `probe` voxels."""
    window = torch.zeros(1, in_channels, *[probe] * spatial_dims, device=next(network.parameters()).device)
    return probe // min(layer.out_size[-1] for layer in convolutions(network, window))
