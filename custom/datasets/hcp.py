"""HCP S1200: T1w scans of young adults, and what the subjects' table says of them.

Van Essen et al. 2013, "The WU-Minn Human Connectome Project: An overview", NeuroImage 80, 62-79; Glasser et al. 2013,
NeuroImage 80, 105-124 (preprocessing). After registration at https://db.humanconnectome.org; relatives (Family_ID) and
exact ages stand in the restricted table only.

Files: 100307/T1w/T1w_acpc_dc_restore_brain.nii.gz (0.7 mm, the subject's own space) or
100307/MNINonLinear/T1w_restore_brain.nii.gz (MNI space), or a flat folder of 100307.nii.gz; beside them one or more
.csv tables with a column Subject, which are joined.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from custom.datasets.split import split_by_person
from custom.errors import ConfigError, DataError, MissingDataError
from custom.reading.volumes import existing_folder, natural_order, open_volume, read_problem

CHANNELS = ("T1",)
LABELS = {0: "F", 1: "M"}  # of the default target, Gender
SPACES = {"native": "T1w/T1w_acpc_dc_restore_brain.nii.gz", "mni": "MNINonLinear/T1w_restore_brain.nii.gz"}
KINDS = ("classes", "median", "regression")
KIN = ("Family_ID", "Mother_ID", "Father_ID")  # columns of the restricted table
HOW_TO_GET = (
    "register at https://db.humanconnectome.org for HCP S1200 and put its .csv table beside the subjects' folders, "
    "or write a small simulated set with `brainmri sample hcp DIR`."
)


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
    found = {path.parents[1].name: path for path in folder.glob(f"*/{SPACES[space]}")}
    for path in folder.glob("[!.]*.nii*"):
        if path.name.endswith((".nii", ".nii.gz")):
            found[path.name.removesuffix(".gz").removesuffix(".nii")] = path
    if not found:
        raise MissingDataError(f"{folder} holds no SUBJECT/{SPACES[space]} and no SUBJECT.nii.gz: {HOW_TO_GET}")
    return dict(sorted(found.items(), key=lambda pair: natural_order(pair[0])))


def table(dataset_dir: str | Path) -> pandas.DataFrame:
    """All .csv files of the folder joined by Subject, which is the index (as text).

    Raises:
        MissingDataError: no .csv file.
        DataError: one without the column Subject, one that can't be read, or a subject that comes twice.
    """
    paths = sorted(existing_folder(dataset_dir, HOW_TO_GET).glob("[!.]*.csv"))
    if not paths:
        raise MissingDataError(f"{dataset_dir} holds no .csv table of the subjects: {HOW_TO_GET}")
    joined = pandas.DataFrame()
    for path in paths:
        try:
            part = pandas.read_csv(path, dtype={"Subject": str}, na_values=[" "], encoding="utf-8")
        except Exception as error:
            raise DataError(f"{path} can't be read as a table ({error}): export it again.") from error
        if "Subject" not in part:
            raise DataError(f"{path} has no column Subject: name the subjects' column so.")
        part["Subject"] = part["Subject"].str.strip().str.removesuffix(".0")
        part = part.dropna(subset="Subject")
        if len(twice := part["Subject"][part["Subject"].duplicated()]):
            raise DataError(f"{path} lists {twice.iloc[0]} twice: keep one row for each subject.")
        part = part.set_index("Subject")
        joined = part if joined.empty else joined.join(part.drop(columns=joined.columns, errors="ignore"), how="outer")
    return joined


def target_of(people: pandas.DataFrame, target: str, kind: str = "classes", band: float = 0.0) -> pandas.Series:
    """What is to be told from each person's scan; persons without a value, or inside the band, are left out.

    Args:
        people: as `table` gives it.
        target: one of its columns.
        kind: "classes", the column's own values, sorted, become 0, 1, ...; "median", below and above the median of all
            persons become 0 and 1; "regression", the numbers themselves.
        band: for "median", the share of persons around it who are left out, 0 to below 1.

    Raises:
        ConfigError: an unknown column (with the nearest names) or kind, or a band out of range.
        DataError: a target that is the same for all, one that is no number where one is needed, or one with more than
            20 classes.
    """
    values = column(people, target).dropna()
    if kind not in KINDS:
        raise ConfigError(f"kind must be one of {list(KINDS)}, got {kind!r}.")
    if not 0 <= band < 1:
        raise ConfigError(f"band must be 0 to below 1, got {band!r}.")
    if values.nunique() < 2:
        raise DataError(
            f"{target} is {values.iloc[0] if len(values) else 'empty'} for all persons: name another column."
        )
    if kind == "classes":
        names = sorted(values.unique(), key=str)
        if len(names) > 20:
            raise DataError(f"{target} has {len(names)} different values: take kind median or regression for it.")
        return values.map({name: code for code, name in enumerate(names)}).astype(int)
    if pandas.api.types.is_bool_dtype(values):
        values = values.astype(int)
    if not pandas.api.types.is_numeric_dtype(values):
        raise DataError(f"{target} holds {values.iloc[0]!r}, which is no number: kind {kind} needs numbers.")
    if kind == "regression":
        return values.astype(float)
    low, high = values.quantile(0.5 - band / 2), values.quantile(0.5 + band / 2)
    values = values[(values < low) | (values > high)] if band else values
    halves = (values > low).astype(int)
    if halves.nunique() < 2:
        raise DataError(f"No value of {target} lies above its median {low:g}: take kind classes for it.")
    return halves


def classes(dataset_dir: str | Path, target: str = "Gender", kind: str = "classes") -> dict[int, str]:
    """Names of a target's codes: {0: "F", 1: "M"}, {0: "low ...", 1: "high ..."}, or for a regression its column."""
    if kind == "median":
        return {0: f"low {target}", 1: f"high {target}"}
    if kind == "regression":
        return {0: target}
    return {
        code: str(name)
        for code, name in enumerate(sorted(column(table(dataset_dir), target).dropna().unique(), key=str))
    }


def column(people: pandas.DataFrame, name: str) -> pandas.Series:
    """A column of the table. Raises ConfigError, with the nearest names, where there is none."""
    if name not in people:
        near = difflib.get_close_matches(str(name), [str(one) for one in people], n=3, cutoff=0.4)
        raise ConfigError(f"The subjects' table has no column {name!r}: the nearest are {near or sorted(people)[:10]}.")
    return people[name]


def families(people: pandas.DataFrame) -> dict[str, str]:
    """Each subject's family, {"100307": "family 12", ...}: whoever shares a Family_ID, a mother or a father.

    Half-siblings have families of their own in HCP's table. Where it has none of the three columns, as the unrestricted
    one, everyone is a family, and `knows_families` says so.
    """
    persons, nodes = np.arange(len(people)), len(people)
    links: list[np.ndarray] = [np.stack([persons, persons])]
    for name in (name for name in KIN if name in people):  # each family, mother and father is a node of a graph
        codes, values = pandas.factorize(people[name])
        links.append(np.stack([persons, nodes + codes])[:, codes >= 0])
        nodes += len(values)
    rows, columns = np.concatenate(links, axis=1)
    _, joined = connected_components(coo_matrix((np.ones(len(rows)), (rows, columns)), (nodes, nodes)), directed=False)
    return {subject: f"family {joined[number]}" for number, subject in enumerate(people.index)}


def knows_families(people: pandas.DataFrame) -> bool:
    """Whether the table tells who is related to whom."""
    return any(name in people and people[name].notna().any() for name in KIN)


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
        target, kind, band: as `target_of` takes them.
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
        raise ConfigError(f"{target} is the target: leave it out of the covariates.")
    people, found = table(dataset_dir), scans(dataset_dir, space)
    if missing == "raise" and (problem := _mismatch(people.index, found)):
        raise DataError(f"{problem} Complete them, or set missing to skip.")
    labels = target_of(people, target, kind, band)
    chosen = [subject for subject in found if subject in labels.index]
    family = families(people)
    rows = pandas.DataFrame(
        {
            "image": [str(found[subject]) for subject in chosen],
            "label": [labels[subject] for subject in chosen],
            "family": [family[subject] for subject in chosen],
        },
        index=pandas.Index(chosen, name="subject"),
    )
    return rows.join(_numbers(people, chosen, covariates))


def _numbers(people: pandas.DataFrame, subjects: Sequence[str], names: Sequence[str]) -> pandas.DataFrame:
    """Columns of the table as numbers, of two classes as 0 and 1 (sorted); a gap is an error."""
    numbers = pandas.DataFrame(index=pandas.Index(subjects, name="subject"))
    for name in names:
        values = column(people, name)
        if not pandas.api.types.is_numeric_dtype(values):
            both = sorted(values.dropna().unique())
            if len(both) != 2:  # of one alone it couldn't be told which it is
                raise DataError(f"The covariate {name} has the values {both}: numbers or two classes are needed.")
            values = values.map({one: code for code, one in enumerate(both)})
        values = values.reindex(subjects)
        if values.isna().any():
            raise DataError(f"Subject {values.index[values.isna()][0]} has no {name}: complete the table.")
        numbers[name] = values.astype(float)
    return numbers


def datalist(dataset_dir: str | Path, split: str, fold: int = 0, options: Options | None = None) -> list[dict]:
    """The persons of one split; relatives are in one. The split is that of custom.datasets.split, by family.

    Args:
        split: "training", "validation" or "test"; "unlabelled" is every scan, whatever the table says.
        fold: 0 to 4.
        options: target, covariates and the like; None for the defaults.

    Returns:
        [{"subject": "100307", "group": "family 12", "image": path, "label": 0, "covariates": (k,) float32}, ...]; of a
        regression "label" is (1,) float32; covariates as they stand in the table, where there are any; unlabelled
        scans have neither group nor label.

    Raises:
        ConfigError, DataError: as `persons`, or an unknown split or fold.
    """
    options = options or Options()
    covariates = options.covariates
    if split == "unlabelled":
        found = scans(dataset_dir, options.space)
        numbers = _numbers(table(dataset_dir), list(found), covariates) if covariates else None
        items = [{"subject": subject, "image": str(path)} for subject, path in found.items()]
        return [one | _covariates(numbers, one["subject"]) for one in items]
    rows = persons(dataset_dir, options.target, options.kind, options.band, options.space, covariates, options.missing)
    everyone = families(table(dataset_dir)).values()  # so that a person is in one split, whatever the target
    chosen = split_by_person(everyone, split, fold, dataset_dir)
    items = []
    for subject, row in rows[rows["family"].isin(chosen)].iterrows():
        open_volume(row["image"])
        label = np.array([row["label"]], dtype=np.float32) if options.kind == "regression" else row["label"]
        item = {"subject": subject, "group": row["family"], "image": row["image"], "label": label}
        items.append(item | _covariates(rows[list(covariates)] if covariates else None, subject))
    return items


def covariates_of(items: Sequence[dict]) -> np.ndarray:
    """(n, k) float32, of a datalist's persons."""
    return np.stack([item["covariates"] for item in items])


def scale(items: Sequence[dict]) -> tuple[float, float]:
    """Mean and deviation of a regression's labels, of the training split's datalist."""
    labels = np.concatenate([item["label"] for item in items]).astype(float)
    if labels.std() == 0:
        raise DataError(f"All {len(labels)} training persons have the target {labels[0]:g}: there is nothing to learn.")
    return float(labels.mean()), float(labels.std())


def _covariates(numbers: pandas.DataFrame | None, subject: str) -> dict[str, np.ndarray]:
    return {} if numbers is None else {"covariates": numbers.loc[subject].to_numpy(dtype=np.float32)}


def _mismatch(listed: Collection[str], found: Collection[str]) -> str:
    without_scan = sorted(set(listed) - set(found), key=natural_order)
    without_row = sorted(set(found) - set(listed), key=natural_order)
    said = [
        f"{len(names)} subject{'s' * (len(names) > 1)} {what}: {', '.join(names)}."
        for names, what in ((without_scan, "of the table without a scan"), (without_row, "with a scan but no row"))
        if names
    ]
    return " ".join(said)


def verify(dataset_dir: str | Path) -> list[str]:
    """Reads every voxel and returns every problem found, each a sentence that names its file or subject."""
    problems: list[str] = []
    found: dict[str, dict[str, Path]] = {}
    for space in SPACES:
        try:
            found[space] = scans(dataset_dir, space)
        except MissingDataError as error:
            absent = str(error)
    if not found:
        return [absent]
    try:
        listed = table(dataset_dir).index
        mismatches = {space: _mismatch(listed, paths) for space, paths in found.items()}
        problems += dict.fromkeys(one for one in mismatches.values() if one)
    except DataError as error:
        problems.append(str(error))
    for paths in (list(dict.fromkeys(paths.values())) for paths in found.values()):
        shapes: dict[tuple, Path] = {}
        for path in paths:
            if problem := read_problem(path):
                problems.append(problem)
                continue
            shape = open_volume(path).shape
            shapes.setdefault(shape, path)
            first = next(iter(shapes))
            if shape != first:
                problems.append(
                    f"{path} has the shape {shape} but {shapes[first]} has {first}: resample them to one grid."
                )
    return list(dict.fromkeys(problems))
