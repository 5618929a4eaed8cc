"""The talk's network on one of its own volumes: forward and backward.

    python scripts/benchmarks/hcp_net.py [--repeats 3]

Noise of 155x165x195 voxels, batches of one, float32. Prints seconds of each way (median, least, greatest), and the
process's peak memory. With direct convolutions stage 1 alone is 8.6e12 multiplications forward.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time

import torch

from custom.networks import HCPNet
from custom.networks.cost import count_parameters
from custom.networks.hcp_net import TALK


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repeats", type=int, default=3)
    options = arguments.parse_args()
    torch.manual_seed(0)
    network, image = HCPNet(1, 1, (155, 165, 195), TALK), torch.randn(1, 1, 155, 165, 195)
    print(f"{count_parameters(network):,} parameters, {torch.get_num_threads()} threads, torch {torch.__version__}")
    times: dict[str, list[float]] = {"forward": [], "backward": []}
    for _ in range(options.repeats):
        start = time.perf_counter()
        loss = network(image).square().sum()
        times["forward"].append(time.perf_counter() - start)
        loss.backward()
        times["backward"].append(time.perf_counter() - start - times["forward"][-1])
    for name, seconds in times.items():
        print(f"{name}: {statistics.median(seconds):.1f} s ({min(seconds):.1f}, {max(seconds):.1f})")
    unit = 1e9 if sys.platform == "darwin" else 1e6  # bytes on macOS, else kilobytes
    print(f"peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:.1f} GB")


if __name__ == "__main__":
    main()
