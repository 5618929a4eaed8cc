"""Gliomas in four contrasts from either source, BraTS's files or the Decathlon's Task01, under one convention.

Channels FLAIR, T1, T1ce, T2; labels 0 background, 1 NCR (necrotic and non-enhancing core), 2 ED, 3 ET. Task01's codes
are others than BraTS's (1 edema, 2 non-enhancing, 3 enhancing), and it is read by custom.datasets.msd.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from custom.datasets import brats, msd
from custom.datasets.brats import CHANNELS as CHANNELS
from custom.datasets.brats import LABELS, REGIONS
from custom.errors import ConfigError, DataError

CODES = {"labels": (0, 1, 2, 3), "brats": brats.CODES, "msd": (0, 2, 1, 3)}  # by label, in each convention
SCORED = {name: (label,) for label, name in LABELS.items()} | {"TC": REGIONS["TC"], "WT": REGIONS["WT"]}  # ET is both
TASK01_CHANNELS = ("FLAIR", "T1w", "T1gd", "T2w")
_TASK01_LABELS = ("background", "edema", "non-enhancing", "enhancing")


def _module(dataset_dir: str | Path) -> ModuleType:
    return msd if (Path(dataset_dir).expanduser() / "dataset.json").is_file() else brats


def codes(dataset_dir: str | Path) -> tuple[int, ...]:
    """The label maps' codes in a folder, label 0's first."""
    return CODES["msd" if _module(dataset_dir) is msd else "brats"]


def ignore_code(dataset_dir: str | Path) -> int | None:
    """The label maps' code of voxels that nobody labelled, where a dataset.json names "ignore"; else None."""
    return msd.ignore_code(dataset_dir) if _module(dataset_dir) is msd else None


def ignore_index(dataset_dir: str | Path) -> int | None:
    """What `ignore_code` becomes after loading: the number of labels; None without it."""
    return None if ignore_code(dataset_dir) is None else len(LABELS)


def output_codes(convention: str) -> tuple[int, ...]:
    """The codes of a result.

    Args:
        convention: "labels" (0 to 3), "brats" (ET is 4) or "msd" (1 ED, 2 NCR, 3 ET).

    Raises:
        ConfigError: another one.
    """
    if convention not in CODES:
        raise ConfigError(f"output_codes must be one of {list(CODES)}, got {convention!r}.")
    return CODES[convention]


def datalist(dataset_dir: str | Path, split: str, fold: int = 0) -> list[dict[str, Any]]:
    """The cases of one split: by custom.datasets.msd if there is a dataset.json, else by custom.datasets.brats.

    Raises:
        DataError: dataset.json is of another task; else what the two raise.
    """
    module = _module(dataset_dir)
    if module is msd and (problem := _other_task(dataset_dir)):
        raise DataError(problem)
    cases: list[dict[str, Any]] = module.datalist(dataset_dir, split, fold)
    return cases


def verify(dataset_dir: str | Path) -> list[str]:
    """Reads every voxel and returns every problem found, each a sentence that names its file."""
    problems: list[str] = _module(dataset_dir).verify(dataset_dir)
    if not problems and _module(dataset_dir) is msd and (problem := _other_task(dataset_dir)):
        problems.append(problem)
    return problems


def _other_task(dataset_dir: str | Path) -> str:
    channels, labels = msd.channels(dataset_dir), msd.labels(dataset_dir)
    same = [name.lower() for name in channels] == [name.lower() for name in TASK01_CHANNELS] and len(labels) == 4
    if same and all(labels[code].lower().startswith(name) for code, name in enumerate(_TASK01_LABELS)):
        return ""
    return (
        f"{Path(dataset_dir)}/dataset.json has the channels {list(channels)} and labels {list(labels.values())}, not "
        f"Task01_BrainTumour's {list(TASK01_CHANNELS)} and {list(_TASK01_LABELS)}. Give that set's folder."
    )
