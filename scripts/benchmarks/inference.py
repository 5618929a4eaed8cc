"""ForegroundInferer against MONAI's SlidingWindowInferer as the model zoo's bundles use it, same weights, one process.

    python scripts/benchmarks/inference.py [--repeats 3] [--weights model.pt]

Prints seconds (median, least and greatest of the repeats), the ratio to the peer in the same repeat, and the mean Dice
of CSF, GM and WM against the truth. The volume is the iSeg sample's MNI152 anatomy, T1 and T2, on a 256x192x144 grid of
1 mm. Without --weights the network is untrained, which changes no time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.inferers import SlidingWindowInferer
from monai.transforms import NormalizeIntensity, ResizeWithPadOrCrop

from custom.cli import config_files
from custom.datasets.iseg import CODES
from custom.files import load_checkpoint
from custom.inferers import ForegroundInferer
from custom.samples import iseg

ROI = (128, 128, 64)


def volume() -> tuple[torch.Tensor, torch.Tensor]:
    """One simulated subject: T1 and T2, z-scores in the brain, 0 around it, (1, 2, 256, 192, 144), and its labels."""
    maps, voxel_size = iseg.tissue_maps(1)
    scans = iseg.subject(maps, voxel_size, "infant", np.random.default_rng(0))
    label = np.searchsorted(CODES, scans["label"])
    three = torch.as_tensor(np.stack([scans["T1"], scans["T2"], label]).astype(np.float32)).transpose(1, 2)
    three = torch.as_tensor(ResizeWithPadOrCrop((256, 192, 144))(three))
    normal = NormalizeIntensity(nonzero=True, channel_wise=True)(three[:2])
    return torch.as_tensor(normal)[None], three[None, 2].long()


def mean_dice(found: torch.Tensor, truth: torch.Tensor) -> float:
    pairs = [(found == label, truth == label) for label in (1, 2, 3)]
    return float(np.mean([float(2 * (a & b).sum() / (a.sum() + b.sum())) for a, b in pairs]))


def contenders() -> dict[str, Callable]:
    runs: dict[str, Callable] = {
        f"MONAI, overlap {overlap}": SlidingWindowInferer(ROI, sw_batch_size=2, overlap=overlap, mode="gaussian")
        for overlap in (0.5, 0.25)
    }
    for amp in (False, True):
        kind = "bfloat16" if amp else "float32"
        runs[f"ours, one pass, {kind}"] = ForegroundInferer(ROI, amp=amp)
        runs[f"ours, windows, {kind}"] = ForegroundInferer(ROI, amp=amp, one_pass_voxels=0)
    return runs


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--weights", default=None)
    options = arguments.parse_args()
    torch.manual_seed(0)
    parser = ConfigParser(ConfigParser.load_config_files(config_files("iseg", "inference.json")))
    network = parser.get_parsed_content("network_def").eval().to(memory_format=torch.channels_last_3d)
    if options.weights:
        network.load_state_dict(load_checkpoint(options.weights))
    (image, truth), runs = volume(), contenders()
    peer = "MONAI, overlap 0.25"
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    labels: dict[str, torch.Tensor] = {}
    for _ in range(options.repeats):
        for name, infer in runs.items():
            start = time.perf_counter()
            with torch.no_grad():
                labels[name] = infer(image, network).argmax(dim=1)
            seconds[name].append(time.perf_counter() - start)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {tuple(image.shape[1:])}, n = {options.repeats}"
    )
    print(f"{'':<28}{'seconds (least, greatest)':>28}{'times faster than ' + peer:>40}{'mean Dice':>12}")
    for name, times in seconds.items():
        ratios = [theirs / own for theirs, own in zip(seconds[peer], times, strict=True)]
        spread = f"{statistics.median(times):.2f} ({min(times):.2f}, {max(times):.2f})"
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f})"
        print(f"{name:<28}{spread:>28}{ratio:>40}{mean_dice(labels[name], truth):>12.4f}")


if __name__ == "__main__":
    main()
