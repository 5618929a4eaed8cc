"""A planned bundle beside the hand-made one: the same subjects, the same number of steps, the same seed.

    python scripts/benchmarks/planned.py iseg WORK                 # two channels, beside iseg_mri_tissue_segmentation
    python scripts/benchmarks/planned.py tumors WORK               # four channels, beside brats_mri_tumor_segmentation
    python scripts/benchmarks/planned.py heads WORK --maps MAPS    # one channel, beside brain_mri_tissue_segmentation

Each form writes a simulated sample in nnU-Net's form to WORK/SAMPLE, ten labelled subjects in imagesTr and eight more
in imagesTs. It runs `brainmri verify`, `plan`, `train` and `infer` on it as a user would, and trains the hand-made
bundle on the same training and validation subjects, for as many steps of windows as large as the plan's. MAPS is the
folder of SynthSeg's maps (custom.datasets.synthseg_labels): the labelled heads are drawn from the maps that the shipped
weights were trained on, those of imagesTs from the four that they were not. The hand-made side of "heads" is the
shipped weights as they are, because the plan is the one way to fine-tune them.

It prints the Dice of each label on the grid of the files of imagesTs: mean and standard deviation over subjects, and
the mean difference with its 95% interval over subjects (bootstrap); and the seconds of each command. A second call
goes on where the first one stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np
import torch

from custom.datasets import freesurfer, own_folder
from custom.datasets import synthseg_labels as maps
from custom.files import folder_written_whole, read_json, written_whole
from custom.metrics.bootstrap import bootstrap_intervals
from custom.samples import iseg, tumor
from custom.transforms import Structures, SynthesizeScand

LABELLED, NEW = 10, 8  # subjects that train, validate and test; subjects that nobody sees before the end
TUMOR_CODES = (0, 2, 1, 3)  # of custom.samples.tumor's labels in Task01's files
Subject = tuple[list[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Sample:
    """One data set and its two sides.

    Args:
        channels: as dataset.json names them.
        labels: as dataset.json names them, the background first.
        affine: of all files.
        subjects: draws them in turn: the channels, and the label codes.
        bundle: the hand-made one.
        options: of the hand-made bundle's training.
        epochs: of both.
        planning: options of the plan's training.
    """

    channels: Sequence[str]
    labels: Sequence[str]
    affine: np.ndarray
    subjects: Callable[[], Iterator[Subject]]
    bundle: str
    options: Mapping[str, str]
    epochs: int
    planning: Mapping[str, str] = field(default_factory=dict)


def infants(spacing: int) -> Sample:
    """The subjects of `brainmri sample iseg`."""
    anatomy, size = iseg.tissue_maps(spacing)

    def subjects() -> Iterator[Subject]:
        for number in range(1, LABELLED + NEW + 1):
            files = iseg.subject(anatomy, size, "infant", np.random.default_rng([0, number]))
            yield [files["T1"], files["T2"]], np.searchsorted(iseg.CODES, files["label"])

    labels, codes = ("background", "CSF", "GM", "WM"), {"codes": "[0,1,2,3]"}
    return Sample(("T1", "T2"), labels, np.diag([*size, 1.0]), subjects, "iseg_mri_tissue_segmentation", codes, 12)


def tumors(spacing: int) -> Sample:
    """The patients of `brainmri sample msd`."""
    anatomy, size = iseg.tissue_maps(spacing)

    def subjects() -> Iterator[Subject]:
        for number in range(1, LABELLED + NEW + 1):
            files = tumor.patient(anatomy, size, np.random.default_rng([0, number]))
            yield [files[name] for name in ("FLAIR", "T1", "T1ce", "T2")], np.take(TUMOR_CODES, files["label"])

    labels = ("background", "edema", "non-enhancing tumor", "enhancing tumor")
    channels = ("FLAIR", "T1w", "t1gd", "T2w")
    return Sample(channels, labels, np.diag([*size, 1.0]), subjects, "brats_mri_tumor_segmentation", {}, 24)


def heads(folder: Path) -> Sample:
    """T1w heads of 1.5 mm, drawn from SynthSeg's maps."""
    structures = Structures(maps.labels_by_code(freesurfer.LABELS), maps.STRUCTURES, maps.BRIGHT_AS)
    draw = SynthesizeScand("label", structures, stripped=0, cut=0, contrast="T1", track_meta=False)
    draw.set_random_state(0)

    def subjects() -> Iterator[Subject]:
        known, new = (maps.datalist(folder, split) for split in ("training", "validation"))
        for item in [*known[:LABELLED], *new, *new]:
            codes = np.asarray(nibabel.load(item["label"]).dataobj).astype(np.int16)
            drawn = draw({"label": torch.as_tensor(codes)[None]})
            yield [np.rint(1000 * drawn["image"][0].numpy()).astype(np.int16)], drawn["label"][0].numpy()

    affine = np.diag([1.5, 1.5, 1.5, 1.0])
    labels = tuple(freesurfer.LABELS.values())
    window = {"roi_size": "[64,80,80]"}  # a fifth of the plan's, so that a CPU does some hundred steps
    return Sample(("T1w",), labels, affine, subjects, "brain_mri_tissue_segmentation", {}, 10, window)


def write(sample: Sample, folder: Path) -> None:
    """In nnU-Net's form, with the labels of imagesTs in labelsTs."""
    with folder_written_whole(folder) as partial:
        for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
            (partial / name).mkdir()
        for number, (channels, label) in enumerate(sample.subjects(), start=1):
            part, case = "Tr" if number <= LABELLED else "Ts", f"sub-{number:02d}"
            for channel, voxels in enumerate(channels):
                image = nibabel.Nifti1Image(voxels, sample.affine)
                nibabel.save(image, partial / f"images{part}" / f"{case}_{channel:04d}.nii.gz")
            image = nibabel.Nifti1Image(label.astype(np.uint8), sample.affine)
            nibabel.save(image, partial / f"labels{part}" / f"{case}.nii.gz")
        content = {
            "channel_names": {str(number): name for number, name in enumerate(sample.channels)},
            "labels": {name: code for code, name in enumerate(sample.labels)},
            "file_ending": ".nii.gz",
        }
        (partial / "dataset.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


class Commands:
    """`brainmri` in a folder. A command that has succeeded is not run again; times.json keeps its seconds."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "times.json"
        self.seconds: dict[str, float] = read_json(self.file) if self.file.is_file() else {}

    def __call__(self, name: str, *words: str) -> None:
        """Runs one; its output goes to NAME.log."""
        if name in self.seconds:
            return
        path = os.pathsep.join(map(os.path.abspath, filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))))
        print(f"{name}: brainmri {' '.join(words)}"[:200], flush=True)
        began = time.monotonic()
        with (self.folder / f"{name}.log").open("w", encoding="utf-8") as log:
            call = [sys.executable, "-m", "custom.cli", *words]
            environment = os.environ | {"PYTHONPATH": path}
            done = subprocess.run(call, cwd=self.folder, env=environment, stdout=log, stderr=log, check=False)
        if done.returncode:
            sys.exit(f"{name} failed: see {log.name}")
        self.seconds[name] = round(time.monotonic() - began, 1)
        with written_whole(self.file) as partial:
            partial.write_text(json.dumps(self.seconds, indent=1) + "\n", encoding="utf-8")


def run(name: str, sample: Sample, work: Path, epochs: int) -> None:
    """All commands of one sample, and the table."""
    folder = work / name
    if not folder.exists():
        write(sample, folder)
    brainmri = Commands(work)
    length = ("--max_epochs", str(epochs), "--val_interval", str(max(1, epochs // 5)))
    images = {
        path.name.removesuffix(".nii.gz"): [
            str(folder / "imagesTs" / f"{path.name.removesuffix('.nii.gz')}_{channel:04d}.nii.gz")
            for channel in range(len(sample.channels))
        ]
        for path in sorted((folder / "labelsTs").iterdir())
    }
    data = str([{"image": paths} for paths in images.values()])
    brainmri(f"{name}_verify", "verify", name)
    brainmri(f"{name}_plan", "plan", name)
    planned = f"{name}_bundle"
    given = [word for key, value in sample.planning.items() for word in (f"--{key}", value)]
    brainmri(f"{name}_train", "train", name, *length, *given)
    brainmri(f"{name}_infer", "infer", planned, "--data", data, "--output_dir", f"{name}_planned")
    sides = {}
    if name == "heads":
        shipped = ("--labels", f"${dict(enumerate(sample.labels))!r}")
        place = ("--output_dir", f"{name}_shipped")
        brainmri(f"{name}_infer_shipped", "infer", sample.bundle, "--data", data, *shipped, *place)
        sides["as shipped"] = work / f"{name}_shipped"
    else:
        window = read_json(work / planned / "configs/train.json")["roi_size"]
        split = {
            f"--{part}#dataset#data": f"${own_folder.datalist(folder, which)!r}"
            for part, which in (("train", "training"), ("validate", "validation"))
        }
        options = {f"--{key}": value for key, value in sample.options.items()} | split
        options |= {"--dataset_dir": name, "--roi_size": str(window), "--output_dir": f"{name}_hand"}
        words = [word for pair in options.items() for word in pair]
        brainmri(f"{name}_train_hand", "train", sample.bundle, *words, *length)
        brainmri(
            f"{name}_infer_hand", "infer", sample.bundle, "--data", data, "--output_dir", f"{name}_hand",
            "--dataset_dir", name,
        )  # fmt: skip
        sides["hand-made"] = work / f"{name}_hand"
    sides["planned"] = work / f"{name}_planned"
    dice = {side: scores(place, images, folder, sample) for side, place in sides.items()}
    report(sample, dice, list(images))
    for command, seconds in brainmri.seconds.items():
        if command.startswith(name):
            print(f"{command:<24}{seconds:>8.0f} s")


def scores(place: Path, images: Mapping[str, list[str]], folder: Path, sample: Sample) -> np.ndarray:
    """Dice (subjects, labels) of one side's files, NaN for a label that both lack; the last column is the mean."""
    rows = []
    for case, paths in images.items():
        stem = Path(paths[0]).name.removesuffix(".nii.gz")
        predicted = np.squeeze(np.asarray(nibabel.load(place / "segmentations" / f"{stem}_seg.nii.gz").dataobj))
        reference = np.asarray(nibabel.load(folder / "labelsTs" / f"{case}.nii.gz").dataobj)
        row = []
        for code in range(1, len(sample.labels)):
            found, wanted = predicted == code, reference == code
            total = int(found.sum()) + int(wanted.sum())
            row.append(2 * int((found & wanted).sum()) / total if total else math.nan)
        rows.append([*row, float(np.nanmean(row))])
    return np.array(rows)


def report(sample: Sample, dice: Mapping[str, np.ndarray], cases: Sequence[str]) -> None:
    """A Markdown table: each side, and planned minus the other."""
    other, planned = next(iter(dice)), list(dice)[-1]
    print(f"| label | n | {' | '.join(dice)} | {planned} minus {other} |\n|---|---|{'---|' * (len(dice) + 1)}")
    for column, label in enumerate([*sample.labels[1:], "mean"]):
        values = {side: table[:, column] for side, table in dice.items()}
        difference = values[planned] - values[other]
        interval = bootstrap_intervals({"mean": lambda rows, d=difference: float(np.nanmean(d[rows]))}, cases)["mean"]
        cells = [f"{np.nanmean(value):.3f} ({np.nanstd(value):.3f})" for value in values.values()]
        count = int(np.isfinite(difference).sum())
        span = f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"
        print(f"| {label} | {count} | {' | '.join(cells)} | {span} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sample", choices=("iseg", "tumors", "heads"))
    parser.add_argument("work", type=Path)
    parser.add_argument("--spacing", type=int, help="of the sample in mm (default: 2 for iseg, 3 for tumors)")
    parser.add_argument("--maps", type=Path, help="SynthSeg's label maps, for heads")
    parser.add_argument("--epochs", type=int)
    options = parser.parse_args()
    work = options.work.expanduser().absolute()
    work.mkdir(parents=True, exist_ok=True)
    if options.sample == "heads":
        if options.maps is None:
            parser.error("heads needs --maps, the folder of SynthSeg's label maps.")
        sample = heads(options.maps)
    else:
        sample = infants(options.spacing or 2) if options.sample == "iseg" else tumors(options.spacing or 3)
    run(options.sample, sample, work, options.epochs or sample.epochs)


if __name__ == "__main__":
    main()
