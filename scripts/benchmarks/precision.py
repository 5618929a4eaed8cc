"""Agreement of a scan's structures between numbers of threads, and between float32 and bfloat16 on the CPU.

    python scripts/benchmarks/precision.py head.nii.gz

Prints the share of the brain's voxels that have the same structure and side as with one thread in float32. On a CPU
without bfloat16, what goes into and out of each convolution and its weights are rounded to bfloat16 instead.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from custom.running import Predictor
from custom.running.bundles import config_files

NATIVE = torch.ops.mkldnn._is_mkldnn_bf16_supported()


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path)
    options = parser.parse_args()
    print("| comparison with float32 on one thread | share of the brain's voxels with the same label |\n|---|---|")
    single = predictor(amp=False)
    reference = structures(single, options.scan, 1)
    for threads in (2, 4):
        print(f"| float32, {threads} threads | {same(reference, structures(single, options.scan, threads)):.5f} |")
    half = predictor(amp=NATIVE)
    if not NATIVE:
        round_convolutions(half.network)
    name = "bfloat16" if NATIVE else "convolutions rounded to bfloat16"
    print(f"| {name}, 2 threads | {same(reference, structures(half, options.scan, 2)):.5f} |")


def predictor(amp: bool) -> Predictor:
    """The any-scan network on the CPU."""
    return Predictor(config_files("brain_mri_tissue", "inference.json"), device="cpu", amp=amp)


def round_convolutions(network: nn.Module) -> None:
    """Rounds inputs, weights and outputs of all convolutions; sums stay in float32, as processors have them."""

    def rounded(tensor: Any) -> Any:
        return tensor.bfloat16().float()

    for layer in network.modules():
        if isinstance(layer, nn.Conv3d):
            layer.weight.data = rounded(layer.weight.data)
            layer.register_forward_pre_hook(lambda _, inputs: tuple(map(rounded, inputs)))
            layer.register_forward_hook(lambda _, __, output: rounded(output))


def structures(predictor: Predictor, scan: Path, threads: int) -> np.ndarray:
    """FreeSurfer's codes (X, Y, Z) of a scan."""
    torch.set_num_threads(threads)
    return np.asarray(predictor(scan)["structures"])


def same(one: np.ndarray, other: np.ndarray) -> float:
    """The share of equal voxels, of those that are brain in one of the two."""
    return float((one == other)[(one > 0) | (other > 0)].mean())


if __name__ == "__main__":
    main()
