"""Agreement of a scan's structures between numbers of threads, and between float32 and bfloat16 on the CPU.

    python scripts/benchmarks/precision.py head.nii.gz

Prints the share of the brain's voxels that have the same structure and side as with one thread in float32. A CPU
without bfloat16 imitates it, with the same rounding, and may take half an hour.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from custom.running import Predictor
from custom.running.bundles import config_files


class InBfloat16(nn.Module):
    """A network under autocast, whether the CPU computes in bfloat16 or imitates it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits: torch.Tensor = self.network(image)
        return logits.float()


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path)
    options = parser.parse_args()
    predictor = Predictor(config_files("brain_mri_tissue", "inference.json"), device="cpu", amp=False)
    native = "its own" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "imitated"
    print(f"torch {torch.__version__}, bfloat16 is {native} here\n")
    reference = structures(predictor, options.scan, 1)
    print("| comparison with float32 on one thread | share of the brain's voxels with the same label |\n|---|---|")
    for threads in (2, 4):
        print(f"| float32, {threads} threads | {same(reference, structures(predictor, options.scan, threads)):.5f} |")
    predictor.network = InBfloat16(predictor.network)
    start = time.perf_counter()
    print(f"| bfloat16, 2 threads | {same(reference, structures(predictor, options.scan, 2)):.5f} |")
    print(f"\nbfloat16 took {time.perf_counter() - start:.0f} s")


def structures(predictor: Predictor, scan: Path, threads: int) -> np.ndarray:
    """FreeSurfer's codes (X, Y, Z) of a scan."""
    torch.set_num_threads(threads)
    return np.asarray(predictor(scan)["structures"])


def same(one: np.ndarray, other: np.ndarray) -> float:
    """The share of equal voxels, of those that are brain in one of the two."""
    return float((one == other)[(one > 0) | (other > 0)].mean())


if __name__ == "__main__":
    main()
