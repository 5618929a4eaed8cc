"""iSeg-2017 and iSeg-2019: T1 and T2 of six-month-old infants, with CSF, grey and white matter.

Wang et al. 2019, Benchmark on automatic 6-month-old infant brain segmentation algorithms: the iSeg-2017
challenge, IEEE TMI 38(9); Sun et al. 2021, Multi-site infant brain segmentation algorithms: the iSeg-2019
challenge, IEEE TMI 40(5). Data after registration at https://iseg2019.web.unc.edu.

Files: subject-N-T1.hdr and .img, -T2, and -label for labelled subjects, in the folder itself or in its
subfolders (iSeg-2017-Training, iSeg-2019-Validation, ...); NIfTI files of the same names are read too.
Shape (x, y, z, 1), 1 mm, skull-stripped, T1 and T2 registered.

Orientation: Analyze files carry none that can be relied on. The affine is taken as nibabel derives it (voxel
size, x from right to left), the same for every file, so a subject's files always agree with each other; left and
right of the result are those of the input file's voxels.
"""

from __future__ import annotations

import re
from pathlib import Path

from custom.errors import ConfigError, DataError, MissingDataError
from custom.reading.labels import LabelCodes
from custom.reading.volumes import case_problems, existing_folder, natural_order, require_one_grid

CHANNELS = ("T1", "T2")
LABELS = {0: "background", 1: "CSF", 2: "GM", 3: "WM"}
CODES = (0, 10, 150, 250)  # in the files; the position of a code is its label after loading
SCORED = {name: (label,) for label, name in LABELS.items()}

TEST_SUBJECT = 1
FOLDS = 5

_FILE = re.compile(r"subject-(\d+)-(T1|T2|label)\.(hdr|img|nii|nii\.gz)")
HOW_TO_GET = (
    "Ask for iSeg at https://iseg2019.web.unc.edu, or write a small simulated data set of the same layout "
    "with `brainmri sample iseg DIR`."
)


def subjects(dataset_dir: str | Path) -> dict[int, dict[str, Path]]:
    """Every subject's files by role, {1: {"T1": ..., "T2": ..., "label": ...}, ...}, in natural order.

    Raises:
        MissingDataError: no such folder, or no iSeg file in it.
        DataError: two files of one subject and role.
    """
    files_of, problems = _find(dataset_dir)
    if problems:
        raise DataError(problems[0])
    return files_of


def _find(dataset_dir: str | Path) -> tuple[dict[int, dict[str, Path]], list[str]]:
    folder = existing_folder(dataset_dir, HOW_TO_GET)
    problems: list[str] = []
    files_of: dict[int, dict[str, Path]] = {}
    for path in sorted([*folder.glob("subject-*"), *folder.glob("*/subject-*")], key=natural_order):
        if not (match := _FILE.fullmatch(path.name)):
            continue
        files, role = files_of.setdefault(int(match[1]), {}), match[2]
        if path.suffix == ".img":
            files.setdefault(role, path.with_suffix(".hdr"))  # where the header is missing, opening it says so
            continue
        if files.setdefault(role, path) != path:
            problems.append(
                f"{path} and {files[role]} are the same subject's {role}. "
                "Keep one of them, or give the folder of one copy."
            )
    if not files_of:
        raise MissingDataError(f"{folder} holds no file like subject-1-T1.hdr. {HOW_TO_GET}")
    return dict(sorted(files_of.items())), problems


def datalist(dataset_dir: str | Path, split: str, fold: int = 0) -> list[dict]:
    """The subjects of one split, split by participant.

    Args:
        dataset_dir: a folder with iSeg's layout.
        split: "training", "validation" and "test" share out the labelled subjects: subject 1 is the test
            subject, `fold` picks the validation subjects out of the others. "unlabelled" is all subjects
            that have no label map, the challenge's test set.
        fold: 0 to 4.

    Returns:
        [{"subject": "subject-1", "image": [T1's path, T2's path], "label": its path}, ...]; without "label"
        for unlabelled subjects.

    Raises:
        ConfigError: an unknown split or fold.
        DataError: a subject lacks a modality, its volumes differ in shape, or a file is cut short.
    """
    if split not in ("training", "validation", "test", "unlabelled"):
        raise ConfigError(f'split must be "training", "validation", "test" or "unlabelled", got {split!r}.')
    if fold not in range(FOLDS):
        raise ConfigError(f"fold must be 0 to {FOLDS - 1}, got {fold!r}.")
    everyone = subjects(dataset_dir)
    labelled = [number for number, files in everyone.items() if "label" in files]
    others = [number for number in labelled if number != TEST_SUBJECT]
    chosen = {
        "training": [number for index, number in enumerate(others) if index % FOLDS != fold],
        "validation": others[fold::FOLDS],
        "test": [number for number in labelled if number == TEST_SUBJECT],
        "unlabelled": [number for number in everyone if number not in labelled],
    }[split]
    if not chosen:
        raise MissingDataError(
            f"{dataset_dir} has no subject for the {split} split. It holds the subjects {list(everyone)}. "
            "Set another split, or add subjects."
        )
    return [_item(number, everyone[number]) for number in chosen]


def _item(number: int, files: dict[str, Path]) -> dict:
    problems = _missing(number, files)
    if problems:
        raise MissingDataError(problems[0])
    require_one_grid(files.values())
    item: dict = {"subject": f"subject-{number}", "image": [str(files[channel]) for channel in CHANNELS]}
    return item | ({"label": str(files["label"])} if "label" in files else {})


def _missing(number: int, files: dict[str, Path]) -> list[str]:
    return [
        f"subject-{number} has no {channel} file (only {', '.join(path.name for path in files.values())}). "
        f"Add subject-{number}-{channel}.hdr and .img, or remove the subject."
        for channel in CHANNELS
        if channel not in files
    ]


def verify(dataset_dir: str | Path) -> list[str]:
    """Reads every voxel and returns every problem found, each a sentence that names its file."""
    try:
        everyone, problems = _find(dataset_dir)
    except DataError as error:
        return [str(error)]
    for number, files in everyone.items():
        problems += _missing(number, files)
        codes = {"label": LabelCodes(CODES)}
        problems += case_problems({path: codes.get(role) for role, path in files.items()})
    return problems
