"""What a dataset.json says: channels, labels, and the code of voxels that nobody labelled.

Three forms: the Medical Segmentation Decathlon's ("modality", "labels": {"0": "background"}), nnU-Net's version 1 (the
same keys) and nnU-Net's version 2 ("channel_names", "labels": {"background": 0}, "file_ending"). Any byte order mark
and encoding that JSON allows is read.

Source: https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md, region_based_training.md and
ignore_label.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from custom.errors import DataError, MissingDataError
from custom.files import NO_JSON
from custom.reading.volumes import existing_folder

HOW_TO_GET = "The folder needs a dataset.json (docs/own-data.md shows one), imagesTr and labelsTr."
_NUMBER = re.compile(r"-?[0-9]+")
BACKGROUND = "background"
IGNORE = "ignore"  # nnU-Net's name for voxels that nobody labelled


@dataclass(frozen=True)
class Description:
    """A dataset.json in one form.

    Args:
        file: its path.
        channels: names, in the image's order.
        labels: {0: "background", 1: ...}, numbered without gaps, without "ignore".
        ignore_code: the code of "ignore" in the label maps; None where dataset.json does not name it.
        content: the JSON itself.
    """

    file: Path
    channels: tuple[str, ...]
    labels: dict[int, str]
    ignore_code: int | None
    content: dict[str, Any]


def read_description(dataset_dir: str | Path) -> Description:
    """Reads the dataset.json of a folder.

    Raises:
        MissingDataError: no folder, or no dataset.json in it.
        DataError: dataset.json has none of the three forms, regions as labels, a code with two names, or a gap between
            the codes.
    """
    file = existing_folder(dataset_dir, HOW_TO_GET) / "dataset.json"
    if not file.is_file():
        raise MissingDataError(f"{file} does not exist. {HOW_TO_GET}")
    try:
        content = json.loads(file.read_bytes())  # bytes: json finds the encoding and drops a byte order mark
    except NO_JSON as error:
        raise DataError(f"{file} is no JSON text ({error}). Correct it there, and save it in UTF-8.") from error
    try:
        given = content.get("modality") or content["channel_names"]
        channels = _channels(given)
        pairs = [_name_and_codes(key, value) for key, value in content["labels"].items()]
    except Exception as error:
        raise DataError(
            f'{file} needs "modality" or "channel_names", and "labels" ({type(error).__name__}: {error}). {HOW_TO_GET}'
        ) from error
    labels, ignore_code = _labels(file, pairs, content)
    return Description(file, channels, labels, ignore_code, content)


def _channels(given: Any) -> tuple[str, ...]:
    if isinstance(given, Mapping):
        return tuple(str(given[key]) for key in sorted(given, key=int))
    if isinstance(given, list) and given:
        return tuple(str(name) for name in given)
    raise TypeError('channels are written as {"0": "T1w"}')


def _name_and_codes(key: str, value: Any) -> tuple[str, tuple[int, ...]]:
    """("CSF", (1,)) of "1": "CSF" or "CSF": 1; ("brain", (1, 2)) of the region "brain": [1, 2]."""
    if isinstance(value, list):
        return key, tuple(_code(code) for code in value)
    if isinstance(value, str) and _NUMBER.fullmatch(key):
        return value, (int(key),)
    return key, (_code(value),)


def _code(value: Any) -> int:
    """A label code; int() alone would take 1.5 for 1 and the text 1_0 for 10."""
    whole = _NUMBER.fullmatch(value) if isinstance(value, str) else int(value) == value
    if not whole:
        raise ValueError(f"the label code {value!r} is no whole number")
    return int(value)


def _labels(
    file: Path, pairs: list[tuple[str, tuple[int, ...]]], content: Mapping[str, Any]
) -> tuple[dict[int, str], int | None]:
    """The labels by code, and the code of "ignore"."""
    regions = [name for name, codes in pairs if len(codes) != 1]
    if regions:
        raise DataError(_about_regions(file, regions, pairs, content))
    names: dict[int, str] = {}
    ignore_code: int | None = None
    for name, (code,) in sorted(pairs, key=lambda pair: pair[1]):
        if code in names or code == ignore_code:
            raise DataError(f'{file} gives the code {code} two names in "labels". Give each code one name.')
        if name.casefold() == IGNORE:
            if ignore_code is not None:
                raise DataError(f'{file} names "ignore" twice in "labels". Keep one.')
            ignore_code = code
        else:
            names[code] = name
    if names.get(0, BACKGROUND).casefold() != BACKGROUND and BACKGROUND in map(str.casefold, names.values()):
        raise DataError(f'{file} gives "background" another code than 0. Give it the code 0, in the label maps too.')
    if twice := sorted({name for name in names.values() if list(names.values()).count(name) > 1}):
        raise DataError(
            f'{file} gives several codes the name {twice[0]!r} in "labels". Give each code a name of its own.'
        )
    if list(names) != list(range(len(names))):
        without = ' (without "ignore")' if ignore_code is not None else ""
        raise DataError(
            f"{file} has the label codes {list(names)}{without}. Number them 0, 1, 2 and so on, in the label maps too."
        )
    if len(names) < 2:
        raise DataError(f'{file} names no label besides {list(names.values())}. Name at least one in "labels".')
    return names, ignore_code


def _about_regions(
    file: Path, regions: list[str], pairs: list[tuple[str, tuple[int, ...]]], content: Mapping[str, Any]
) -> str:
    """Why regions are refused, and which labels to write instead."""
    ignored = {code for name, codes in pairs if name.casefold() == IGNORE for code in codes}
    codes = sorted({code for _, codes in pairs for code in codes} | {0})
    single = {codes[0]: name for name, codes in pairs if len(codes) == 1}
    example = {single.get(code, "background" if code == 0 else f"label {code}"): code for code in codes}
    example = {IGNORE if code in ignored else name: code for name, code in example.items()}
    order = ' and "regions_class_order"' if "regions_class_order" in content else ""
    return (
        f'{file} has regions of several codes in "labels" ({", ".join(regions)}), which this project does not train. '
        f'Give each code of the label maps one name instead: "labels": {json.dumps(example)}, and remove '
        f"the regions{order}."
    )
