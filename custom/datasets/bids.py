"""Raw scans in BIDS, with label maps of a derivative: sub-01/anat/sub-01_T1w.nii.gz and derivatives/*/..._dseg.nii.gz.

Files:
- dataset_description.json in the folder itself.
- Scans: sub-<label>/[ses-<label>/]anat/*_<suffix>.nii.gz. Each suffix (T1w, T2w, FLAIR, ...) that every labelled
  session has is a channel, in the order of their names.
- Labels: derivatives/<pipeline>/sub-<label>/[ses-<label>/]anat/*_dseg.nii.gz, one for each session, on the scan's grid.
- Names of labels: a *_dseg.tsv with the columns "index" and "name", beside the label map or in a folder above it.
  Without one, the labels are "label 1", "label 2", ... for the codes that the label maps hold.

Source: Gorgolewski et al. 2016, The brain imaging data structure, Scientific Data 3, 160044; BIDS specification 1.9,
"Common derivatives: segmentations".
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from custom.datasets.split import split_by_participant
from custom.errors import DataError, MissingDataError
from custom.reading.labels import LabelCodes
from custom.reading.volumes import (
    case_problems,
    existing_folder,
    natural_order,
    participant_of,
    read_volume,
    require_one_grid,
)

DESCRIPTION = "dataset_description.json"
ENDINGS = (".nii.gz", ".nii")
HOW_TO_GET = "A BIDS folder has sub-*/anat/*.nii.gz, and label maps derivatives/*/sub-*/anat/*_dseg.nii.gz."
_SESSION = re.compile(r"(sub-[a-zA-Z0-9]+)(?:_(ses-[a-zA-Z0-9]+))?_")
_SUFFIX = re.compile(r"_([a-zA-Z0-9]+)\.nii(?:\.gz)?$")


def channels(dataset_dir: str | Path) -> tuple[str, ...]:
    """The suffixes that every labelled session has.

    Raises:
        DataError: no label map, or no suffix that all sessions share.
    """
    folder = _folder(dataset_dir)
    scans, label_maps = _scans(folder), _label_maps(folder)
    shared = set.intersection(*(set(scans.get(session, {})) for session in label_maps))
    if not shared:
        has = ", ".join(f"{name}: {'/'.join(sorted(scans.get(name, {}))) or 'none'}" for name in list(label_maps)[:4])
        raise DataError(f"{folder} has no contrast that every labelled session has ({has}). Remove the labels of some.")
    return tuple(sorted(shared))


def labels(dataset_dir: str | Path) -> dict[int, str]:
    """{0: "background", 1: ...}: the meaning of a voxel's value after loading."""
    return dict(enumerate(_names_by_code(_folder(dataset_dir)).values()))


def codes(dataset_dir: str | Path) -> tuple[int, ...]:
    """The codes in the label maps, label 0's first."""
    return tuple(_names_by_code(_folder(dataset_dir)))


def ignore_code(dataset_dir: str | Path) -> int | None:
    """None: BIDS has no code for voxels that nobody labelled."""
    del dataset_dir
    return None  # as in the other modules


def labelled_cases(dataset_dir: str | Path) -> list[dict[str, Any]]:
    """The cases that have a label map, in natural order.

    Returns:
        [{"subject": "sub-01_ses-1", "image": [a path for each channel], "label": path}, ...]

    Raises:
        DataError: no label map, several scans of one contrast in a session, or files of one case on different grids.
    """
    folder, suffixes = _folder(dataset_dir), channels(dataset_dir)
    scans = _scans(folder)
    cases: list[dict[str, Any]] = [
        {"subject": session, "image": [_only(scans[session][suffix]) for suffix in suffixes], "label": _only(paths)}
        for session, paths in _label_maps(folder).items()
    ]
    for case in cases:
        require_one_grid([*case["image"], case["label"]])
    return cases


def datalist(dataset_dir: str | Path, split: str, fold: int = 0) -> list[dict[str, Any]]:
    """The cases of one split, split by participant as custom.datasets.msd.datalist does.

    Raises:
        ConfigError: an unknown split or fold.
        DataError: as `labelled_cases`; no case for the split.
    """
    if split == "unlabelled":
        folder, suffixes = _folder(dataset_dir), channels(dataset_dir)
        labelled = _label_maps(folder)
        others = {name: of for name, of in _scans(folder).items() if name not in labelled and set(suffixes) <= set(of)}
        if not others:
            raise MissingDataError(f"{folder} has no case without a label. Set split to training, validation or test.")
        return [{"subject": name, "image": [_only(of[suffix]) for suffix in suffixes]} for name, of in others.items()]
    cases = labelled_cases(dataset_dir)
    wanted = split_by_participant((participant_of(case["subject"]) for case in cases), split, fold, dataset_dir)
    return [case for case in cases if participant_of(case["subject"]) in wanted]


def verify(dataset_dir: str | Path) -> list[str]:
    """Reads every voxel and returns every problem found, each a sentence that names its file."""
    try:
        cases = labelled_cases(dataset_dir)
        known = LabelCodes(codes(dataset_dir))
    except DataError as error:
        return [str(error)]
    problems = []
    for case in cases:
        problems += case_problems({Path(path): None for path in case["image"]} | {Path(case["label"]): known})
    return problems


def _folder(dataset_dir: str | Path) -> Path:
    folder = existing_folder(dataset_dir, HOW_TO_GET)
    if not (folder / DESCRIPTION).is_file():
        raise MissingDataError(f"{folder / DESCRIPTION} does not exist. {HOW_TO_GET}")
    return folder


def _session_of(path: Path) -> str:
    match = _SESSION.match(path.name)
    return "_".join(part for part in match.groups() if part) if match else ""


def _scans(folder: Path) -> dict[str, dict[str, list[Path]]]:
    """{"sub-01_ses-1": {"T1w": [path, ...]}}, the sessions in natural order."""
    found: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    paths = [path for depth in ("", "ses-*/") for path in folder.glob(f"sub-*/{depth}anat/sub-*.nii*")]
    for path in sorted(paths, key=natural_order):
        suffix = _SUFFIX.search(path.name)
        if suffix and suffix[1] not in ("mask", "dseg", "probseg") and (session := _session_of(path)):
            found[session][suffix[1]].append(path)
    return {name: dict(found[name]) for name in sorted(found, key=natural_order)}


def _label_maps(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for ending in ENDINGS:
        for path in sorted(folder.glob(f"derivatives/*/**/sub-*_dseg{ending}"), key=natural_order):
            found[_session_of(path)].append(path)
    if not found:
        raise MissingDataError(f"{folder} has no label map derivatives/*/sub-*/anat/*_dseg.nii.gz. {HOW_TO_GET}")
    return {name: found[name] for name in sorted(found, key=natural_order)}


def _only(paths: list[Path]) -> str:
    if len(paths) > 1:
        raise DataError(f"{paths[0]} and {paths[1]} are of one session. Keep one of them in this folder.")
    return str(paths[0])


def _names_by_code(folder: Path) -> dict[int, str]:
    """{0: "background", 2: "WM", ...} of the *_dseg.tsv, else of the codes in the label maps."""
    maps = [_only(paths) for paths in _label_maps(folder).values()]
    tables = _tables(folder, Path(maps[0]))
    if tables:
        try:
            table = pandas.read_csv(tables[0], sep="\t", dtype={"name": str})
            names = {int(code): str(name) for code, name in zip(table["index"], table["name"], strict=True)}
        except (KeyError, ValueError, pandas.errors.ParserError) as error:
            raise DataError(f'{tables[0]} needs the columns "index" (whole numbers) and "name".') from error
    else:
        found = sorted({int(code) for path in maps for code in np.unique(np.rint(read_volume(path)))})
        names = {code: f"label {code}" for code in found}
    names = {0: "background"} | {code: names[code] for code in sorted(names) if code}
    if len(names) < 2:
        raise DataError(f"{folder} has label maps without any label. Give label maps with codes other than 0.")
    if len(set(names.values())) < len(names):
        raise DataError(f"{tables[0]} gives several codes one name. Give each code a name of its own.")
    return names


def _tables(folder: Path, label_map: Path) -> list[Path]:
    """The *dseg.tsv of a label map: the nearest folder's counts, as BIDS's inheritance says."""
    place = label_map.parent
    while place != folder.parent:
        if own := sorted(place.glob("*dseg.tsv")):
            same = [path for path in own if path.name == f"{label_map.name.split('.')[0]}.tsv"]
            return same or own
        place = place.parent
    return []
