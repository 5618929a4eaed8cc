"""Our Dice losses against MONAI's, MONAI's under torch.compile, and nnU-Net's memory-efficient form, in one process.

    python scripts/benchmarks/dice_loss.py [--device cpu|cuda] [--case 4|8|3] [--dtype float32|bfloat16]
        [--layout channels_first|channels_last] [--repeats 15]

Forward and backward on random logits and uint8 labels: 2x4x128x128x64, 1x8x160x160x128 and 64x3x64x64x1. The
contenders take turns, so each ratio compares neighbours in time. Prints milliseconds (median, least, greatest), how
many times faster and how much of the peak memory of eager MONAI, and the relative L2 error of the gradient against
MONAI's in float64. Memory is what is allocated at most beyond the logits and labels: the allocator's own count on
CUDA, the profiler's on the CPU. torch.compile needs a C++ compiler on the CPU and is left out where it fails, with a
line. On CUDA also the share of the copy bandwidth that our bytes reach: what must be read twice and written once.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import statistics
import time
from collections.abc import Callable

import torch
from monai.losses import DiceCELoss, DiceLoss
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile

from custom.losses import MultiClassDiceCELoss, MultiClassDiceLoss

CASES = {4: (2, 4, 128, 128, 64), 8: (1, 8, 160, 160, 128), 3: (64, 3, 64, 64, 1)}  # the last: many small items
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def nnunet_dice(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The idea of nnU-Net's memory-efficient Dice: the one-hot is boolean, and the target's sum needs no gradient."""
    p, axes = logits.softmax(1), (0, *range(2, logits.ndim))
    with torch.no_grad():
        one_hot = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device).scatter_(1, labels.long(), True)
        target = one_hot.sum(axes)
    intersection, prediction = (p * one_hot).sum(axes), p.sum(axes)
    return 1 - ((2 * intersection + 1e-5) / (target + prediction + 1e-5)).mean()


def nnunet_dice_ce(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return nnunet_dice(logits, labels) + cross_entropy(logits, labels[:, 0].long())


def contenders(kind: str) -> dict[str, Loss]:
    monai = (DiceLoss if kind == "Dice" else DiceCELoss)(softmax=True, to_onehot_y=True, batch=True)
    ours = (MultiClassDiceLoss if kind == "Dice" else MultiClassDiceCELoss)(batch=True)
    return {
        f"MONAI {type(monai).__name__}": monai,
        "the same, torch.compile": torch.compile(monai),
        "as nnU-Net's": nnunet_dice if kind == "Dice" else nnunet_dice_ce,
        f"ours, {type(ours).__name__}": ours,
    }


def step(loss: Loss, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    logits.grad = None
    value = loss(logits, labels)
    value.backward()
    return value


def seconds(loss: Loss, logits: torch.Tensor, labels: torch.Tensor) -> float:
    synchronize = torch.cuda.synchronize if logits.is_cuda else lambda: None
    synchronize()
    start = time.perf_counter()
    step(loss, logits, labels)
    synchronize()
    return time.perf_counter() - start


def peak_bytes(loss: Loss, logits: torch.Tensor, labels: torch.Tensor) -> int:
    logits.grad = None
    if logits.is_cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(loss, logits, labels)
        return int(torch.cuda.max_memory_allocated() - before)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step(loss, logits, labels)
    held = greatest = 0
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        greatest = max(greatest, held)
    return greatest


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second, read and written, of a device-to-device copy of 1 GB."""
    source = torch.empty(2**28, device=device)
    target, times = torch.empty_like(source), []
    for _ in range(20):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        target.copy_(source)
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return 2 * source.nbytes / statistics.median(times)


def benchmark(kind: str, shape: tuple[int, ...], options: argparse.Namespace) -> None:
    device, dtype, repeats = torch.device(options.device), getattr(torch, options.dtype), options.repeats
    memory_format = torch.channels_last_3d if options.layout == "channels_last" else torch.contiguous_format
    torch.manual_seed(0)
    labels = torch.randint(0, shape[1], (shape[0], 1, *shape[2:]), dtype=torch.uint8, device=device)
    logits = (2 * torch.randn(shape, device=device)).to(dtype, memory_format=memory_format).requires_grad_()
    exact = logits.detach().double().requires_grad_()
    losses = contenders(kind)
    reference, *_ = losses
    step(losses[reference], exact, labels)
    times: dict[str, list[float]] = {}
    memory, error = {}, {}
    for name, loss in list(losses.items()):
        try:
            for _ in range(3):
                step(loss, logits, labels)
        except Exception as problem:
            print(f"left out: {name}: {str(problem).strip().splitlines()[0]}")
            del losses[name]
            continue
        assert logits.grad is not None
        assert exact.grad is not None
        error[name] = ((logits.grad.double() - exact.grad).norm() / exact.grad.norm()).item()
        memory[name] = peak_bytes(loss, logits, labels)
        times[name] = []
    del exact
    for _ in range(repeats):
        for name, loss in losses.items():
            times[name].append(seconds(loss, logits, labels))
    sizes = "x".join(str(size) for size in shape)
    print(f"\n{kind}, {sizes}, {options.dtype}, {options.layout}, n = {repeats}")
    print("| | ms | times faster | of the memory | gradient's error |\n|---|---|---|---|---|")
    for name, own in times.items():
        ratios = [theirs / mine for theirs, mine in zip(times[reference], own, strict=True)]
        share = memory[name] / memory[reference]
        print(f"| {name} | {_spread([1e3 * t for t in own])} | {_spread(ratios)} | {share:.2f} | {error[name]:.1e} |")
    if device.type == "cuda":
        moved = 3 * logits.nbytes + 2 * labels.nbytes
        share = moved / statistics.median(times[list(times)[-1]]) / copy_bandwidth(device)
        print(f"ours moves {moved / labels.numel():.0f} bytes a voxel, at {100 * share:.0f}% of the copy bandwidth")


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}, {max(values):.2f})"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments.add_argument("--case", type=int, choices=CASES, action="append")
    arguments.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    arguments.add_argument("--layout", choices=("channels_first", "channels_last"), default="channels_first")
    arguments.add_argument("--repeats", type=int, default=15)
    options = arguments.parse_args()
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {platform.machine()}, {name}, {datetime.date.today()}")
    for case in options.case or CASES:
        for kind in ("Dice", "Dice and cross-entropy"):
            benchmark(kind, CASES[case], options)


if __name__ == "__main__":
    main()
