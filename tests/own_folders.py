"""Samples in the forms in which users keep labelled scans: nnU-Net's and BIDS's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from custom.planning.measure import Case, Fingerprint

ISEG_CODES = (0, 10, 150, 250)


def fingerprint(
    subjects: int = 30, channels: int = 1, spacing: tuple[float, ...] = (1, 1, 1), **more: Any
) -> Fingerprint:
    """Head-sized scans of 180 mm along each axis."""
    shape = tuple(round(180 / size) for size in spacing)
    settings = {"box": shape, "nonzero": 1.0, "ranges": ((0.0, 1.0),) * channels, "counts": (10, 5)} | more
    cases = tuple(Case(f"sub-{n}", shape, tuple(map(float, spacing)), **settings) for n in range(1, subjects + 1))
    names = tuple(f"T{n}w" for n in range(1, channels + 1))
    return Fingerprint(Path("mine"), names, {0: "background", 1: "lesion"}, (0, 1), None, cases)


def as_nnunet(
    cases: Sequence[Mapping[str, Any]],
    folder: Path,
    channels: Sequence[str],
    labels: Sequence[str],
    codes: Sequence[int] | None = None,
) -> Path:
    """Writes labelled cases as imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz and a dataset.json (version 2).

    Args:
        cases: with "subject", "image" (a file for each channel, or one 4D file) and "label".
        folder: to write to.
        channels: their names.
        labels: their names, "background" first.
        codes: of the labels in the files, if they are not 0, 1, ...
    """
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for case in cases:
        scans = [nibabel.load(path) for path in case["image"]]
        volumes = [np.squeeze(np.asarray(scan.dataobj, dtype=np.float32)) for scan in scans]
        if len(volumes) == 1 and volumes[0].ndim == 4:
            volumes = list(np.moveaxis(volumes[0], -1, 0))
        for number, volume in enumerate(volumes):
            name = f"{case['subject']}_{number:04d}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(volume, scans[0].affine), folder / "imagesTr" / name)
        found = np.squeeze(np.asarray(nibabel.load(case["label"]).dataobj))
        label = np.zeros(found.shape, dtype=np.uint8)
        for value, code in enumerate(codes or range(len(labels))):
            label[np.rint(found) == code] = value
        nibabel.save(nibabel.Nifti1Image(label, scans[0].affine), folder / "labelsTr" / f"{case['subject']}.nii.gz")
    write_dataset_json(folder, channels, labels)
    return folder


def write_dataset_json(folder: Path, channels: Sequence[str], labels: Sequence[str], **more: Any) -> None:
    """nnU-Net's version 2."""
    content = {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": {name: code for code, name in enumerate(labels)},
        "file_ending": ".nii.gz",
        **more,
    }
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")


def blob(
    folder: Path,
    subject: str,
    shape: tuple[int, ...] = (24, 24, 24),
    spacing: Sequence[float] = (2.0, 2.0, 2.0),
    codes: Sequence[int] = (1,),
    channels: int = 1,
) -> None:
    """One case of nnU-Net's form: cubes of each code, bright in noise."""
    rng = np.random.default_rng(len(subject) + sum(map(ord, subject)))
    label = np.zeros(shape, dtype=np.uint8)
    for number, code in enumerate(codes):
        label[4 + 6 * number : 10 + 6 * number, 6:16, 6:16] = code
    affine = np.diag([*spacing, 1.0])
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for channel in range(channels):
        image = (rng.normal(10, 1, shape) + 3 * label).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(image, affine), folder / f"imagesTr/{subject}_{channel:04d}.nii.gz")
    nibabel.save(nibabel.Nifti1Image(label, affine), folder / f"labelsTr/{subject}.nii.gz")


def as_bids(folder: Path, cases: Sequence[str], codes: Sequence[int], channels: Sequence[str] = ("T1w",)) -> Path:
    """Cases such as "sub-01" or "sub-01_ses-1" in BIDS, with one derivative of label maps, without a *_dseg.tsv."""
    rng = np.random.default_rng(0)
    for case in cases:
        place = Path(*case.split("_"), "anat")
        label = np.zeros((24, 24, 24), dtype=np.int16)
        for number, code in enumerate(codes):
            label[4 + 6 * number : 10 + 6 * number, 6:16, 6:16] = code
        raw, derived = folder / place, folder / "derivatives/manual" / place
        raw.mkdir(parents=True)
        derived.mkdir(parents=True)
        for channel in channels:
            image = (rng.normal(10, 1, label.shape) + 3 * (label > 0)).astype(np.float32)
            nibabel.save(nibabel.Nifti1Image(image, np.diag([2.0, 2, 2, 1])), raw / f"{case}_{channel}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, np.diag([2.0, 2, 2, 1])), derived / f"{case}_dseg.nii.gz")
    (folder / "dataset_description.json").write_text('{"Name": "own", "BIDSVersion": "1.9.0"}')
    return folder
