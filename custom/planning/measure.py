"""What a folder of labelled scans holds: subjects, sizes, voxel sizes, intensities and the share of each label."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, EnsureChannelFirstd, Orientationd
from monai.transforms.utils import generate_spatial_bounding_box

from custom.datasets import own_folder
from custom.datasets.split import FOLDS, split_by_participant
from custom.errors import DataError, MissingDataError
from custom.reading.volumes import open_volume, participant_of
from custom.transforms import EncodeLabelsd, LoadVolumesd


@dataclass(frozen=True)
class Case:
    """One labelled scan, its axes turned to RAS.

    Args:
        subject: its name in the folder.
        shape: voxels along each axis.
        spacing: voxel size in mm.
        box: voxels along each axis of the box around all voxels that are not 0.
        nonzero: the share of voxels that are not 0 in any channel, 0 to 1.
        ranges: the 1st and 99th percentile of each channel's voxels that are not 0.
        counts: voxels of each label, the background first.
    """

    subject: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    box: tuple[int, ...]
    nonzero: float
    ranges: tuple[tuple[float, float], ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Fingerprint:
    """What a folder holds.

    Args:
        folder: as the user named it.
        channels: their names, in the image's order.
        labels: {0: "background", 1: ...}.
        codes: of the labels in the files, label 0's first.
        ignore_code: of voxels that nobody labelled, or None.
        cases: every labelled scan, in natural order.
    """

    folder: Path
    channels: tuple[str, ...]
    labels: dict[int, str]
    codes: tuple[int, ...]
    ignore_code: int | None
    cases: tuple[Case, ...]

    @property
    def subjects(self) -> list[str]:
        """The participants: sub-01 for sub-01_ses-1 and sub-01_ses-2."""
        return list(dict.fromkeys(participant_of(case.subject) for case in self.cases))

    @property
    def training(self) -> list[str]:
        """The participants that train in fold 0."""
        return split_by_participant(self.subjects, "training", 0, self.folder)

    @property
    def spacing(self) -> tuple[float, ...]:
        """The median voxel size along each axis, in mm."""
        return tuple(round(statistics.median(case.spacing[axis] for case in self.cases), 3) for axis in range(3))

    @property
    def spacing_differs(self) -> bool:
        """Whether the voxel sizes of two scans differ by more than 1%."""
        sizes = np.array([case.spacing for case in self.cases])
        return bool((sizes.max(axis=0) > 1.01 * sizes.min(axis=0)).any())

    @property
    def nonzero(self) -> float:
        """The median share of voxels that are not 0."""
        return statistics.median(case.nonzero for case in self.cases)

    @property
    def shares(self) -> dict[str, float]:
        """{label: its share of all voxels}, without the background."""
        counts = np.array([case.counts for case in self.cases], dtype=np.float64).sum(axis=0)
        total = sum(float(np.prod(case.shape)) for case in self.cases)
        return {name: float(counts[label] / total) for label, name in self.labels.items() if label}

    def size_at(self, spacing: Sequence[float], box: bool = True) -> tuple[int, ...]:
        """The median size in voxels of another voxel size (mm), of the boxes around what is not 0 or of the scans."""
        sizes = [
            [count * own / new for count, own, new in zip(used, case.spacing, spacing, strict=True)]
            for case in self.cases
            for used in [case.box if box else case.shape]
        ]
        return tuple(round(statistics.median(size[axis] for size in sizes)) for axis in range(3))


def measure(folder: str | Path) -> Fingerprint:
    """Reads every labelled scan of a folder, one at a time.

    Raises:
        DataError: a file that cannot be used, or a folder that cannot be trained on (`refuse_what_cannot_train`).
    """
    folder = Path(folder).expanduser()
    cases = own_folder.labelled_cases(folder)
    for case in cases:
        _refuse_2d(case)
    labels, codes, ignored = own_folder.labels(folder), own_folder.codes(folder), own_folder.ignore_code(folder)
    load = Compose([
        LoadVolumesd(keys=["image", "label"]),
        EnsureChannelFirstd(keys=["image", "label"]),
        Orientationd(keys=["image", "label"], axcodes="RAS", labels=None),
        EncodeLabelsd(keys="label", codes=codes, ignore_code=ignored),
    ])  # fmt: skip
    measured = tuple(_measured(load(case), case["subject"], len(labels)) for case in cases)
    known = Fingerprint(folder, own_folder.channels(folder), labels, codes, ignored, measured)
    refuse_what_cannot_train(known)
    return known


def _refuse_2d(case: Mapping[str, Any]) -> None:
    for path in case["image"]:
        shape = open_volume(path).shape[:3]
        if len(shape) < 3 or min(shape) < 2:
            raise DataError(
                f"{path} is a 2D image (shape {tuple(shape)}), but only 3D scans are planned. Stack the slices of each "
                "scan into one volume."
            )


def _measured(item: Mapping[str, Any], subject: str, labels: int) -> Case:
    image = torch.as_tensor(item["image"]).as_subclass(torch.Tensor)
    label = torch.as_tensor(item["label"]).as_subclass(torch.Tensor)
    start, end = generate_spatial_bounding_box(image, lambda voxels: voxels != 0)
    ranges = []
    for channel in image:
        values = np.asarray(channel[channel != 0])
        low, high = np.percentile(values, (1, 99)) if values.size else (0.0, 0.0)
        ranges.append((float(low), float(high)))
    return Case(
        subject,
        tuple(image.shape[1:]),
        tuple(round(float(size), 4) for size in item["image"].pixdim),
        tuple(int(b - a) for a, b in zip(start, end, strict=True)),
        float((image != 0).any(dim=0).float().mean()),
        tuple(ranges),
        tuple(torch.bincount(label.flatten().long(), minlength=labels)[:labels].tolist()),
    )


def refuse_what_cannot_train(known: Fingerprint) -> None:
    """Raises DataError for fewer than three subjects, or a label without a voxel in the training split of fold 0."""
    count = len(known.subjects)
    if count < 3:
        only = "only one subject" if count == 1 else "only two subjects"
        raise MissingDataError(
            f"{known.folder} has {only} with labels ({', '.join(known.subjects)}). At least three are needed: one to "
            "train, one to validate and one to test."
        )
    if missing := missing_labels(known, "training", 0):
        raise DataError(
            f"{known.folder} has no voxel of {missing[0]} in the training split of fold 0 "
            f"({', '.join(known.training[:5])}{', ...' if len(known.training) > 5 else ''}). Add a subject that has "
            "it, or remove this label."
        )


def missing_labels(known: Fingerprint, split: str, fold: int) -> list[str]:
    """The labels without a voxel in one split of one fold."""
    names = split_by_participant(known.subjects, split, fold, known.folder)
    counts = np.array([case.counts for case in known.cases if participant_of(case.subject) in names]).sum(axis=0)
    return [name for label, name in known.labels.items() if label and not counts[label]]


def notes(known: Fingerprint) -> list[str]:
    """What a user should know before training, a sentence each: mixed voxel sizes, folds without a label."""
    sentences = []
    if known.spacing_differs:
        sizes = sorted({case.spacing for case in known.cases})
        sentences.append(
            f"The voxel sizes differ, from {_mm(sizes[0])} to {_mm(sizes[-1])} mm: all scans are resampled to "
            f"{_mm(known.spacing)} mm."
        )
    others = len(known.subjects) - len(known.subjects[::FOLDS])
    for fold in range(min(FOLDS, others)):
        for split in ("training", "validation"):
            missing = missing_labels(known, split, fold)
            sentences += [f"Fold {fold} has no voxel of {name} in its {split} split." for name in missing]
    return sentences


def _mm(spacing: Sequence[float]) -> str:
    return "x".join(f"{size:g}" for size in spacing)
