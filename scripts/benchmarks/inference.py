"""ForegroundInferer against MONAI's SlidingWindowInferer as the model zoo's bundles use it, same weights, one process.

    python scripts/benchmarks/inference.py [--case iseg|t1] [--repeats 3] [--weights model.pt]

iseg: a two-channel volume of 256x192x144 (the iSeg sample's MNI152 anatomy, 1 mm) and the iSeg bundle's UNet, untrained
unless --weights are given, which changes no time. t1: the MNI152 T1w in a 192x256x256 matrix of 1 mm, at 1.5 mm as the
brain tissue bundle has it, with the shipped weights; also the time of every step of `brainmri segment` on it.
Prints seconds (median, least and greatest of the repeats), the ratio to each peer in the same repeat, and the mean Dice
of CSF, GM and WM against the reference labels.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.inferers import SlidingWindowInferer
from monai.transforms import (
    Compose,
    CropForeground,
    LoadImage,
    NormalizeIntensity,
    ResampleToMatch,
    ResizeWithPadOrCrop,
    SaveImage,
)

from custom.checkpoints.load import load_checkpoint, load_weights
from custom.datasets import freesurfer
from custom.datasets.iseg import CODES
from custom.inferers import ForegroundInferer
from custom.metrics import dice_by_name
from custom.running import Predictor
from custom.running.bundles import config_files
from custom.samples import iseg, mni152

Infer = Callable[[torch.Tensor, torch.nn.Module], torch.Tensor]
Case = tuple[torch.Tensor, torch.Tensor, torch.nn.Module, tuple[int, ...], float]


def iseg_case(weights: str | None) -> Case:
    """A simulated subject (1, 2, 256, 192, 144), its labels, the network, its windows, its background's limit."""
    maps, voxel_size = iseg.tissue_maps(1)
    scans = iseg.subject(maps, voxel_size, "infant", np.random.default_rng(0))
    label = np.searchsorted(CODES, scans["label"])
    three = torch.as_tensor(np.stack([scans["T1"], scans["T2"], label]).astype(np.float32)).transpose(1, 2)
    three = torch.as_tensor(ResizeWithPadOrCrop((256, 192, 144))(three))
    normal = NormalizeIntensity(nonzero=True, channel_wise=True)(three[:2])
    parser = ConfigParser(ConfigParser.load_config_files(config_files("iseg", "inference.json")))
    network = parser.get_parsed_content("network_def")
    if weights:
        load_weights(network, load_checkpoint(weights), weights)
    return torch.as_tensor(normal)[None], three[None, 2].long(), network, (128, 128, 64), 0.0


def t1_case(weights: str | None) -> Case:
    """The MNI152 T1w at 1.5 mm, (1, 1, 128, 171, 171); see iseg_case."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = mni152.write(Path(temporary) / "mni152")
        matrix = Compose([LoadImage(ensure_channel_first=True), ResizeWithPadOrCrop((192, 256, 256))])
        for name in (mni152.T1, mni152.TRUTH):
            SaveImage(folder, output_postfix="", separate_folder=False, print_log=False)(matrix(folder / name))
        predictor = Predictor(config_files("brain_mri_tissue", "inference.json"), device="cpu", **_settings(weights))
        item = predictor(folder / mni152.T1)
        image = item["image"]
        reference = ResampleToMatch(mode="nearest")(LoadImage(ensure_channel_first=True)(folder / mni152.TRUTH), image)
        start = time.perf_counter()
        nibabel.save(nibabel.Nifti1Image(item["pred"], np.eye(4)), folder / "saved.nii.gz")
        steps = predictor.seconds | {"save": time.perf_counter() - start}
    print("steps of brainmri segment: " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in steps.items()))
    return (
        torch.as_tensor(image).as_subclass(torch.Tensor)[None],
        torch.as_tensor(reference).as_subclass(torch.Tensor).long(),
        predictor.network,
        (112, 144, 144),
        0.08,
    )


def _settings(weights: str | None) -> dict[str, str]:
    return {"ckpt_path": weights} if weights else {}


def cropped(infer: Infer, limit: float) -> Infer:
    """MONAI's CropForeground before an inferer; its result is put back into the volume."""

    def run(image: torch.Tensor, network: torch.nn.Module) -> torch.Tensor:
        crop = CropForeground(select_fn=lambda x: x > limit if limit else x != 0, margin=8, allow_smaller=True)
        start, end = crop.compute_bounding_box(image[0])
        box: Any = (..., *(slice(int(a), int(b)) for a, b in zip(start, end, strict=True)))
        inside = infer(image[box], network)
        result = inside.new_zeros((1, inside.shape[1], *image.shape[2:]))
        result[:, 0] = 1e3
        result[box] = inside
        return result

    return run


PEERS = ("MONAI, overlap 0.25", "MONAI, overlap 0.25, cropped")


def contenders(roi: tuple[int, ...], limit: float) -> dict[str, Infer]:
    runs: dict[str, Infer] = {}
    for overlap in (0.5, 0.25):
        slide = SlidingWindowInferer(roi, sw_batch_size=2, overlap=overlap, mode="gaussian")
        runs |= {f"MONAI, overlap {overlap}": slide, f"MONAI, overlap {overlap}, cropped": cropped(slide, limit)}
    for amp in (False, True):
        kind = "bfloat16" if amp else "float32"
        runs[f"ours, one pass, {kind}"] = ForegroundInferer(roi, amp=amp, threshold=limit, frame=roi if limit else None)
        runs[f"ours, windows, {kind}"] = ForegroundInferer(roi, amp=amp, threshold=limit, one_pass_voxels=0)
    return runs


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--case", choices=("iseg", "t1"), default="iseg")
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--weights", default=None)
    options = arguments.parse_args()
    torch.manual_seed(0)
    image, reference, network, roi, limit = {"iseg": iseg_case, "t1": t1_case}[options.case](options.weights)
    module: Any = network.eval()  # torch's types lack this argument
    network = module.to(memory_format=torch.channels_last_3d)
    runs = contenders(roi, limit)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    labels: dict[str, torch.Tensor] = {}
    for _ in range(options.repeats):
        for name, infer in runs.items():
            start = time.perf_counter()
            with torch.no_grad():
                labels[name] = tissue_labels(infer(image, network))
            seconds[name].append(time.perf_counter() - start)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {tuple(image.shape[1:])}, n = {options.repeats}"
    )
    peers = " | ".join(f"times faster than {peer}" for peer in PEERS)
    print(f"| | seconds | {peers} | mean Dice |\n|---|---|---|---|---|")
    for name, times in seconds.items():
        cells, dice = [_spread(times)], dice_by_name(labels[name].numpy(), reference.numpy(), mni152.LABELS)
        ratios = [[theirs / own for theirs, own in zip(seconds[peer], times, strict=True)] for peer in PEERS]
        cells += [_spread(values) for values in ratios]
        print(f"| {name} | {' | '.join(cells)} | {dice['mean']:.4f} |")


def tissue_labels(logits: torch.Tensor) -> torch.Tensor:
    """The labels; structures and a side become the tissues that they belong to."""
    if logits.shape[1] != freesurfer.SIDE_CHANNEL + 1:
        return logits.argmax(dim=1)
    return torch.as_tensor(freesurfer.TISSUE_NUMBERS)[logits[:, :-1].argmax(dim=1)]


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}, {max(values):.2f})"


if __name__ == "__main__":
    main()
