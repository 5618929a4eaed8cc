"""A training step of each of a bundle's networks beside the default network's, in one process.

    python scripts/benchmarks/networks.py [--bundle iseg] [--networks unet3d,vnet_light] [--size 64] [--repeats 3]

A step is one window of noise forward and backward, as the bundles do it: channels-last, bfloat16 on the CPU, and
custom.running.hardware.amp_dtype on CUDA. Networks take turns. Prints seconds (median, least, greatest), how many of
the default's steps that is, and what autograd keeps for the backward pass, with the weights, in MB.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from monai.bundle import ConfigParser

from custom.inferers import CPUAutocastInferer
from custom.networks.cost import count_parameters
from custom.running.bundles import config_files, find_bundle, mixins
from custom.running.hardware import amp_dtype

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--bundle", default="iseg_mri_tissue")
    arguments.add_argument("--networks", help="names, separated by commas; all without")
    arguments.add_argument("--size", type=int, default=64)
    arguments.add_argument("--repeats", type=int, default=3)
    options = arguments.parse_args()
    available = sorted(path.stem for path in (find_bundle(options.bundle) / "configs/networks").glob("*.json"))
    names = ["default", *(options.networks.split(",") if options.networks else available)]
    torch.manual_seed(0)
    networks: dict[str, torch.nn.Module] = {}
    times: dict[str, list[float]] = {name: [] for name in names}
    kept: dict[str, int] = {}
    for name in names:
        files = config_files(
            options.bundle, "train.json", *mixins(options.bundle, None if name == "default" else name, None)
        )
        parser = ConfigParser(ConfigParser.load_config_files(files))
        parser["roi_size"] = [options.size] * 3
        networks[name] = (
            parser.get_parsed_content("network_def").to(DEVICE, memory_format=torch.channels_last_3d).train()
        )
    inferers = {name: CPUAutocastInferer() for name in names}
    window = torch.randn(1, parser["in_channels"], *[options.size] * 3, device=DEVICE)
    window = window.to(memory_format=torch.channels_last_3d)
    for turn in range(options.repeats + 1):  # the first one warms up
        for name, network in networks.items():
            seconds, kept[name] = step(network, window, inferers[name])
            if turn:
                times[name].append(seconds)
    device = torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{device}, torch {torch.__version__}, {options.size} voxels a side, {options.repeats} turns")
    base = times["default"]
    for name, own in times.items():
        spread = f"{statistics.median(own):.2f} ({min(own):.2f}, {max(own):.2f})"
        ratios = [a / b for a, b in zip(own, base, strict=True)]
        ratio = f"{statistics.median(ratios):.1f} ({min(ratios):.1f}, {max(ratios):.1f})"
        print(f"| {name} | {count_parameters(networks[name]):,} | {spread} | {ratio} | {kept[name] / 1e6:,.0f} |")


def step(network: torch.nn.Module, window: torch.Tensor, inferer: CPUAutocastInferer) -> tuple[float, int]:
    """Seconds of a step, and bytes that autograd kept for it."""
    storages: dict[int, int] = {}

    def keep_size(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    network.zero_grad(set_to_none=True)
    start = time.perf_counter()
    with (
        torch.autograd.graph.saved_tensors_hooks(keep_size, lambda tensor: tensor),
        torch.autocast("cuda", amp_dtype(), enabled=DEVICE.type == "cuda"),
    ):
        output = inferer(window, network)
    outputs = output if isinstance(output, tuple) else (output,)
    torch.stack([values.float().square().mean() for values in outputs]).sum().backward()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, sum(storages.values())


if __name__ == "__main__":
    main()
