"""Any folder with a dataset.json of the Medical Segmentation Decathlon's or nnU-Net's form, a user's own among them.

Antonelli et al. 2022, The Medical Segmentation Decathlon, Nature Communications 13, 4128 (medicaldecathlon.com);
Isensee et al. 2021, nnU-Net, Nature Methods 18, 203-211.

Files: MSD's dataset.json lists each case's image and label ("training") and unlabelled images ("test"), "modality"
names the channels, {"0": "FLAIR", ...}, "labels" the codes, {"0": "background", ...}. nnU-Net's names them in
"channel_names" and in "labels", {"background": 0, ...}, and lists nothing: CASE's channels are
imagesTr/CASE_0000.nii.gz, CASE_0001..., its label labelsTr/CASE.nii.gz, unlabelled cases are in imagesTs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from monai.data import load_decathlon_datalist

from custom.datasets.split import split_by_person
from custom.errors import DataError, MissingDataError
from custom.reading.volumes import case_problems, existing_folder, natural_order, person, require_one_grid

_HOW_TO_GET = "it must hold a dataset.json (docs/own-data.md shows one), imagesTr and labelsTr."


def description(dataset_dir: str | Path) -> dict[str, Any]:
    """What dataset.json says, in one form.

    Returns:
        {"channels": ("T1", ...), "labels": {0: "background", ...}, "file": Path, "content": dict}

    Raises:
        MissingDataError: no folder, or no dataset.json in it.
        DataError: dataset.json isn't of either form.
    """
    file = existing_folder(dataset_dir, _HOW_TO_GET) / "dataset.json"
    if not file.is_file():
        raise MissingDataError(f"There is no {file}: {_HOW_TO_GET}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        channels = content.get("modality") or content["channel_names"]
        pairs = [(key, value) if str(key).isdigit() else (value, key) for key, value in content["labels"].items()]
        names = {int(code): str(name) for code, name in sorted(pairs, key=lambda pair: int(pair[0]))}
        found = tuple(channels[key] for key in sorted(channels, key=int))
    except Exception as error:
        raise DataError(
            f'{file} needs "modality" or "channel_names", and "labels" ({type(error).__name__}: {error}): {_HOW_TO_GET}'
        ) from error
    if list(names) != list(range(len(names))):
        raise DataError(
            f"{file} has the label codes {list(names)}: number them 0, 1, 2 and so on, in the label maps too."
        )
    return {"channels": found, "labels": names, "file": file, "content": content}


def labels(dataset_dir: str | Path) -> dict[int, str]:
    """{0: "background", 1: ...}, as dataset.json names them."""
    return description(dataset_dir)["labels"]


def channels(dataset_dir: str | Path) -> tuple[str, ...]:
    """The image's channels in their order, as dataset.json names them."""
    return description(dataset_dir)["channels"]


def datalist(dataset_dir: str | Path, split: str, fold: int = 0) -> list[dict]:
    """The cases of one split, split by person.

    Args:
        dataset_dir: the folder of dataset.json.
        split: "training", "validation" and "test" share out the labelled cases: every fifth person in natural
            order tests, `fold` picks a fifth of the others to validate. "unlabelled" is the rest.
        fold: 0 to 4.

    Returns:
        [{"subject": "BRATS_001", "image": [a path for each file], "label": path}, ...]; without "label" for
        unlabelled cases.

    Raises:
        ConfigError: an unknown split or fold.
        DataError: no case for the split, a file that isn't there, or files of one case that differ in shape.
    """
    if split == "unlabelled":
        chosen = _cases(dataset_dir, "test")
    else:
        cases = _cases(dataset_dir, "training")
        wanted = split_by_person((person(case["subject"]) for case in cases), split, fold, dataset_dir)
        chosen = [case for case in cases if person(case["subject"]) in wanted]
    if not chosen:
        raise MissingDataError(f"{dataset_dir} has no case without a label.")
    for case in chosen:
        require_one_grid(_files(case))
    return chosen


def _files(case: dict) -> list[str]:
    return [*case["image"], *([case["label"]] if "label" in case else [])]


def _cases(dataset_dir: str | Path, key: str) -> list[dict]:
    """All cases of "training" or "test" in natural order; macOS's ._ files are no cases."""
    known = description(dataset_dir)
    if key in known["content"]:
        cases = _listed_cases(known, key)
    else:
        cases = _nnunet_cases(known, "Tr" if key == "training" else "Ts")
    return sorted(cases, key=lambda case: natural_order(case["subject"]))


def _listed_cases(known: dict[str, Any], key: str) -> list[dict]:
    if not known["content"][key]:
        return []
    try:
        listed = load_decathlon_datalist(str(known["file"]), is_segmentation=True, data_list_key=key)
        return [
            {"subject": Path(one["image"]).name.split(".")[0], "image": [str(one["image"])]}
            | ({"label": str(one["label"])} if "label" in one else {})
            for one in listed
        ]
    except Exception as error:
        raise DataError(
            f'{known["file"]} lists its cases under "{key}" in no form that is known: {_HOW_TO_GET}'
        ) from error


def _nnunet_cases(known: dict[str, Any], part: str) -> list[dict]:
    folder, ending = known["file"].parent, known["content"].get("file_ending", ".nii.gz")
    first = [path for path in folder.glob(f"images{part}/*_0000{ending}") if not path.name.startswith(".")]
    cases = []
    for name in (path.name.removesuffix(f"_0000{ending}") for path in first):
        image = [str(folder / f"images{part}" / f"{name}_{n:04d}{ending}") for n in range(len(known["channels"]))]
        label = {"label": str(folder / "labelsTr" / f"{name}{ending}")} if part == "Tr" else {}
        cases.append({"subject": name, "image": image, **label})
    return cases


def verify(dataset_dir: str | Path) -> list[str]:
    """Reads every voxel and returns every problem found, each a sentence that names its file."""
    try:
        cases = [case for key in ("training", "test") for case in _cases(dataset_dir, key)]
        codes = labels(dataset_dir)
    except DataError as error:
        return [str(error)]
    problems = [] if cases else [f"{dataset_dir} lists no case: {_HOW_TO_GET}"]
    for case in cases:
        problems += case_problems({Path(path): codes if path == case.get("label") else None for path in _files(case)})
    return problems
