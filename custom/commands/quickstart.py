"""From nothing to a segmented brain: the shipped weights on a real scan, then every step of the iSeg bundle."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.inferers import SlidingWindowInferer

import custom
from custom.baselines.clustering import cluster_tissues
from custom.checkpoints.load import load_checkpoint
from custom.commands.export import export
from custom.commands.segment import segment
from custom.errors import DataError
from custom.files import written_whole
from custom.metrics import dice_by_name
from custom.reports.of_run import evaluated_subject, labels_of, save_figure, subject_figure
from custom.running import Predictor
from custom.running.bundles import config_files
from custom.running.workflow import print_call, run
from custom.samples import iseg as sample
from custom.samples import mni152

WHAT_IT_IS = (
    "A smoke test on simulated contrast and one template's anatomy (n = 1 subject), not a result on the iSeg "
    f"challenge. The clustering is given the true brain mask. {custom.RESEARCH_USE_ONLY}"
)
SMALL = {"roi_size": [64, 64, 64], "samples_per_volume": 2, "learning_rate": 0.003, "val_interval": 10}


def main(folder: Path, max_epochs: int) -> None:
    """Runs all steps, reusing what an earlier run left in `folder`; prints a table and writes summary.json."""
    seconds: dict[str, float] = {}

    @contextmanager
    def step(name: str) -> Iterator[None]:
        print(f"\n== {name}", flush=True)
        start = time.monotonic()
        yield
        seconds[name] = round(time.monotonic() - start, 1)

    data, output = folder / "sample", folder / "run"
    where = {"dataset_dir": str(data), "output_dir": str(output)}
    small = {"roi_size": SMALL["roi_size"]}
    with step("segment a real brain with the shipped weights"):
        real = mni152.write(folder / "mni152")
        segmentations = folder / "segmentations"
        predictor = Predictor(config_files("brain_mri_tissue", "inference.json"), output_dir=str(segmentations))
        if segment(predictor, [str(real / mni152.T1)], segmentations):
            raise DataError(f"{real / mni152.T1} could not be segmented, as listed above.")
        found = nibabel.load(folder / "segmentations" / "sub-mni152_desc-T1w_dseg.nii.gz")
        maps = np.asarray(nibabel.load(real / mni152.TRUTH).dataobj)
        shipped = dice_by_name(np.asarray(found.dataobj), maps, mni152.LABELS)
        print(
            "MNI152 T1w, Dice against the template's own maps: " + ", ".join(f"{k} {v:.3f}" for k, v in shipped.items())
        )
    with step("sample"):
        sample.write(data)
    with step("train"):
        if _epochs_done(output) >= max_epochs:
            print(f"{output / 'model.pt'} is trained already.")
        else:
            train = config_files("iseg", "train.json")
            run("training", train, **where, **SMALL, max_epochs=max_epochs, resume=True)
    with step("evaluate"):
        evaluation = run("evaluating", config_files("iseg", "train.json", "evaluate.json"), **where, **small)
    with step("segment"):
        segmentation = output / "segmentations" / "subject-1-T1_seg.nii.gz"
        if segmentation.is_file() and segmentation.stat().st_mtime > (output / "model.pt").stat().st_mtime:
            print(f"{segmentation} is there already.")
        else:
            run("inferring", config_files("iseg", "inference.json"), **where, **small)
    with step("export"):
        exported = export(config_files("iseg", "inference.json"), output, "torchscript", print_call)
        agreement = _agreement(evaluation, exported)
        print(f"The exported network gives the checkpoint's label at {agreement:.4%} of the voxels.")
    with step("figure"):
        figure = save_figure(subject_figure(evaluation), folder / "segmentation.png")
    with step("baseline"):
        labels = labels_of(evaluation)
        subject = {
            key: np.asarray(value.cpu()) for key, value in evaluated_subject(evaluation).items() if key != "loss"
        }
        truth, prediction = subject["label"].argmax(axis=0), subject["pred"].argmax(axis=0)
        dice = dice_by_name(prediction, truth, labels)
        baseline = dice_by_name(cluster_tissues(subject["image"], truth), truth, labels)

    files = {
        "MNI152, labels": folder / "segmentations",
        "data": data,
        "weights": output / "model.pt",
        "TorchScript": exported,
        "segmentation": segmentation,
        "scores": output / "evaluation" / "scores.csv",
        "TensorBoard": output / "tensorboard",
        "figure": figure,
        "summary": folder / "summary.json",
    }
    summary = {
        "shipped_on_mni152": shipped,
        "dice": dice,
        "baseline": baseline,
        "exported_agreement": agreement,
        "seconds": seconds,
        "files": {name: str(path) for name, path in files.items()},
        "note": WHAT_IT_IS,
    }
    with written_whole(folder / "summary.json") as partial:
        partial.write_text(json.dumps(summary, indent=4) + "\n")
    print(f"\n{'Dice':<12}{'network':>10}{'clustering':>12}")
    for name in dice:
        print(f"{name:<12}{dice[name]:>10.3f}{baseline[name]:>12.3f}")
    print(f"\n{WHAT_IT_IS}\n")
    for name, path in files.items():
        print(f"{name:<16}{path}")


def _epochs_done(output: Path) -> int:
    path = output / "last.pt"
    return load_checkpoint(path)["trainer"]["epoch"] if path.is_file() else 0


def _agreement(evaluation: Any, exported: Path) -> float:
    """The fraction of a whole volume's voxels where the exported network's label is the checkpoint's, in float32."""
    parsed = evaluation.parser.get_parsed_content
    device = parsed("device")
    image = torch.as_tensor(evaluated_subject(evaluation)["image"])[None].to(device)
    networks = parsed("network").eval(), torch.jit.load(str(exported), map_location=device).eval()
    windows = SlidingWindowInferer(parsed("roi_size"), overlap=0.25, mode="gaussian")
    with torch.no_grad():
        first, second = (windows(image, network).argmax(dim=1) for network in networks)
    return float((first == second).double().mean())
