"""From nothing to a segmented brain: the shipped weights on a real scan, then every step of the iSeg bundle."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import SlidingWindowInferer

import custom
from custom.baselines.clustering import cluster_tissues
from custom.checkpoints.find import trained_weights
from custom.checkpoints.load import load_checkpoint
from custom.commands.export import export
from custom.commands.segment import segment
from custom.errors import DataError
from custom.files import written_whole
from custom.metrics import dice_by_name
from custom.reading.volumes import open_volume
from custom.reports.of_run import evaluated_subject, save_figure, subject_figure
from custom.running import Predictor
from custom.running.bundles import config_files, labels_of_run
from custom.running.workflow import print_call, run
from custom.samples import iseg as sample
from custom.samples import mni152

WHAT_IT_IS = (
    "A smoke test on simulated contrast and one template's anatomy (n = 1 subject), not a result on the iSeg "
    f"challenge. The clustering is given the true brain mask. {custom.RESEARCH_USE_ONLY}"
)
SMALL = {"roi_size": [64, 64, 64], "samples_per_volume": 2, "learning_rate": 0.003, "val_interval": 10}


class Quickstart:
    """The steps, in order. Each reuses what an earlier run left in the folder.

    Args:
        folder: for all files.
        max_epochs: of the training.
    """

    def __init__(self, folder: Path, max_epochs: int) -> None:
        self.folder, self.max_epochs = folder, max_epochs
        self.data, self.output = folder / "sample", folder / "run"
        self.where = {"dataset_dir": str(self.data), "output_dir": str(self.output)}
        self.small = {"roi_size": SMALL["roi_size"]}
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Prints the name of a step and measures its time."""
        print(f"\n== {name}", flush=True)
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 1)

    def segment_real_brain(self) -> dict[str, float]:
        """Segments the MNI152 template with the shipped weights; returns Dice against the template's own maps."""
        real, segmentations = mni152.write(self.folder / "mni152"), self.folder / "segmentations"
        predictor = Predictor(config_files("brain_mri_tissue", "inference.json"), output_dir=str(segmentations))
        if segment(predictor, [str(real / mni152.T1)], segmentations):
            raise DataError(f"{real / mni152.T1} could not be segmented, as listed above.")
        labels = open_volume(segmentations / "sub-mni152_desc-T1w_dseg.nii.gz")
        maps = np.asarray(open_volume(real / mni152.TRUTH).dataobj)
        dice = dice_by_name(np.asarray(labels.dataobj), maps, mni152.LABELS)
        values = ", ".join(f"{name} {value:.3f}" for name, value in dice.items())
        print(f"MNI152 T1w, Dice against the template's own maps: {values}")
        return dice

    def train(self) -> None:
        """Trains, unless an earlier run did."""
        if _epochs_done(self.output) >= self.max_epochs:
            print(f"{trained_weights(self.output)} is trained already.")
        else:
            files = config_files("iseg", "train.json")
            run("training", files, **self.where, **SMALL, max_epochs=self.max_epochs, resume=True)

    def segment_sample(self) -> Path:
        """Segments the test subject, unless its segmentation is newer than the weights; returns the label map."""
        segmentation = self.output / "segmentations" / "subject-1-T1_seg.nii.gz"
        if segmentation.is_file() and segmentation.stat().st_mtime > (trained_weights(self.output)).stat().st_mtime:
            print(f"{segmentation} is there already.")
        else:
            run("inferring", config_files("iseg", "inference.json"), **self.where, **self.small)
        return segmentation

    def summarise(self, results: dict[str, Any], files: dict[str, Path]) -> None:
        """Writes summary.json, and prints both Dice scores and the files."""
        about = {"files": {name: str(path) for name, path in files.items()}, "note": WHAT_IT_IS}
        with written_whole(files["summary"]) as partial:
            partial.write_text(json.dumps(results | {"seconds": self.seconds} | about, indent=4) + "\n")
        print(f"\n{'Dice':<12}{'network':>10}{'clustering':>12}")
        for name, value in results["dice"].items():
            print(f"{name:<12}{value:>10.3f}{results['baseline'][name]:>12.3f}")
        print(f"\n{WHAT_IT_IS}\n")
        for name, path in files.items():
            print(f"{name:<16}{path}")


def main(folder: Path, max_epochs: int) -> None:
    """Runs all steps, reusing what an earlier run left in `folder`; prints a table and writes summary.json."""
    steps = Quickstart(folder, max_epochs)
    with steps.step("segment a real brain with the shipped weights"):
        shipped = steps.segment_real_brain()
    with steps.step("sample"):
        sample.write(steps.data)
    with steps.step("train"):
        steps.train()
    with steps.step("evaluate"):
        files = config_files("iseg", "train.json", "evaluate.json")
        evaluation = run("evaluating", files, **steps.where, **steps.small)
    with steps.step("segment"):
        segmentation = steps.segment_sample()
    with steps.step("export"):
        exported = export(config_files("iseg", "inference.json"), steps.output, "torchscript", print_call)
        agreement = _agreement(evaluation, exported)
        print(f"The exported network gives the checkpoint's label at {agreement:.4%} of the voxels.")
    with steps.step("figure"):
        figure = save_figure(subject_figure(evaluation), folder / "segmentation.png")
    with steps.step("baseline"):
        dice, baseline = _network_and_clustering(evaluation)
    results = {"shipped_on_mni152": shipped, "dice": dice, "baseline": baseline, "exported_agreement": agreement}
    written = {
        "MNI152, labels": folder / "segmentations",
        "data": steps.data,
        "weights": trained_weights(steps.output),
        "TorchScript": exported,
        "segmentation": segmentation,
        "scores": steps.output / "evaluation" / "scores.csv",
        "TensorBoard": steps.output / "tensorboard",
        "figure": figure,
        "summary": folder / "summary.json",
    }
    steps.summarise(results, written)


def _network_and_clustering(evaluation: Any) -> tuple[dict[str, float], dict[str, float]]:
    """Dice of the network and of the clustering baseline on the evaluated subject."""
    labels = labels_of_run(evaluation.parser)
    subject = {key: np.asarray(value.cpu()) for key, value in evaluated_subject(evaluation).items() if key != "loss"}
    reference, prediction = subject["label"].argmax(axis=0), subject["pred"].argmax(axis=0)
    clusters = cluster_tissues(subject["image"], reference)
    return dice_by_name(prediction, reference, labels), dice_by_name(clusters, reference, labels)


def _epochs_done(output: Path) -> int:
    path = output / "last.pt"
    return int(load_checkpoint(path)["trainer"]["epoch"]) if path.is_file() else 0


def _agreement(evaluation: Any, exported: Path) -> float:
    """The fraction of a whole volume's voxels where the exported network's label is the checkpoint's, in float32."""
    parsed = evaluation.parser.get_parsed_content
    device = parsed("device")
    image = torch.as_tensor(evaluated_subject(evaluation)["image"])[None].to(device)
    networks = parsed("network").eval(), torch.jit.load(str(exported), map_location=device).eval()
    windows = SlidingWindowInferer(parsed("roi_size"), overlap=0.25, mode="gaussian")
    with torch.no_grad():
        first, second = (torch.as_tensor(windows(image, network)).argmax(dim=1) for network in networks)
    return float((first == second).double().mean())
