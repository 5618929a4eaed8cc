"""Our Dice losses against MONAI's, MONAI's under torch.compile, nnU-Net's memory-efficient form, and exacta's.

    python scripts/benchmarks/dice_loss.py [--device cpu|cuda] [--case 4|8|3|33|133] [--dtype float32|bfloat16|float16]
       [--layout channels_first|channels_last] [--repeats 15] [--eager]

Forward and backward on random logits and uint8 labels: 2x4x128x128x64, 1x8x160x160x128, 64x3x64x64, and 33 and 133
classes of 64x64x48 voxels. Case, type and layout may be given several times; all cases but those of many classes are
the default. The contenders take turns in one process, so each ratio compares neighbours in time.

Prints milliseconds (median, least, greatest over the repeats), how many times faster than eager MONAI, the share of its
peak memory, and the relative L2 error of the gradient against MONAI's in float64. Memory is what is allocated at most
beyond logits and labels: the allocator's own count on CUDA, the profiler's on the CPU.

On CUDA, time is measured in three ways. Latency: one step, with a wait for the device before and after. Device: steps
queued behind a kernel that keeps the device busy until all of them are queued, so that the host does not matter. Host:
the time that queueing took. It prints also the time of a replayed CUDA graph of ours, and the share of the copy
bandwidth that ours reaches on the device, counting what must be read twice and written once.

torch.compile (fresh for each size, without dynamic shapes) needs a C++ compiler on the CPU; --eager leaves it out.
exacta takes part where it is installed. What fails is left out with a line.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import platform
import statistics
import time
from collections.abc import Callable

import torch
from monai.losses import DiceCELoss, DiceLoss
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile

from custom.losses import MultiClassDiceCELoss, MultiClassDiceLoss

CASES = {
    4: (2, 4, 128, 128, 64),
    8: (1, 8, 160, 160, 128),
    3: (64, 3, 64, 64),
    33: (1, 33, 64, 64, 48),
    133: (1, 133, 64, 64, 48),
}
USUAL_CASES = (4, 8, 3)
QUEUED = 8  # steps: their launches must fit into the device's queue
BUSY_CYCLES, BUSY = (
    100_000_000,
    0.05,
)  # how long the device is kept busy meanwhile, and seconds that this takes at least
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


def contenders(kind: str, compiled: bool) -> dict[str, Loss]:
    monai = (DiceLoss if kind == "Dice" else DiceCELoss)(softmax=True, to_onehot_y=True, batch=True)
    ours = (MultiClassDiceLoss if kind == "Dice" else MultiClassDiceCELoss)(batch=True)
    losses: dict[str, Loss] = {f"MONAI {type(monai).__name__}": monai}
    if compiled:
        torch._dynamo.reset()
        losses["the same, torch.compile"] = torch.compile(monai, dynamic=False)
    losses["as nnU-Net's"] = nnunet_dice if kind == "Dice" else nnunet_dice_ce
    if importlib.util.find_spec("exacta"):
        from exacta import losses as exacta  # type: ignore[import-not-found, unused-ignore]

        fused = (exacta.DiceLoss if kind == "Dice" else exacta.DiceCELoss)(batch_dice=True)
        losses["exacta"] = lambda logits, labels: fused(logits, labels[:, 0])
    return losses | {f"ours, {type(ours).__name__}": ours}


def step(loss: Loss, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    logits.grad = None
    value = loss(logits, labels)
    value.backward()
    return value


def latency(loss: Loss, logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Seconds of one step."""
    synchronize = torch.cuda.synchronize if logits.is_cuda else lambda: None
    synchronize()
    start = time.perf_counter()
    step(loss, logits, labels)
    synchronize()
    return time.perf_counter() - start


def queued(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the device and of the host for one of several steps that the device gets at once."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    torch.cuda._sleep(BUSY_CYCLES)
    start = time.perf_counter()
    begin.record()
    for _ in range(QUEUED):
        run()
    end.record()
    host = time.perf_counter() - start
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3 / QUEUED, host / QUEUED


def graph_seconds(loss: Loss, logits: torch.Tensor, labels: torch.Tensor, repeats: int) -> list[float]:
    """Of a replayed CUDA graph of one step."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(loss, logits, labels)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(loss, logits, labels)
    return [queued(graph.replay)[0] for _ in range(repeats)]


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
    target = torch.empty_like(source)
    return 2 * source.nbytes / statistics.median(queued(lambda: target.copy_(source))[0] for _ in range(5))


def inputs(case: int, dtype: str, layout: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    shape = CASES[case]
    last = torch.channels_last_3d if len(shape) == 5 else torch.channels_last
    torch.manual_seed(0)
    labels = torch.randint(0, shape[1], (shape[0], 1, *shape[2:]), dtype=torch.uint8, device=device)
    memory_format = last if layout == "channels_last" else torch.contiguous_format
    logits = (2 * torch.randn(shape, device=device)).to(getattr(torch, dtype), memory_format=memory_format)
    return logits.requires_grad_(), labels


def benchmark(kind: str, case: int, dtype: str, layout: str, options: argparse.Namespace) -> None:
    device, repeats = torch.device(options.device), options.repeats
    logits, labels = inputs(case, dtype, layout, device)
    exact = logits.detach().double().requires_grad_()
    losses = contenders(kind, not options.eager)
    reference, *_ = losses
    step(losses[reference], exact, labels)
    assert exact.grad is not None
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
        error[name] = ((logits.grad.double() - exact.grad).norm() / exact.grad.norm()).item()
        memory[name] = peak_bytes(loss, logits, labels)
    del exact
    times: dict[str, dict[str, list[float]]] = {name: {"latency": [], "device": [], "host": []} for name in losses}
    for _ in range(repeats):
        for name, loss in losses.items():
            times[name]["latency"].append(latency(loss, logits, labels))
    for _ in range(repeats if device.type == "cuda" else 0):
        for name, loss in losses.items():
            on_device, on_host = queued(lambda loss=loss: step(loss, logits, labels))  # type: ignore[misc]
            times[name]["device"].append(on_device)
            times[name]["host"].append(on_host)
    print(f"\n{kind}, {'x'.join(map(str, CASES[case]))}, {dtype}, {layout}, n = {repeats}")
    columns = ["latency", "device", "host"] if device.type == "cuda" else ["latency"]
    heads = [f"{column}, ms | times faster" for column in columns]
    print(f"| | {' | '.join(heads)} | of the memory | gradient's error |\n|{'---|' * (2 * len(columns) + 3)}")
    for name, own in times.items():
        cells = []
        if device.type == "cuda" and statistics.median(own["host"]) * QUEUED > BUSY / 2:
            print(f"{name} waits for the device at each step: its device and host times mean nothing")
        for column in columns:
            ratios = [theirs / mine for theirs, mine in zip(times[reference][column], own[column], strict=True)]
            cells += [_spread([1e3 * t for t in own[column]], 3), _spread(ratios, 2)]
        print(f"| {name} | {' | '.join(cells)} | {memory[name] / memory[reference]:.2f} | {error[name]:.1e} |")
    if device.type == "cuda":
        name = list(losses)[-1]
        graph = graph_seconds(losses[name], logits, labels, repeats)
        moved = 3 * logits.nbytes + 2 * labels.nbytes
        share = moved / statistics.median(times[name]["device"]) / copy_bandwidth(device)
        print(f"ours as a CUDA graph: {_spread([1e3 * t for t in graph], 3)} ms")
        print(f"ours moves {moved / labels.numel():.0f} bytes a voxel, at {100 * share:.0f}% of the copy bandwidth")


def _spread(values: list[float], digits: int) -> str:
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f}, {high:.{digits}f})"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments.add_argument("--case", type=int, choices=CASES, action="append")
    arguments.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), action="append")
    arguments.add_argument("--layout", choices=("channels_first", "channels_last"), action="append")
    arguments.add_argument("--repeats", type=int, default=15)
    arguments.add_argument("--eager", action="store_true")
    options = arguments.parse_args()
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {platform.machine()}, {name}, {datetime.date.today()}")
    for case in options.case or USUAL_CASES:
        for dtype in options.dtype or ("float32",):
            for layout in options.layout or ("channels_first",):
                for kind in ("Dice", "Dice and cross-entropy"):
                    benchmark(kind, case, dtype, layout, options)


if __name__ == "__main__":
    main()
