"""BraTS 2018, 2019 and 2020: glioma in four contrasts, as the challenges' NIfTI files.

Menze et al. 2015, IEEE TMI 34(10), 1993-2024; Bakas et al. 2017, Scientific Data 4, 170117; Bakas et al. 2018,
arXiv:1811.02629; and the two TCIA collections, Bakas et al. 2017, 10.7937/K9/TCIA.2017.KLXWJJ1Q (TCGA-GBM) and
10.7937/K9/TCIA.2017.GJQ7R0EF (TCGA-LGG). After registration at https://www.med.upenn.edu/cbica/brats2020.

Files: BraTS20_Training_001/BraTS20_Training_001_flair.nii (or .nii.gz), _t1, _t1ce, _t2 and, where labelled, _seg, in
the folder itself or below it (MICCAI_BraTS2020_TrainingData). Shape (240, 240, 155), 1 mm, skull-stripped, registered.
BraTS 2018 and 2019 have HGG/Brats18_2013_2_1/Brats18_2013_2_1_flair.nii.gz, LGG/... and BraTS19_..., the same files in
a folder for each grade. In 2020, case 355's segmentation was published as W39_1998.09.19_Segm.nii: any one *Segm.nii in
a case's folder is its _seg.
"""

from __future__ import annotations

import re
from pathlib import Path

from custom.datasets.split import split_of_labelled
from custom.errors import DataError, MissingDataError
from custom.reading.labels import LabelCodes
from custom.reading.volumes import case_problems, existing_folder, natural_order, require_one_grid

CHANNELS = ("FLAIR", "T1", "T1ce", "T2")
LABELS = {0: "background", 1: "NCR", 2: "ED", 3: "ET"}  # necrotic and non-enhancing core, edema, enhancing tumor
CODES = (0, 1, 2, 4)  # in the files; the position of a code is its label after loading
GRADES = ("HGG", "LGG")  # folders of 2018 and 2019: high-grade and low-grade glioma
REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}  # whole tumor, tumor core, enhancing tumor, as labels

_ROLES = ("flair", "t1", "t1ce", "t2")
_FILE = re.compile(r"(.+)_(flair|t1|t1ce|t2|seg)\.nii(\.gz)?")
HOW_TO_GET = (
    "Register at https://www.med.upenn.edu/cbica/brats2020 for BraTS, get the Decathlon's set with "
    "`brainmri download msd DIR`, or write a small simulated one with `brainmri sample brats DIR`."
)


def cases(dataset_dir: str | Path) -> dict[str, dict[str, Path]]:
    """Every case's files by role, {"BraTS20_Training_001": {"flair": ..., "seg": ...}, ...}, in natural order.

    Raises:
        MissingDataError: no such folder, or no BraTS file in it.
        DataError: two files of one case and role.
    """
    files_of, problems = _find(dataset_dir)
    if problems:
        raise DataError(problems[0])
    return files_of


def _find(dataset_dir: str | Path) -> tuple[dict[str, dict[str, Path]], list[str]]:
    folder = existing_folder(dataset_dir, HOW_TO_GET)
    problems: list[str] = []
    files_of: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob("**/*.nii*"), key=natural_order):
        match = _FILE.fullmatch(path.name)
        if path.name.startswith("._") or not (match or re.search(r"_Segm\.nii(\.gz)?$", path.name)):
            continue
        case, role = (match[1], match[2]) if match else (path.parent.name, "seg")
        files = files_of.setdefault(case, {})
        if files.setdefault(role, path) != path:
            problems.append(f"{path} and {files[role]} are the same case's {role}. Keep one.")
    if not files_of:
        raise MissingDataError(f"{folder} holds no file like BraTS20_Training_001_flair.nii.gz. {HOW_TO_GET}")
    return dict(sorted(files_of.items(), key=lambda pair: natural_order(pair[0]))), problems


def datalist(dataset_dir: str | Path, split: str, fold: int = 0) -> list[dict]:
    """The cases of one split, one patient each; the split is that of custom.datasets.split.

    Args:
        dataset_dir: a folder with BraTS's layout.
        split: "training", "validation" and "test" share out the labelled cases; "unlabelled" is the rest.
        fold: 0 to 4.

    Returns:
        [{"subject": "BraTS20_Training_001", "image": [FLAIR, T1, T1ce, T2], "label": path}, ...]; without "label" for
        unlabelled cases; with "grade", HGG or LGG, where the folders name it.

    Raises:
        ConfigError: an unknown split or fold.
        DataError: a case lacks a contrast, its volumes differ in shape, or a file is cut short.
    """
    everyone = cases(dataset_dir)
    chosen = split_of_labelled(everyone, "seg", split, fold, dataset_dir)
    if not chosen:
        raise MissingDataError(
            f"{dataset_dir} has no case without a segmentation. Set split to training, validation or test."
        )
    return [_item(case, everyone[case]) for case in chosen]


def _item(case: str, files: dict[str, Path]) -> dict:
    if problems := _missing(case, files):
        raise MissingDataError(problems[0])
    require_one_grid(files.values())
    item: dict = {"subject": case, "image": [str(files[role]) for role in _ROLES]}
    item |= {"label": str(files["seg"])} if "seg" in files else {}
    grade = next((part for part in files["flair"].parts[-3:-1] if part in GRADES), None)
    return item | ({"grade": grade} if grade else {})


def _missing(case: str, files: dict[str, Path]) -> list[str]:
    names = ", ".join(sorted(path.name for path in files.values()))
    return [
        f"{case} has no {role} file (only {names}). Add {case}_{role}.nii.gz, or remove the case."
        for role in _ROLES
        if role not in files
    ]


def verify(dataset_dir: str | Path) -> list[str]:
    """Reads every voxel and returns every problem found, each a sentence that names its file."""
    try:
        everyone, problems = _find(dataset_dir)
    except DataError as error:
        return [str(error)]
    for case, files in everyone.items():
        problems += _missing(case, files)
        codes = {"seg": LabelCodes(CODES)}
        problems += case_problems({path: codes.get(role) for role, path in files.items()})
    return problems
