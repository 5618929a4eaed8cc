"""custom.networks.FFTConv3d against torch.nn.Conv3d(padding="same") and the FFT alone, in one process.

    python scripts/benchmarks/fft_conv.py [--kernels 3 5 10 25] [--size 51 55 65] [--repeats 3] [--backward]

Forward, and with --backward forward and backward, on noise in float32; the ways take turns. Prints seconds (median,
least, greatest), how many times faster the FFT is, which way FFTConv3d would choose, and relative differences of the
output and both gradients, in float32 against direct float32, and in float64 on a crop.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn.functional import conv3d

from custom.networks.fft_conv3d import fft_conv3d, fft_pays

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WAYS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "direct": lambda x, w: conv3d(x, w, padding="same"),
    "fft": fft_conv3d,
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--kernels", type=int, nargs="+", default=[3, 5, 10, 25])
    arguments.add_argument("--channels", type=int, nargs=2, default=[8, 16])
    arguments.add_argument("--size", type=int, nargs=3, default=[51, 55, 65])
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--backward", action="store_true")
    options = arguments.parse_args()
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}, torch {torch.__version__}, {options.channels} channels, {options.size} voxels, float32,", end=" ")
    print("forward and backward" if options.backward else "forward")
    for kernel in options.kernels:
        x, w = inputs(options.channels, options.size, kernel, torch.float32)
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        last: dict[str, list[torch.Tensor]] = {}
        for turn in range(options.repeats + 1):  # the first one warms up
            for way, convolve in WAYS.items():
                seconds, results = step(convolve, x, w, options.backward)
                if turn:
                    times[way].append(seconds)
                last[way] = results
        ratios = [a / b for a, b in zip(times["direct"], times["fft"], strict=True)]
        chosen = "fft" if fft_pays(x.shape, w.shape) else "direct"
        error = max(difference(a, b) for a, b in zip(last["fft"], last["direct"], strict=True))
        small = [max(1, n // 3) for n in options.size]
        exact = [step(way, *inputs([2, 3], small, kernel, torch.float64), True)[1] for way in WAYS.values()]
        error64 = max(difference(b, a) for a, b in zip(*exact, strict=True))
        spread = " | ".join(f"{statistics.median(t):.3f} ({min(t):.3f}, {max(t):.3f})" for t in times.values())
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f})"
        print(f"| {kernel} | {spread} | {ratio} | {chosen} | {error:.0e} | {error64:.0e} |", flush=True)


def inputs(channels: list[int], size: list[int], kernel: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, channels[0], *size, generator=draw, dtype=dtype)
    w = torch.randn(channels[1], channels[0], *[kernel] * 3, generator=draw, dtype=dtype)
    return x.to(DEVICE).requires_grad_(), w.to(DEVICE).requires_grad_()


def step(
    convolve: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], x: torch.Tensor, w: torch.Tensor, backward: bool
) -> tuple[float, list[torch.Tensor]]:
    start = time.perf_counter()
    with torch.set_grad_enabled(backward):
        results = [convolve(x, w)]
        if backward:
            results += torch.autograd.grad(results[0].square().mean(), [x, w])
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, results


def difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


if __name__ == "__main__":
    main()
