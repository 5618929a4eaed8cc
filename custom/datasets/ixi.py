"""IXI: T1, T2 and PD of nearly 600 healthy adults from three hospitals, without labels.

Imperial College London, https://brain-development.org/ixi-dataset, CC BY-SA 3.0, without registration.

Files: IXI002-Guys-0828-T1.nii.gz, -T2 and -PD, in the folder itself or below it (IXI-T1, IXI-T2, IXI-PD). A name holds
the subject, the hospital (Guys, HH, IOP) and a number. T1 is on another grid than T2 and PD, so each scan is an item of
its own. Some subjects lack a contrast; that is no problem here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from custom.datasets.split import split_by_participant
from custom.errors import ConfigError, DataError, MissingDataError
from custom.reading.volumes import existing_folder, natural_order, open_volume, read_problem

CHANNELS = ("T1", "T2", "PD")  # of a subject; an item is a scan of one of them
LABELS: dict[int, str] = {}  # nobody labelled these scans

_FILE = re.compile(r"(IXI\d+)-([A-Za-z]+)-(\d+)-(T1|T2|PD)\.nii(\.gz)?")
HOW_TO_GET = (
    "Get IXI-T1.tar, IXI-T2.tar and IXI-PD.tar at https://brain-development.org/ixi-dataset, or write a small "
    "simulated set of the same layout with `brainmri sample ixi DIR`."
)


def scans(dataset_dir: str | Path) -> dict[str, dict[str, Path]]:
    """Every subject's scans by contrast, {"IXI002": {"T1": ..., "PD": ...}, ...}, in natural order.

    Raises:
        MissingDataError: no such folder, or no scan of IXI in it.
        DataError: two scans of one subject and contrast.
    """
    scans_of, problems = _find(dataset_dir)
    if problems:
        raise DataError(problems[0])
    return scans_of


def _find(dataset_dir: str | Path) -> tuple[dict[str, dict[str, Path]], list[str]]:
    folder = existing_folder(dataset_dir, HOW_TO_GET)
    problems: list[str] = []
    scans_of: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob("**/IXI*.nii*"), key=natural_order):
        if match := _FILE.fullmatch(path.name):
            own = scans_of.setdefault(match[1], {})
            if own.setdefault(match[4], path) != path:
                problems.append(f"{path} and {own[match[4]]} are the same subject's {match[4]}. Keep one.")
    if not scans_of:
        raise MissingDataError(f"{folder} holds no file like IXI002-Guys-0828-T1.nii.gz. {HOW_TO_GET}")
    return dict(sorted(scans_of.items(), key=lambda pair: natural_order(pair[0]))), problems


def datalist(dataset_dir: str | Path, split: str, fold: int = 0, contrasts: Sequence[str] = CHANNELS) -> list[dict]:
    """The scans of one split, split by subject (custom.datasets.split): all scans of a subject are in one split.

    Args:
        dataset_dir: a folder with IXI's layout.
        split: "training", "validation" or "test"; "unlabelled" is all of them.
        fold: 0 to 4.
        contrasts: some of CHANNELS.

    Returns:
        [{"subject": "IXI002", "contrast": "T1", "image": path}, ...]

    Raises:
        ConfigError: an unknown split, fold or contrast.
        DataError: no scan of these contrasts, or a file that is cut short.
    """
    if unknown := [name for name in contrasts if name not in CHANNELS]:
        raise ConfigError(f"contrasts must be some of {list(CHANNELS)}, got {unknown[0]!r}.")
    everyone = scans(dataset_dir)
    chosen = list(everyone) if split == "unlabelled" else split_by_participant(everyone, split, fold, dataset_dir)
    items = [
        {"subject": subject, "contrast": contrast, "image": str(everyone[subject][contrast])}
        for subject in chosen
        for contrast in contrasts
        if contrast in everyone[subject]
    ]
    if not items:
        raise MissingDataError(f"{dataset_dir} has no {' or '.join(contrasts)} scan in this split.")
    for item in items:
        open_volume(item["image"])
    return items


def verify(dataset_dir: str | Path) -> list[str]:
    """Reads every voxel and returns every problem found, each a sentence that names its file."""
    try:
        everyone, problems = _find(dataset_dir)
    except DataError as error:
        return [str(error)]
    found = (read_problem(path) for own in everyone.values() for path in own.values())
    return problems + [problem for problem in found if problem]
