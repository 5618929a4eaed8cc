"""What HCP's 1,113 volumes at full size take: time, memory and disk of each step, measured small and extrapolated.

    python scripts/benchmarks/hcp_scale.py WORK_DIR [--subjects 1113] [--sides 16 24 32] [--network_sides 50 75 100]
        [--full 260 311 260] [--components 100] [--steps preprocessing products networks validation]

All measurements are of full number, at reduced size; but preprocessing and reading, which are the same for each scan,
are of two scans of the full size. Lines are fitted through the measurements: seconds and bytes grow with the number of
voxels, apart from a constant. The nested cross-validation works on inner products, so it does not depend on the size.
Each "checked" row compares the largest measurement with a line through the smaller ones. Times are process times (of
one core with OMP_NUM_THREADS=1). The volumes are noise and a smooth ball: their content does not change the times, but
they compress worse than scans.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import re
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.bundle import ConfigParser

from custom.baselines.gram_pca import gram_matrix
from custom.baselines.nested_cv import CLASSIFIERS, nested_cross_validation
from custom.networks import HCPNet
from custom.networks.cost import count_parameters
from custom.networks.hcp_net import TALK
from custom.running.bundles import config_files

STEPS = ("preprocessing", "products", "networks", "validation")
GB, HOUR = 1e9, 3600.0
EPOCHS = 60  # the bundle's max_epochs
NETWORKS = {"HCPNet": (5, 3, 3, 3, 3), "HCPNet, the talk's kernels": TALK}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("work_dir", type=Path)
    arguments.add_argument("--subjects", type=int, default=1113)
    arguments.add_argument("--sides", type=int, nargs="+", default=[16, 24, 32])
    arguments.add_argument("--network_sides", type=int, nargs="+", default=[50, 75, 100])
    arguments.add_argument("--full", type=int, nargs=3, default=[260, 311, 260])
    arguments.add_argument("--components", type=int, default=100)
    arguments.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    options = arguments.parse_args()
    options.work_dir.mkdir(parents=True, exist_ok=True)
    n, voxels = options.subjects, math.prod(options.full)
    print(f"{n} subjects, {size_of(options.full)} = {voxels:,} voxels, ", end="")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print("| step | | size | time | memory, GB | disk, GB |\n|---|---|---|---|---|---|")
    preprocessing(options, n)
    inner_products(options, n, voxels)
    for name, kernels in NETWORKS.items():
        network(name, kernels, options, voxels)
    seconds, memory = in_process(cross_validation, n, options.components)
    row(
        f"nested cross-validation of {len(CLASSIFIERS)} models, {n} subjects", "measured", "any", hours(seconds), memory
    )


def preprocessing(options: argparse.Namespace, n: int) -> None:
    """Two scans of the full size through the bundle's chain, to 50x50x50 and at their own size; then n of them."""
    paths = [options.work_dir / f"scan{number}.nii.gz" for number in range(2)]
    for number, path in enumerate(paths):
        if not path.is_file():
            nibabel.save(nibabel.Nifti1Image(ball(options.full, number), np.diag([0.7, 0.7, 0.7, 1.0])), path)
    raw = sum(path.stat().st_size for path in paths) / len(paths)
    row("one scan as a file", "measured", size_of(options.full), disk=raw)
    for size in ([50, 50, 50], list(options.full)):
        cache = options.work_dir / f"cache{size[0]}"
        seconds, memory = in_process(preprocess, paths, size, cache)
        kept = sum(path.stat().st_size for path in cache.iterdir()) / len(paths)
        row("preprocessing of one scan", "measured", size_of(size), f"{seconds / len(paths):.1f} s", memory, kept)
        row(f"preprocessing of {n}", "extrapolated", size_of(size), hours(n * seconds / len(paths)), disk=n * kept)


def inner_products(options: argparse.Namespace, n: int, voxels: int) -> None:
    """The Gram matrix of n volumes, which the PCA of every fold comes from."""
    sizes = [side**3 for side in options.sides]
    measured = [in_process(gram, n, size) for size in sizes]
    for side, (seconds, memory) in zip(options.sides, measured, strict=True):
        row(f"inner products of {n}", "measured", size_of([side] * 3), f"{seconds:.1f} s", memory)
    times, memories = zip(*measured, strict=True)
    check("inner products", sizes, times, options.sides)
    row(
        f"inner products of {n}",
        "extrapolated",
        size_of(options.full),
        hours(line(sizes, times)(voxels)),
        line(sizes, memories)(voxels),
    )


def network(name: str, kernels: tuple[int, ...], options: argparse.Namespace, voxels: int) -> None:
    """Steps of one volume, forward and backward; then 60 epochs of the training split, four fifths of four fifths."""
    sizes = [side**3 for side in options.network_sides]
    measured = [in_process(step, kernels, [side] * 3) for side in options.network_sides]
    for side, (seconds, memory) in zip(options.network_sides, measured, strict=True):
        row(f"{name}, a step of one volume", "measured", size_of([side] * 3), f"{seconds:.2f} s", memory)
    times, memories = zip(*measured, strict=True)
    check(name, sizes, times, options.network_sides)
    with torch.device("meta"):
        parameters = count_parameters(HCPNet(1, 2, options.full, kernels))
    at_full, memory = line(sizes, times)(voxels), line(sizes, memories)(voxels)
    training = round(options.subjects * 0.64)
    full = size_of(options.full)
    row(f"{name}, a step of one volume, {parameters:,} parameters", "extrapolated", full, f"{at_full:.0f} s", memory)
    row(f"{name}, {EPOCHS} epochs of {training}", "extrapolated", full, hours(EPOCHS * training * at_full), memory)


def preprocess(paths: list[Path], size: list[int], cache: Path) -> float:
    """Seconds of all scans by the bundle's chain, its file in the cache included."""
    parser = ConfigParser(ConfigParser.load_config_files(config_files("hcp", "train.json")))
    parser.update({"cache_dir": str(cache), "roi_size": size})
    chain = parser.get_parsed_content("preprocessing")
    for path in cache.glob("*.npz"):
        path.unlink()
    start = time.process_time()
    for path in paths:
        chain({"image": str(path)})
    return time.process_time() - start


def gram(n: int, voxels: int) -> float:
    """Seconds of the Gram matrix of (n, voxels) float32."""
    volumes = np.random.default_rng(0).standard_normal((n, voxels), dtype=np.float32)
    start = time.process_time()
    gram_matrix(volumes)
    return time.process_time() - start


def cross_validation(n: int, components: int) -> float:
    """Seconds of the nested cross-validation of all models from a Gram matrix of n volumes with a weak signal."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, n)
    volumes = rng.standard_normal((n, 4096), dtype=np.float32)
    volumes[:, :40] += labels[:, None]
    products, families = gram_matrix(volumes), [str(number) for number in range(n)]
    start = time.process_time()
    for model in CLASSIFIERS.values():
        nested_cross_validation(products, labels, families, model, components)
    return time.process_time() - start


def step(kernels: tuple[int, ...], size: list[int]) -> float:
    """Seconds of forward, backward and the optimizer's step for one volume: the least of three."""
    torch.manual_seed(0)
    net, image = HCPNet(1, 2, size, kernels), torch.randn(1, 1, *size)
    optimizer = torch.optim.AdamW(net.parameters())
    times = []
    for _ in range(3):
        start = time.process_time()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(image), torch.tensor([1])).backward()
        optimizer.step()
        times.append(time.process_time() - start)
    return min(times)


def ball(size: list[int], seed: int) -> np.ndarray:
    """A noisy ball in zeros, as a skull-stripped scan has them; int16."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in size), indexing="ij", sparse=True)
    away = sum(axis**2 for axis in axes)
    values = 1000 * (1.5 - away) + np.random.default_rng(seed).normal(0, 20, size).astype(np.float32)
    return np.where(away < 0.9, values, 0).astype(np.int16)


def in_process(function: Callable[..., float], *arguments: Any) -> tuple[float, float]:
    """The function's seconds, and the bytes that its process took at most, beyond those of the imports."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_with_memory, (function, arguments))


def _with_memory(function: Callable[..., float], arguments: tuple[Any, ...]) -> tuple[float, float]:
    before = peak()
    return function(*arguments), peak() - before


def peak() -> float:
    """The most bytes that this process held. Linux's getrusage would start with those of the parent."""
    status = Path("/proc/self/status")
    if status.is_file():
        return 1024.0 * int(re.search(r"VmHWM:\s*(\d+)", status.read_text(encoding="utf-8"))[1])  # type: ignore[index]
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # bytes on macOS


def line(sizes: list[int], values: tuple[float, ...]) -> Callable[[int], float]:
    """The line of least squares."""
    slope, start = np.polyfit(sizes, values, 1)
    return lambda size: float(start + slope * size)


def check(name: str, sizes: list[int], values: tuple[float, ...], sides: list[int]) -> None:
    """Prints what a line through the smaller sizes says of the largest one."""
    if len(sizes) > 2:
        predicted = line(sizes[:-1], values[:-1])(sizes[-1])
        text = f"{predicted:.2f} s predicted, {values[-1]:.2f} s measured"
        row(f"{name}, from the smaller sizes", "checked", size_of([sides[-1]] * 3), text)


def row(step_name: str, how: str, size: str, time_text: str = "", memory: float = 0, disk: float = 0) -> None:
    cells = [step_name, how, size, time_text, *(f"{value / GB:.4g}" if value else "" for value in (memory, disk))]
    print("| " + " | ".join(cells) + " |", flush=True)


def size_of(size: list[int]) -> str:
    return "x".join(map(str, size))


def hours(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < HOUR / 2 else f"{seconds / HOUR:.1f} h"


if __name__ == "__main__":
    main()
