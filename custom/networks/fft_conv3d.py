"""Convolutions with giant kernels, through the fast Fourier transform."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from scipy.fft import next_fast_len
from torch import nn
from torch.autograd.function import once_differentiable

# Multiplications of a direct convolution that take the time of one operation of the transforms, measured on a CPU with
# scripts/benchmarks/fft_conv.py.
DIRECT_IS_CHEAPER_BY = 8.0


class FFTConv3d(nn.Conv3d):
    """torch.nn.Conv3d with stride 1 and Keras's "same" padding, by FFT if that is faster.

    Of k - 1 padding voxels, (k - 1) // 2 lie before the image.

    It compares the operations of both ways: direct (voxels times kernel for each pair of channels), or transforms of
    images and kernels, products, and transforms back. Values and gradients agree up to rounding. Images in half
    precision, TorchScript and ONNX always use the direct way; under autocast the transforms are in float32.

    Args:
        in_channels: as Conv3d's.
        out_channels: as Conv3d's.
        kernel_size: odd or even; one number, or a number for each axis.
        bias: as Conv3d's.

    Shapes: (B, in_channels, H, W, D) to (B, out_channels, H, W, D).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int | Sequence[int], bias: bool = True
    ) -> None:
        x, y, z = (kernel_size,) * 3 if isinstance(kernel_size, int) else kernel_size
        super().__init__(in_channels, out_channels, (x, y, z), padding="same", bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W, D) to (B, out_channels, H, W, D)."""
        if not torch.jit.is_scripting():  # noqa: SIM102  TorchScript's compiler leaves the block out
            if _can_be_transformed(x) and fft_pays(x.shape, self.weight.shape):
                with torch.autocast(x.device.type, enabled=False):
                    result = fft_conv3d(x, self.weight.to(x.dtype))
                return result if self.bias is None else result + self.bias.reshape(-1, 1, 1, 1)
        direct: torch.Tensor = self._conv_forward(x, self.weight, self.bias)
        return direct


def _can_be_transformed(x: torch.Tensor) -> bool:
    if torch.compiler.is_exporting() or torch.jit.is_tracing() or torch.onnx.is_in_onnx_export():
        return False
    return x.dtype in (torch.float32, torch.float64) and x.device.type != "meta"


def fft_pays(image: Sequence[int], kernel: Sequence[int]) -> bool:
    """Whether the FFT has fewer operations: image (B, C, H, W, D), kernel (K, C, h, w, d)."""
    batch, in_channels, *size = image
    out_channels = kernel[0]
    taps, voxels, circle = math.prod(kernel[2:]), math.prod(size), math.prod(circular_size(size, kernel[2:]))
    pairs = in_channels * out_channels
    transforms = (batch * (in_channels + out_channels) + pairs) * 2.5 * circle * math.log2(circle)
    products = 4 * batch * pairs * circle
    return batch * pairs * voxels * taps > DIRECT_IS_CHEAPER_BY * (transforms + products)


def circular_size(size: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """The least lengths for which values that wrap around fall on zeros, rounded up to fast lengths.

    An axis of n voxels under k taps, `before` of them in front and `after` behind, needs n + max(before, after): both
    borders share one stretch of zeros. The kernel itself must fit too.
    """
    least = [max(k, n + k - 1 - (k - 1) // 2) for n, k in zip(size, kernel, strict=True)]
    return [next_fast_len(n, real=True) for n in least]


def fft_conv3d(image: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """The cross-correlation that torch.nn.functional.conv3d(image, kernel, padding="same") gives.

    Args:
        image: (B, C, H, W, D), float32 or float64.
        kernel: (K, C, h, w, d), the same dtype.

    Returns:
        (B, K, H, W, D). Differentiable once.
    """
    # MONAI's MetaTensors make no new tensors
    result: torch.Tensor = _FFTConv3d.apply(image.as_subclass(torch.Tensor), kernel)
    return result


class _FFTConv3d(torch.autograd.Function):
    """Forward and backward share the spectra of image and kernels. Output channels are computed one after the other, so
    that sums stay in the cache.

    With the image moved by `before` into a circle of zeros, out[i] = sum over t of kernel[t] image[i + t]: a product
    with the kernel's conjugate. Its adjoints are products too: with the kernel for the image's gradient, of the image
    with the output gradient's conjugate for the kernel's.
    """

    @staticmethod
    def forward(ctx: Any, image: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        size, taps = image.shape[2:], kernel.shape[2:]
        circle = circular_size(size, taps)
        before = [(k - 1) // 2 for k in taps]
        moved = nn.functional.pad(image, [n for b in reversed(before) for n in (b, 0)])
        of_image = torch.fft.rfftn(moved, s=circle, dim=(2, 3, 4))
        of_kernels = [torch.fft.rfftn(taps_of_output, s=circle, dim=(1, 2, 3)) for taps_of_output in kernel]
        ctx.save_for_backward(of_image, *of_kernels)
        ctx.sizes = size, taps, circle, before
        result = image.new_empty(len(image), len(kernel), *size)
        for out_channel, of_kernel in enumerate(of_kernels):
            total = torch.zeros_like(of_image[:, 0])
            for in_channel in range(len(of_kernel)):
                total.addcmul_(of_image[:, in_channel], of_kernel[in_channel].conj())
            result[:, out_channel] = _back(total, circle, [0, 0, 0], size)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        of_image, *of_kernels = ctx.saved_tensors
        size, taps, circle, before = ctx.sizes
        of_gradient = torch.fft.rfftn(gradient, s=circle, dim=(2, 3, 4))
        to_image = to_kernel = None
        if ctx.needs_input_grad[0]:
            total = torch.zeros_like(of_image)
            for out_channel, of_kernel in enumerate(of_kernels):
                for in_channel in range(len(of_kernel)):
                    total[:, in_channel].addcmul_(of_gradient[:, out_channel], of_kernel[in_channel])
            to_image = _back(total, circle, before, size)
        if ctx.needs_input_grad[1]:
            to_kernel = gradient.new_empty(len(of_kernels), of_image.shape[1], *taps)
            for out_channel in range(len(of_kernels)):
                product = (of_image * of_gradient[:, out_channel : out_channel + 1].conj()).sum(dim=0)
                to_kernel[out_channel] = _back(product, circle, [0, 0, 0], taps)
        return to_image, to_kernel


def _back(spectrum: torch.Tensor, circle: list[int], start: list[int], size: Sequence[int]) -> torch.Tensor:
    """Transforms a spectrum back to the part of the circle that begins at `start`, cut after each axis to save work."""
    for axis, (first, length) in enumerate(zip(start[:2], size[:2], strict=True)):
        dim = spectrum.ndim - 3 + axis
        spectrum = torch.fft.ifft(spectrum, dim=dim).narrow(dim, first, length)
    values: torch.Tensor = torch.fft.irfft(spectrum, n=circle[2], dim=-1)
    return values.narrow(-1, start[2], size[2])
