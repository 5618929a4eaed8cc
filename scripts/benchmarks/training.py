"""An epoch of a planned bundle beside the usual MONAI chain: the same scans, windows, augmentation, network and loss.

    python scripts/benchmarks/training.py --repeats 5                    # a simulated sample of four channels at 2 mm
    python scripts/benchmarks/training.py --folder mine --roi_size 96 --device cuda

Three chains, each after one epoch that fills its cache:

- "memory": CacheDataset, RandCropByPosNegLabeld without indices, augmentation; float32, contiguous.
- "disk": the same with PersistentDataset, whose memory does not grow with the number of subjects.
- "planned": CropFromDiskd, augmentation; channels last, and bfloat16 where the machine computes in it.

It prints the seconds of an epoch by share (loading and cropping, augmenting, network, loss and step), as the median and
the range over repeats, the ratio to "planned", and the memory that the cached scans take in the process.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data import CacheDataset, Dataset, PersistentDataset, list_data_collate
from monai.inferers import SimpleInferer
from monai.transforms import Compose, RandCropByPosNegLabeld

from custom.commands.plan import plan
from custom.datasets import own_folder
from custom.inferers import CPUAutocastInferer
from custom.running.bundles import config_files
from custom.running.hardware import amp_dtype
from custom.samples import msd
from custom.transforms import PadToSized

SHARES = ("load and crop", "augment", "network", "loss and step")
KEYS = ["image", "label"]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help="labelled scans (default: a simulated sample)")
    parser.add_argument("--spacing", type=int, default=2, help="of the sample, in mm")
    parser.add_argument("--subjects", type=int, default=10, help="of the sample, with labels")
    parser.add_argument("--roi_size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(options.folder or msd.write(f"{work}/sample", spacing=options.spacing, labelled=options.subjects))
        bundle = plan(str(folder), f"{work}/planned_bundle")
        config = ConfigParser(ConfigParser.load_config_files(config_files(str(bundle), "train.json")))
        config.update({"roi_size": [options.roi_size] * 3, "output_dir": f"{work}/run", "device": options.device})
        chains = {name: chain(name, config, Path(work)) for name in ("memory", "disk", "planned")}
        seconds: dict[str, list[list[float]]] = {name: [] for name in chains}
        for repeat in range(options.repeats + 1):  # the chains in turn, so that a busy moment meets all of them
            for name, (items, augment) in chains.items():
                taken = epoch(config, items, augment, options.device, name == "planned")
                if repeat:
                    seconds[name].append(taken)
    report(seconds)


def chain(name: str, config: ConfigParser, work: Path) -> tuple[Callable[[], Iterable[Any]], Compose]:
    """The items of an epoch after loading and cropping, and the augmentation."""
    content = config.get_parsed_content
    data = own_folder.datalist(content("dataset_dir"), "training")
    augment = Compose(content("train#sampling_transforms"))
    before = private_bytes()
    if name == "planned":
        loaded: Any = Dataset(data, Compose([content("crop")]))
    else:
        size, number = content("roi_size"), content("samples_per_volume")
        crop = RandCropByPosNegLabeld(
            KEYS, label_key="label", spatial_size=size, pos=3, neg=1, num_samples=number, allow_smaller=False
        )
        fixed = [*content("train#deterministic_transforms"), content("train#to_brain"), PadToSized(KEYS, size)]
        steps = Compose([*fixed, crop])
        loaded = (
            CacheDataset(data, steps, progress=False)
            if name == "memory"
            else PersistentDataset(data, steps, work / "pt")
        )
    for item in loaded:  # fills the cache
        del item
    grown = (private_bytes() - before) / 1e6
    print(f"{name}: the process grew by {grown:.0f} MB while {len(data)} scans were cached", flush=True)
    return (lambda: (loaded[index] for index in range(len(loaded)))), augment


def private_bytes() -> int:
    """The memory of this process that is not a file's (Linux)."""
    _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text(encoding="utf-8").split())
    return (resident - shared) * resource.getpagesize()


def epoch(
    config: ConfigParser, items: Callable[[], Iterable[Any]], augment: Compose, device: str, planned: bool
) -> list[float]:
    """Seconds of an epoch by share."""
    layout = torch.channels_last_3d if planned else torch.contiguous_format
    torch.manual_seed(0)
    config.parse()
    network = config.get_parsed_content("network_def", instantiate=True).to(device, memory_format=layout).train()
    loss_function, optimizer = config.get_parsed_content("loss"), torch.optim.AdamW(network.parameters())
    infer = CPUAutocastInferer(SimpleInferer(), amp=planned)
    taken = [0.0] * len(SHARES)
    clock = time.perf_counter()

    def lap(share: int) -> None:
        nonlocal clock
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        now = time.perf_counter()
        taken[share] += now - clock
        clock = now

    for windows in items():
        lap(0)
        batch = list_data_collate([augment(window) for window in windows])
        lap(1)
        image = torch.as_tensor(batch["image"]).as_subclass(torch.Tensor).to(device).contiguous(memory_format=layout)
        label = torch.as_tensor(batch["label"]).as_subclass(torch.Tensor).to(device)
        with torch.autocast("cuda", dtype=amp_dtype(), enabled=planned and device.startswith("cuda")):
            logits = infer(image, network)
        lap(2)
        loss = loss_function(logits.float(), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        lap(3)
    return taken


def report(seconds: dict[str, list[list[float]]]) -> None:
    """Prints a row for each chain."""
    own = [sum(one) for one in seconds["planned"]]
    print(
        f"{'chain':<9}{'epoch s':>9}  {'range':<15}" + "".join(f"{share:>15}" for share in SHARES) + "   ratio (range)"
    )
    for name, repeats in seconds.items():
        totals = [sum(one) for one in repeats]
        shares = [statistics.median(one[number] for one in repeats) for number in range(len(SHARES))]
        ratios = sorted(total / planned for total, planned in zip(totals, own, strict=True))
        span = f"{min(totals):.2f} to {max(totals):.2f}"
        columns = "".join(f"{share:>9.2f} ({share / sum(shares):>3.0%})" for share in shares)
        ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"{name:<9}{statistics.median(totals):>9.2f}  {span:<15}{columns}   {ratio}")


if __name__ == "__main__":
    main()
