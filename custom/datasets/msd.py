"""Any folder with a dataset.json of the Medical Segmentation Decathlon's or nnU-Net's form, a user's own among them.

Antonelli et al. 2022, The Medical Segmentation Decathlon, Nature Communications 13, 4128 (medicaldecathlon.com);
Isensee et al. 2021, nnU-Net, Nature Methods 18, 203-211. custom.datasets.dataset_json reads dataset.json itself.

Files, in one of three ways:
- A list (MSD, nnU-Net version 1): "training" holds {"image": path, "label": path}, "test" holds paths. Where the listed
  imagesTr/CASE.nii.gz does not exist, the image's channels are CASE_0000.nii.gz, CASE_0001.nii.gz, ...
- Entries by name (nnU-Net version 2): "dataset" holds {CASE: {"images": [path, ...], "label": path}}.
- No list (nnU-Net version 2): CASE's channels are imagesTr/CASE_0000.nii.gz, CASE_0001..., its label is
  labelsTr/CASE.nii.gz, and unlabelled cases are in imagesTs. A single channel may also be imagesTr/CASE.nii.gz.

Paths are relative to dataset.json, or absolute. "file_ending" may be that of any format of custom.reading.volumes.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from custom.datasets.dataset_json import HOW_TO_GET, Description, read_description
from custom.datasets.split import split_by_participant
from custom.errors import DataError, MissingDataError
from custom.reading.itk_volumes import ENDINGS as ITK_ENDINGS
from custom.reading.labels import LabelCodes
from custom.reading.volumes import case_problems, natural_order, open_volume, participant_of, require_one_grid

ENDINGS = (".nii.gz", ".nii", ".mgz", ".mgh", ".hdr", *ITK_ENDINGS)
_CHANNEL = re.compile(r"_(\d{4})$")


def labels(dataset_dir: str | Path) -> dict[int, str]:
    """{0: "background", 1: ...}, as dataset.json names them, without nnU-Net's "ignore"."""
    return read_description(dataset_dir).labels


def channels(dataset_dir: str | Path) -> tuple[str, ...]:
    """The image's channels in their order, as dataset.json names them."""
    return read_description(dataset_dir).channels


def ignore_code(dataset_dir: str | Path) -> int | None:
    """The label maps' code of voxels that nobody labelled ("ignore"), or None."""
    return read_description(dataset_dir).ignore_code


def ignore_index(dataset_dir: str | Path) -> int | None:
    """What `ignore_code` becomes after loading (EncodeLabelsd), for a loss: the number of labels; None without it."""
    known = read_description(dataset_dir)
    return None if known.ignore_code is None else len(known.labels)


def datalist(dataset_dir: str | Path, split: str, fold: int = 0) -> list[dict[str, Any]]:
    """The cases of one split, split by participant.

    Args:
        dataset_dir: the folder of dataset.json.
        split: "training", "validation" and "test" share out the labelled cases: every fifth participant in natural
            order tests, `fold` picks a fifth of the others to validate. "unlabelled" is the rest.
        fold: 0 to 4.

    Returns:
        [{"subject": "BRATS_001", "image": [a path for each file], "label": path}, ...]; without "label" for
        unlabelled cases.

    Raises:
        ConfigError: an unknown split or fold.
        DataError: no case for the split, a file that does not exist, or files of one case that differ in shape.
    """
    if split == "unlabelled":
        chosen = _checked(dataset_dir, _cases(dataset_dir, "test"))
    else:
        cases = _cases(dataset_dir, "training")
        wanted = split_by_participant((participant_of(case["subject"]) for case in cases), split, fold, dataset_dir)
        chosen = _checked(dataset_dir, [case for case in cases if participant_of(case["subject"]) in wanted])
    if not chosen:
        raise MissingDataError(f"{dataset_dir} has no case without a label. Set split to training, validation or test.")
    return chosen


def labelled_cases(dataset_dir: str | Path) -> list[dict[str, Any]]:
    """All cases with labels, of any split, as `datalist` gives them. Raises DataError as `datalist` does."""
    cases = _checked(dataset_dir, _cases(dataset_dir, "training"))
    if not cases:
        raise MissingDataError(f"{dataset_dir} lists no case with a label. {HOW_TO_GET}")
    return cases


def _checked(dataset_dir: str | Path, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cases. Raises DataError if the files of one do not fit each other or dataset.json."""
    known = read_description(dataset_dir)
    for case in cases:
        require_one_grid(_files(case))
        if problem := _channel_problem(known, case):
            raise DataError(problem)
    return cases


def _channel_problem(known: Description, case: Mapping[str, Any]) -> str | None:
    """What is wrong with the number of a case's channels, from its headers; None if nothing is."""
    shapes = [tuple(size for size in open_volume(path).shape[3:] if size != 1) for path in case["image"]]
    count = sum(math.prod(shape) for shape in shapes)
    if count == len(known.channels):
        return None
    return (
        f"{case['image'][0]} and its other files have {count} channels, but {known.file} names {len(known.channels)}: "
        f"{', '.join(known.channels)}. Correct the names or the files."
    )


def _files(case: Mapping[str, Any]) -> list[str]:
    return [*case["image"], *([case["label"]] if "label" in case else [])]


def _cases(dataset_dir: str | Path, key: str) -> list[dict[str, Any]]:
    """All cases of "training" or "test" in natural order; macOS's ._ files are no cases."""
    known = read_description(dataset_dir)
    content = known.content
    if key == "training" and "dataset" in content:
        cases = _named_cases(known)
    elif content.get(key) or (key == "test" and key in content):
        cases = _listed_cases(known, key)
    else:
        cases = _unlisted_cases(known, "Tr" if key == "training" else "Ts")
    return sorted(_told_apart(cases, known.file.parent), key=lambda case: natural_order(case["subject"]))


def _told_apart(cases: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """The cases; where two have one name, they are named by their first image's path below the folder."""
    names = Counter(case["subject"] for case in cases)
    for case in cases:
        if names[case["subject"]] > 1:
            path = Path(case["image"][0])
            inside = path.relative_to(folder) if path.is_relative_to(folder) else path
            case["subject"] = inside.with_name(_stem(path)).as_posix()
    return cases


def _stem(path: Path) -> str:
    """The name without the ending of a volume's format; of an unknown format, up to the first dot."""
    ending = next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), None)
    return path.name.split(".")[0] if ending is None else path.name[: -len(ending)]


def _path(known: Description, text: Any) -> Path:
    """A path of dataset.json, which may have Windows's separators, or variables of the environment."""
    path = known.file.parent / os.path.expandvars(str(text))
    if not path.exists() and "\\" in str(text):
        path = known.file.parent / str(text).replace("\\", "/")
    return path


def _image_files(known: Description, given: Any) -> tuple[str, list[str]]:
    """A case's name, and its image's files.

    Args:
        known: the dataset.json.
        given: one path, or a path for each channel.
    """
    paths = [_path(known, text) for text in (given if isinstance(given, list) else [given])]
    name = _stem(paths[0])
    if len(paths) == 1 and not paths[0].exists():  # nnU-Net's version 1 lists CASE.nii.gz for CASE_0000.nii.gz
        ending = paths[0].name[len(name) :]
        of_channels = [paths[0].with_name(f"{name}_{n:04d}{ending}") for n in range(len(known.channels))]
        if of_channels[0].exists():
            _refuse_more_channels(known, paths[0].parent.glob(f"{name}_*{ending}"), name)
            return name, [str(path) for path in of_channels]
    return (_CHANNEL.sub("", name) if len(paths) > 1 else name), [str(path) for path in paths]


def _listed_cases(known: Description, key: str) -> list[dict[str, Any]]:
    cases = []
    for entry in known.content[key]:
        given = entry if isinstance(entry, Mapping) else {"image": entry}
        if "image" not in given or (key == "training" and "label" not in given):
            raise DataError(
                f'{known.file} lists its cases under "{key}" in no form that is known. '
                f'Write {{"image": "imagesTr/sub-01.nii.gz", "label": "labelsTr/sub-01.nii.gz"}} for each.'
            )
        name, image = _image_files(known, given["image"])
        label = {"label": str(_path(known, given["label"]))} if given.get("label") else {}
        cases.append({"subject": name, "image": image, **label})
    return cases


def _named_cases(known: Description) -> list[dict[str, Any]]:
    try:
        return [
            {
                "subject": str(name),
                "image": _image_files(known, entry["images"])[1],
                "label": str(_path(known, entry["label"])),
            }
            for name, entry in known.content["dataset"].items()
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f'{known.file} lists its cases under "dataset" in no form that is known ({type(error).__name__}: {error}). '
            'Write {"CASE": {"images": ["imagesTr/CASE_0000.nii.gz"], "label": "labelsTr/CASE.nii.gz"}}.'
        ) from error


def _unlisted_cases(known: Description, part: str) -> list[dict[str, Any]]:
    """The cases of imagesTr or imagesTs; one with a label map and no image is among them, so that it is missed."""
    folder, ending = known.file.parent, _ending(known, part)
    images = [path for path in folder.glob(f"images{part}/*{ending}") if not path.name.startswith(".")]
    names = {path.name.removesuffix(ending) for path in images}
    plain = {name for name in names if not _CHANNEL.search(name)} if len(known.channels) == 1 else set()
    cases = {_CHANNEL.sub("", name) for name in names if _CHANNEL.search(name)} | plain
    if part == "Tr":
        label_maps = folder.glob(f"labelsTr/*{ending}")
        cases |= {path.name.removesuffix(ending) for path in label_maps if not path.name.startswith(".")}
    _refuse_more_channels(known, images)
    result = []
    for name in cases:
        files = [f"{name}_{n:04d}{ending}" for n in range(len(known.channels))]
        if name in plain and f"{name}_0000" not in names:
            files = [f"{name}{ending}"]
        image = [str(folder / f"images{part}" / file) for file in files]
        label = {"label": str(folder / "labelsTr" / f"{name}{ending}")} if part == "Tr" else {}
        result.append({"subject": name, "image": image, **label})
    return result


def _ending(known: Description, part: str) -> str:
    """The files' ending: dataset.json's, or that of the files themselves."""
    if given := str(known.content.get("file_ending", "")):
        ending = given if given.startswith(".") else f".{given}"
        if ending.lower() not in ENDINGS:
            raise DataError(
                f'{known.file} has the "file_ending" {given}, which this project does not read. '
                f"Convert the files to one of {', '.join(ENDINGS)}."
            )
        return _as_written(known, part, ending)
    for ending in ENDINGS:
        if any(known.file.parent.glob(f"images{part}/[!.]*_0000{ending}")):
            return ending
    return ENDINGS[0]


def _as_written(known: Description, part: str, ending: str) -> str:
    """The ending in the files' own capitals: dataset.json may say .NII.GZ where the files say .nii.gz."""
    for path in known.file.parent.glob(f"images{part}/[!.]*"):
        if path.name.lower().endswith(ending.lower()):
            return path.name[-len(ending) :]
    return ending


def _refuse_more_channels(known: Description, paths: Iterable[Path], case: str | None = None) -> None:
    """Raises DataError where a file CASE_0002 exists, but dataset.json names two channels."""
    for path in sorted(paths, key=natural_order):
        match = _CHANNEL.search(_stem(path))
        if path.name.startswith(".") or not match or (case and _stem(path) != f"{case}{match[0]}"):
            continue
        if int(match[1]) >= len(known.channels):
            raise DataError(
                f"{path} is channel {int(match[1])}, but {known.file} names only {list(known.channels)} (from 0). "
                "Name every channel, or remove the file."
            )


def verify(dataset_dir: str | Path) -> list[str]:
    """Reads every voxel and returns every problem found, each a sentence that names its file."""
    try:
        known = read_description(dataset_dir)
        cases = [case for key in ("training", "test") for case in _cases(dataset_dir, key)]
    except DataError as error:
        return [str(error)]
    codes = LabelCodes(tuple(known.labels), known.ignore_code)
    problems = [] if cases else [f"{dataset_dir} lists no case. {HOW_TO_GET}"]
    for case in cases:
        of_case = case_problems({Path(path): codes if path == case.get("label") else None for path in _files(case)})
        if not of_case and (problem := _channel_problem(known, case)):
            of_case = [problem]
        problems += of_case
    return problems
