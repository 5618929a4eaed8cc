"""MRBrainS 2013 and 2018: T1, T1-IR and FLAIR of adults, with brain structures that become CSF, grey and white matter.

Mendrik et al. 2015, "MRBrainS Challenge", Computational Intelligence and Neuroscience 2015, 813696; Kuijf et al. 2024,
"MR Brain Segmentation Challenge 2018 Data", 10.34894/E0U32Q. Data after registration at https://mrbrains13.isi.uu.nl
and https://mrbrains18.isi.uu.nl.

Files, in the folder itself or below it: N/T1.nii, T1_IR.nii, T2_FLAIR.nii and, where labelled, LabelsForTraining.nii
(2013); N/pre/reg_T1.nii.gz, reg_IR.nii.gz, FLAIR.nii.gz and, where labelled, N/segm.nii.gz (2018). Each may be packed
or not. Shape (240, 240, 48), 0.96x0.96x3 mm, registered, with the skull. T1_1mm.nii, LabelsForTesting.nii and the scans
in N/orig are not read.

The files' codes are 1 cortical grey matter, 2 basal ganglia, 3 white matter, 4 white matter lesions, 5 CSF outside the
brain, 6 ventricles, 7 cerebellum, 8 brain stem, and in 2018 also 9 infarction, 10 other. As in the challenges, 7 to 10
count neither in a loss nor in a score.
"""

from __future__ import annotations

from pathlib import Path

from custom.datasets.split import split_of_labelled
from custom.errors import DataError, MissingDataError
from custom.reading.labels import LabelCodes
from custom.reading.volumes import case_problems, existing_folder, natural_order, require_one_grid

CHANNELS = ("T1", "T1-IR", "FLAIR")
LABELS = {0: "background", 1: "CSF", 2: "GM", 3: "WM"}
CODES = (0, (5, 6), (1, 2), (3, 4), (7, 8, 9, 10))  # by label; the last ones become IGNORED
IGNORED = len(LABELS)  # the label of voxels that count nowhere
SCORED = {name: (label,) for label, name in LABELS.items()}

_EDITIONS = {  # role: its file in a subject's folder, without .nii or .nii.gz
    "2013": {"T1": "T1", "T1-IR": "T1_IR", "FLAIR": "T2_FLAIR", "label": "LabelsForTraining"},
    "2018": {"T1": "pre/reg_T1", "T1-IR": "pre/reg_IR", "FLAIR": "pre/FLAIR", "label": "segm"},
}
HOW_TO_GET = (
    "Register at https://mrbrains13.isi.uu.nl or https://mrbrains18.isi.uu.nl, or write a small simulated set of the "
    "same layout with `brainmri sample mrbrains DIR`."
)


def subjects(dataset_dir: str | Path) -> dict[str, dict[str, Path]]:
    """Every subject's files by role, {"training/1": {"T1": ..., "label": ...}, ...}, in natural order.

    A subject's name is the path of its folder from dataset_dir.

    Raises:
        MissingDataError: no such folder, or no file of MRBrainS in it.
        DataError: both editions in one folder, or a packed and a plain file of one role.
    """
    files_of, problems = _find(dataset_dir)
    if problems:
        raise DataError(problems[0])
    return files_of


def _find(dataset_dir: str | Path) -> tuple[dict[str, dict[str, Path]], list[str]]:
    folder = existing_folder(dataset_dir, HOW_TO_GET)
    problems: list[str] = []
    by_edition: dict[str, dict[str, dict[str, Path]]] = {}
    for edition, names in _EDITIONS.items():
        for role, name in names.items():
            for path in sorted(folder.glob(f"**/{name}.nii*"), key=natural_order):
                if path.name.endswith((".nii", ".nii.gz")):
                    subject = path.parents[name.count("/")].relative_to(folder).as_posix()
                    files = by_edition.setdefault(edition, {}).setdefault(subject, {})
                    if files.setdefault(role, path) != path:
                        problems.append(f"{path} and {files[role]} are the same subject's {role}. Keep one.")
    if not by_edition:
        raise MissingDataError(f"{folder} holds no N/T1.nii and no N/pre/reg_T1.nii.gz. {HOW_TO_GET}")
    if len(by_edition) > 1:
        problems.append(
            f"{folder} holds MRBrainS 2013 and 2018, which may share people. Give the folder of one of them."
        )
    found = {subject: files for of_edition in by_edition.values() for subject, files in of_edition.items()}
    return dict(sorted(found.items(), key=lambda pair: natural_order(pair[0]))), problems


def datalist(dataset_dir: str | Path, split: str, fold: int = 0) -> list[dict]:
    """The subjects of one split; the split is that of custom.datasets.split.

    Args:
        dataset_dir: a folder with the layout of 2013 or of 2018.
        split: "training", "validation" and "test" share out the labelled subjects; "unlabelled" is the rest.
        fold: 0 to 4.

    Returns:
        [{"subject": "training/1", "image": [T1, T1-IR, FLAIR], "label": path}, ...]; without "label" for unlabelled
        subjects.

    Raises:
        ConfigError: an unknown split or fold.
        DataError: a subject lacks a contrast, its volumes differ in shape, or a file is cut short.
    """
    everyone = subjects(dataset_dir)
    chosen = split_of_labelled(everyone, "label", split, fold, dataset_dir)
    if not chosen:
        raise MissingDataError(
            f"{dataset_dir} has no subject without a label map. Set split to training, validation or test."
        )
    return [_item(subject, everyone[subject]) for subject in chosen]


def _item(subject: str, files: dict[str, Path]) -> dict:
    if problems := _missing(subject, files):
        raise MissingDataError(problems[0])
    require_one_grid(files.values())
    item: dict = {"subject": subject, "image": [str(files[channel]) for channel in CHANNELS]}
    return item | ({"label": str(files["label"])} if "label" in files else {})


def _missing(subject: str, files: dict[str, Path]) -> list[str]:
    names = ", ".join(sorted(path.name for path in files.values()))
    return [
        f"The subject {subject} has no {channel} file (only {names}). Add it, or remove the subject."
        for channel in CHANNELS
        if channel not in files
    ]


def verify(dataset_dir: str | Path) -> list[str]:
    """Reads every voxel and returns every problem found, each a sentence that names its file."""
    try:
        everyone, problems = _find(dataset_dir)
    except DataError as error:
        return [str(error)]
    codes = {"label": LabelCodes(tuple(range(11)))}
    for subject, files in everyone.items():
        problems += _missing(subject, files)
        problems += case_problems({path: codes.get(role) for role, path in files.items()})
    return problems
