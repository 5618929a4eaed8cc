"""Whole volumes in one pass where they fit, in windows where they don't, and never where there is no head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from monai.data import MetaTensor
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers import Inferer
from monai.transforms.utils import generate_spatial_bounding_box
from monai.utils import convert_to_dst_type
from torch import nn
from torch.nn.functional import pad

from custom.inferers.cpu_autocast import CPUAutocastInferer
from custom.inferers.probe import convolutions

BACKGROUND_LOGIT = 10.0  # outside the head, label 0 is certain


class ForegroundInferer(Inferer):
    """Runs a network on the bounding box of what isn't background.

    The box is padded to what the network's strides need and goes through in one pass when it has at most
    `one_pass_voxels` and the network takes any size; else in windows of `roi_size`, weighted by a Gaussian, leaving
    out those that hold background only. Elsewhere the result says background. Where a normalisation layer takes
    statistics over the volume (instance normalisation), one pass and windows differ a little.

    Args:
        roi_size: the windows, in voxels.
        overlap: of neighbouring windows, 0 to below 1.
        one_pass_voxels: the largest box for one pass, as the memory allows; 0 for windows always.
        threshold: a voxel is background when no channel is above it. With 0, what is exactly 0 in all channels is
            background, as in skull-stripped scans whose z-scores keep it.
        margin: added to the box on each side, in voxels.
        amp: bfloat16 on the CPU (MONAI's engines do it on CUDA).
        channels_last: lay the input out as torch.channels_last_3d.
        background_channel: the channel that means background; None where none does (sigmoids of regions).
        frame: the least size of one pass. The box lies in its middle, with zeros around it, as a head does in the frame
            of a training whose network takes statistics over the volume.
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
        """Logits (B, classes, x, y, z) in float32 for inputs (B, C, x, y, z)."""
        plain = inputs.as_tensor() if isinstance(inputs, MetaTensor) else torch.as_tensor(inputs)
        logits = torch.cat([self._one(volume[None], network, *args, **kwargs) for volume in plain])
        return convert_to_dst_type(logits, inputs, dtype=logits.dtype)[0]  # with the affine of what came in

    def _one(self, volume: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        start, end = generate_spatial_bounding_box(volume[0], self._is_head, margin=self.margin, allow_smaller=True)
        if not all(b > a for a, b in zip(start, end, strict=True)):  # nothing but background: ask for the classes alone
            start, end = [0] * volume[0, 0].ndim, [1] * volume[0, 0].ndim
        box: Any = (..., *(slice(a, b) for a, b in zip(start, end, strict=True)))
        crop = volume[box]
        stride = self._stride(network, crop) if crop[0, 0].numel() <= self.one_pass_voxels else 0

        def infer(window: torch.Tensor) -> torch.Tensor:
            if self.channels_last and window.ndim == 5:
                window = window.contiguous(memory_format=torch.channels_last_3d)
            return self.run(window, network, *args, **kwargs).float()

        if stride:
            least = self.frame or crop.shape[2:]
            sizes = [-(-max(size, least) // stride) * stride for size, least in zip(crop.shape[2:], least, strict=True)]
            inside = _padded(crop, sizes, infer)
        else:
            inside = self._windows(crop, infer)
        result = inside.new_empty((1, inside.shape[1], *volume.shape[2:]))
        result[:] = self._certain_background(inside)
        result[box] = inside
        return result

    def _certain_background(self, logits: torch.Tensor) -> torch.Tensor:
        values = logits.new_full((1, logits.shape[1], *[1] * (logits.ndim - 2)), -BACKGROUND_LOGIT)
        if self.background_channel is not None:
            values[:, self.background_channel] = BACKGROUND_LOGIT
        return values

    def _is_head(self, image: torch.Tensor) -> torch.Tensor:
        return image > self.threshold if self.threshold else image != 0

    def _stride(self, network: Any, crop: torch.Tensor) -> int:
        """The network's stride; 0 where one pass won't do: it takes its own window only, or is compiled."""
        if isinstance(network, torch.jit.ScriptModule) or not isinstance(network, nn.Module):
            return 0
        if network not in self.strides:
            try:
                self.strides[network] = network_stride(network, crop.shape[1], crop.ndim - 2)
            except (RuntimeError, ValueError):
                self.strides[network] = 0
        return self.strides[network]

    def _windows(self, crop: torch.Tensor, infer: Any) -> torch.Tensor:
        sizes = [max(have, window) for have, window in zip(crop.shape[2:], self.roi_size, strict=True)]

        def over_windows(padded: torch.Tensor) -> torch.Tensor:
            steps = [max(1, int(window * (1 - self.overlap))) for window in self.roi_size]
            weight = compute_importance_map(self.roi_size, mode="gaussian", device=padded.device, dtype=torch.float32)
            slices = dense_patch_slices(padded.shape[2:], self.roi_size, steps)
            places = [place for place in slices if self._is_head(padded[(..., *place)]).any()] or slices[:1]
            first = infer(padded[(..., *places[0])])
            total = first.new_zeros((1, first.shape[1], *padded.shape[2:]))
            weights = torch.zeros(padded.shape[2:], device=padded.device)
            for index, place in enumerate(places):
                logits = infer(padded[(..., *place)]) if index else first
                total[(..., *place)] += logits * weight
                weights[place] += weight
            empty = weights == 0
            total /= weights.clamp_min(1e-6)
            return torch.where(empty, self._certain_background(total), total)

        return _padded(crop, sizes, over_windows)


def _padded(volume: torch.Tensor, sizes: Sequence[int], infer: Any) -> torch.Tensor:
    """Pads with zeros on both sides to at least `sizes`, infers, and cuts back."""
    extra = [max(0, size - have) for size, have in zip(sizes, volume.shape[2:], strict=True)]
    before = [n // 2 for n in extra]
    widths = [width for n, a in zip(reversed(extra), reversed(before), strict=True) for width in (a, n - a)]
    result = infer(pad(volume, widths))
    return result[(..., *(slice(a, a + n) for a, n in zip(before, volume.shape[2:], strict=True)))]


def network_stride(network: nn.Module, in_channels: int, spatial_dims: int = 3, probe: int = 64) -> int:
    """How many voxels of the input one voxel of a network's deepest layer stands for, seen on one window."""
    window = torch.zeros(1, in_channels, *[probe] * spatial_dims, device=next(network.parameters()).device)
    return probe // min(one.leaving[-1] for one in convolutions(network, window))
