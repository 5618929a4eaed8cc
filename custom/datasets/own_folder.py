"""A user's own folder of labelled scans, in the form of the Decathlon, of nnU-Net or of BIDS.

custom.datasets.msd reads a folder with a dataset.json, custom.datasets.bids one with a dataset_description.json.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from custom.datasets import bids, msd
from custom.errors import MissingDataError
from custom.reading.volumes import existing_folder

FORMS = {"dataset.json": msd, "dataset_description.json": bids}
HOW_TO_GET = (
    "The folder needs a dataset.json with imagesTr and labelsTr (nnU-Net, Decathlon), or a dataset_description.json "
    "(BIDS). docs/own-data.md shows the forms."
)


def is_labelled_folder(path: str | Path) -> bool:
    """Whether a path is a folder in one of the forms."""
    return any((Path(path).expanduser() / name).is_file() for name in FORMS)


def reader_of(dataset_dir: str | Path) -> ModuleType:
    """The module that reads a folder.

    Raises:
        MissingDataError: no folder, or one in none of the forms.
    """
    folder = existing_folder(dataset_dir, HOW_TO_GET)
    for name, module in FORMS.items():
        if (folder / name).is_file():
            return module
    raise MissingDataError(f"{folder} has neither {' nor '.join(FORMS)}. {HOW_TO_GET}")


def labels(dataset_dir: str | Path) -> dict[int, str]:
    """{0: "background", 1: ...}: the meaning of a voxel's value after loading."""
    known: dict[int, str] = reader_of(dataset_dir).labels(dataset_dir)
    return known


def codes(dataset_dir: str | Path) -> tuple[int, ...]:
    """The label maps' codes in the files, label 0's first."""
    module = reader_of(dataset_dir)
    known: tuple[int, ...] = bids.codes(dataset_dir) if module is bids else tuple(module.labels(dataset_dir))
    return known


def channels(dataset_dir: str | Path) -> tuple[str, ...]:
    """The image's channels in their order."""
    known: tuple[str, ...] = reader_of(dataset_dir).channels(dataset_dir)
    return known


def ignore_code(dataset_dir: str | Path) -> int | None:
    """The files' code of voxels that nobody labelled, or None."""
    code: int | None = reader_of(dataset_dir).ignore_code(dataset_dir)
    return code


def labelled_cases(dataset_dir: str | Path) -> list[dict[str, Any]]:
    """All cases with labels, of any split, in natural order. Raises what `datalist` raises."""
    cases: list[dict[str, Any]] = reader_of(dataset_dir).labelled_cases(dataset_dir)
    return cases


def datalist(dataset_dir: str | Path, split: str, fold: int = 0) -> list[dict[str, Any]]:
    """The cases of one split, as custom.datasets.msd.datalist gives them."""
    cases: list[dict[str, Any]] = reader_of(dataset_dir).datalist(dataset_dir, split, fold)
    return cases


def verify(dataset_dir: str | Path) -> list[str]:
    """Reads every voxel and returns every problem found, each a sentence that names its file."""
    try:
        problems: list[str] = reader_of(dataset_dir).verify(dataset_dir)
    except MissingDataError as error:
        return [str(error)]
    return problems
