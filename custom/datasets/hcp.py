"""HCP S1200: T1w scans of young adults, and their values in the subjects' table.

Van Essen et al. 2013, "The WU-Minn Human Connectome Project: An overview", NeuroImage 80, 62-79; Glasser et al. 2013,
NeuroImage 80, 105-124 (preprocessing). After registration at https://db.humanconnectome.org; relatives (Family_ID) and
exact ages stand in the restricted table only.

Files: 100307/T1w/T1w_acpc_dc_restore_brain.nii.gz (0.7 mm, the subject's own space) or
100307/MNINonLinear/T1w_restore_brain.nii.gz (MNI space), or a flat folder of 100307.nii.gz; beside them one or more
.csv tables with a column Subject, which are joined.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas

from custom.datasets.hcp_table import HOW_TO_GET as HOW_TO_GET
from custom.datasets.hcp_table import classes as classes
from custom.datasets.hcp_table import families as families
from custom.datasets.hcp_table import knows_families as knows_families
from custom.datasets.hcp_table import numbers_of
from custom.datasets.hcp_table import table as table
from custom.datasets.hcp_table import target_of as target_of
from custom.datasets.split import split_by_participant
from custom.errors import ConfigError, DataError, MissingDataError
from custom.reading.volumes import existing_folder, natural_order, open_volume, read_problem

CHANNELS = ("T1",)
LABELS = {0: "F", 1: "M"}  # of the default target, Gender
SPACES = {"native": "T1w/T1w_acpc_dc_restore_brain.nii.gz", "mni": "MNINonLinear/T1w_restore_brain.nii.gz"}


@dataclass(frozen=True)
class Options:
    """Which scans and which columns of the table `datalist` takes; `persons` explains each option."""

    target: str = "Gender"
    kind: str = "classes"
    band: float = 0.0
    space: str = "native"
    covariates: Sequence[str] = ()
    missing: str = "raise"


def scans(dataset_dir: str | Path, space: str = "native") -> dict[str, Path]:
    """Every subject's scan, {"100307": path, ...}, in natural order; a flat folder's scans belong to either space.

    Raises:
        ConfigError: an unknown space.
        MissingDataError: no such folder, or no scan in it.
    """
    if space not in SPACES:
        raise ConfigError(f"space must be one of {list(SPACES)}, got {space!r}.")
    folder = existing_folder(dataset_dir, HOW_TO_GET)
    paths = {path.parents[1].name: path for path in folder.glob(f"*/{SPACES[space]}")}
    for path in folder.glob("[!.]*.nii*"):
        if path.name.endswith((".nii", ".nii.gz")):
            paths[path.name.removesuffix(".gz").removesuffix(".nii")] = path
    if not paths:
        raise MissingDataError(f"{folder} holds no SUBJECT/{SPACES[space]} and no SUBJECT.nii.gz. {HOW_TO_GET}")
    return dict(sorted(paths.items(), key=lambda pair: natural_order(pair[0])))


def persons(
    dataset_dir: str | Path,
    target: str = "Gender",
    kind: str = "classes",
    band: float = 0.0,
    space: str = "native",
    covariates: Sequence[str] = (),
    missing: str = "raise",
) -> pandas.DataFrame:
    """A row for each subject with a scan and a target: "image", "label", "family" and the covariates.

    Args:
        dataset_dir: a folder with HCP's layout, flat or not.
        target: as `target_of` takes it.
        kind: as `target_of` takes it.
        band: as `target_of` takes it.
        space: "native" or "mni".
        covariates: columns of numbers, or of two classes, which become 0 and 1.
        missing: "raise" where a subject is in the table without a scan or the reverse; "skip" leaves them out.

    Raises:
        ConfigError: an unknown column, kind, space or `missing`; the target among the covariates.
        DataError: subjects that lack a scan, a row, or a covariate.
    """
    if missing not in ("raise", "skip"):
        raise ConfigError(f'missing must be "raise" or "skip", got {missing!r}.')
    if target in covariates:
        raise ConfigError(f"{target} is the target. Leave it out of the covariates.")
    people, paths = table(dataset_dir), scans(dataset_dir, space)
    if missing == "raise" and (problem := _mismatch(people.index, paths)):
        raise DataError(f"{problem} Complete them, or set missing to skip.")
    labels = target_of(people, target, kind, band)
    chosen = [subject for subject in paths if subject in labels.index]
    family = families(people)
    rows = pandas.DataFrame(
        {
            "image": [str(paths[subject]) for subject in chosen],
            "label": [labels[subject] for subject in chosen],
            "family": [family[subject] for subject in chosen],
        },
        index=pandas.Index(chosen, name="subject"),
    )
    return rows.join(numbers_of(people, chosen, covariates))


def datalist(dataset_dir: str | Path, split: str, fold: int = 0, options: Options | None = None) -> list[dict]:
    """The persons of one split; relatives are in one. The split is that of custom.datasets.split, by family.

    Args:
        dataset_dir: a folder with HCP's layout, flat or not.
        split: "training", "validation" or "test"; "unlabelled" is every scan, whatever the table says.
        fold: 0 to 4.
        options: target, covariates and the like; None for the defaults.

    Returns:
        [{"subject": "100307", "group": "family 12", "image": path, "label": 0, "covariates": (k,) float32}, ...]; of a
        regression "label" is (1,) float32; covariates as they stand in the table, if there are any; unlabelled
        scans have neither group nor label.

    Raises:
        ConfigError, DataError: as `persons`, or an unknown split or fold.
    """
    options = options or Options()
    covariates = options.covariates
    if split == "unlabelled":
        paths = scans(dataset_dir, options.space)
        numbers = numbers_of(table(dataset_dir), list(paths), covariates) if covariates else None
        items = [{"subject": subject, "image": str(path)} for subject, path in paths.items()]
        return [item | _covariates(numbers, item["subject"]) for item in items]
    rows = persons(dataset_dir, options.target, options.kind, options.band, options.space, covariates, options.missing)
    everyone = families(table(dataset_dir)).values()  # so that a participant is in one split, whatever the target
    chosen = split_by_participant(everyone, split, fold, dataset_dir)
    items = []
    for subject, row in rows[rows["family"].isin(chosen)].iterrows():
        open_volume(row["image"])
        label = np.array([row["label"]], dtype=np.float32) if options.kind == "regression" else row["label"]
        item = {"subject": subject, "group": row["family"], "image": row["image"], "label": label}
        items.append(item | _covariates(rows[list(covariates)] if covariates else None, subject))
    return items


def covariates_of(items: Sequence[dict]) -> np.ndarray:
    """(n, k) float32, of a datalist's participants."""
    return np.stack([item["covariates"] for item in items])


def scale(items: Sequence[dict]) -> tuple[float, float]:
    """Mean and standard deviation of a regression's labels, of the training split's datalist."""
    labels = np.concatenate([item["label"] for item in items]).astype(float)
    if labels.std() == 0:
        raise DataError(
            f"All {len(labels)} training participants have the target {labels[0]:g}. There is nothing to learn."
        )
    return float(labels.mean()), float(labels.std())


def _covariates(numbers: pandas.DataFrame | None, subject: str) -> dict[str, np.ndarray]:
    return {} if numbers is None else {"covariates": numbers.loc[subject].to_numpy(dtype=np.float32)}


def _mismatch(listed: Collection[str], scanned: Collection[str]) -> str:
    without_scan = sorted(set(listed) - set(scanned), key=natural_order)
    without_row = sorted(set(scanned) - set(listed), key=natural_order)
    problems = []
    for names, what in ((without_scan, "of the table without a scan"), (without_row, "with a scan but no row")):
        if names:
            noun = "subject" if len(names) == 1 else "subjects"
            problems.append(f"{len(names)} {noun} {what}: {', '.join(names)}.")
    return " ".join(problems)


def verify(dataset_dir: str | Path) -> list[str]:
    """Reads every voxel and returns every problem found, each a sentence that names its file or subject."""
    problems: list[str] = []
    scans_in: dict[str, dict[str, Path]] = {}
    for space in SPACES:
        try:
            scans_in[space] = scans(dataset_dir, space)
        except MissingDataError as error:
            absent = str(error)
    if not scans_in:
        return [absent]
    try:
        listed = table(dataset_dir).index
        mismatches = {space: _mismatch(listed, paths) for space, paths in scans_in.items()}
        problems += dict.fromkeys(problem for problem in mismatches.values() if problem)
    except DataError as error:
        problems.append(str(error))
    checked: dict[Path, str | None] = {}  # a flat folder's scans belong to both spaces
    for paths in (list(dict.fromkeys(paths.values())) for paths in scans_in.values()):
        shapes: dict[tuple, Path] = {}
        for path in paths:
            if path not in checked:
                checked[path] = read_problem(path)
            if problem := checked[path]:
                problems.append(problem)
                continue
            shape = open_volume(path).shape
            shapes.setdefault(shape, path)
            first = next(iter(shapes))
            if shape != first:
                problems.append(
                    f"{path} has the shape {shape} but {shapes[first]} has {first}. Resample them to one grid."
                )
    return list(dict.fromkeys(problems))
