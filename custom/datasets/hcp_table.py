"""The subjects' table of HCP S1200: targets, covariates, and who is related to whom.

The table is one or more .csv files with a column Subject, which are joined. Relatives (Family_ID) and exact ages stand
in the restricted table only.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from custom.errors import ConfigError, DataError, MissingDataError
from custom.reading.volumes import existing_folder

KINDS = ("classes", "median", "regression")
KIN = ("Family_ID", "Mother_ID", "Father_ID")  # columns of the restricted table
HOW_TO_GET = (
    "Register at https://db.humanconnectome.org for HCP S1200 and put its .csv table beside the subjects' folders, "
    "or write a small simulated set with `brainmri sample hcp DIR`."
)


def table(dataset_dir: str | Path) -> pandas.DataFrame:
    """All .csv files of the folder joined by Subject, which is the index (as text).

    Raises:
        MissingDataError: no .csv file.
        DataError: one without the column Subject, one that can't be read, or a subject that comes twice.
    """
    paths = sorted(existing_folder(dataset_dir, HOW_TO_GET).glob("[!.]*.csv"))
    if not paths:
        raise MissingDataError(f"{dataset_dir} holds no .csv table of the subjects. {HOW_TO_GET}")
    joined = pandas.DataFrame()
    for path in paths:
        try:
            part = pandas.read_csv(path, dtype={"Subject": str}, na_values=[" "], encoding="utf-8")
        except Exception as error:
            raise DataError(f"{path} can't be read as a table ({error}). Export it again.") from error
        if "Subject" not in part:
            raise DataError(f"{path} has no column Subject. Rename the column of the subjects to Subject.")
        part["Subject"] = part["Subject"].str.strip().str.removesuffix(".0")
        part = part.dropna(subset="Subject")
        if len(twice := part["Subject"][part["Subject"].duplicated()]):
            raise DataError(f"{path} lists {twice.iloc[0]} twice. Keep one row for each subject.")
        part = part.set_index("Subject")
        joined = part if joined.empty else joined.join(part.drop(columns=joined.columns, errors="ignore"), how="outer")
    return joined


def target_of(people: pandas.DataFrame, target: str, kind: str = "classes", band: float = 0.0) -> pandas.Series:
    """The value to predict from each participant's scan, without those who lack a value or are inside the band.

    Args:
        people: the subjects' table, as `table` gives it.
        target: one of its columns.
        kind: "classes", the column's own values, sorted, become 0, 1, ...; "median", below and above the median of all
            participants become 0 and 1; "regression", the numbers themselves.
        band: for "median", the share of participants around it who are left out, 0 to below 1.

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
            f"{target} is {values.iloc[0] if len(values) else 'empty'} for all participants. Use another column."
        )
    if kind == "classes":
        names = sorted(values.unique(), key=str)
        if len(names) > 20:
            raise DataError(f"{target} has {len(names)} different values. Use kind median or regression for it.")
        return values.map({name: code for code, name in enumerate(names)}).astype(int)
    if pandas.api.types.is_bool_dtype(values):
        values = values.astype(int)
    if not pandas.api.types.is_numeric_dtype(values):
        raise DataError(f"{target} holds {values.iloc[0]!r}, which is no number. Kind {kind} needs numbers.")
    if kind == "regression":
        return values.astype(float)
    low, high = values.quantile(0.5 - band / 2), values.quantile(0.5 + band / 2)
    values = values[(values < low) | (values > high)] if band else values
    halves = (values > low).astype(int)
    if halves.nunique() < 2:
        raise DataError(f"No value of {target} lies above its median {low:g}. Use kind classes for it.")
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
    """A column of the table. Raises ConfigError, with the nearest names, if there is none."""
    if name not in people:
        near = difflib.get_close_matches(str(name), [str(known) for known in people], n=3, cutoff=0.4)
        nearest = near or sorted(people)[:10]
        raise ConfigError(f"The subjects' table has no column {name!r}. The nearest names are {nearest}.")
    return people[name]


def families(people: pandas.DataFrame) -> dict[str, str]:
    """Each subject's family, {"100307": "family 12", ...}: whoever shares a Family_ID, a mother or a father.

    Half-siblings have families of their own in HCP's table. Where it has none of the three columns, as the unrestricted
    one, everyone is a family, and `knows_families` says so.
    """
    participants, nodes = np.arange(len(people)), len(people)
    links: list[np.ndarray] = [np.stack([participants, participants])]
    for name in (name for name in KIN if name in people):  # each family, mother and father is a node of a graph
        codes, values = pandas.factorize(people[name])
        links.append(np.stack([participants, nodes + codes])[:, codes >= 0])
        nodes += len(values)
    rows, columns = np.concatenate(links, axis=1)
    _, joined = connected_components(coo_matrix((np.ones(len(rows)), (rows, columns)), (nodes, nodes)), directed=False)
    return {subject: f"family {joined[number]}" for number, subject in enumerate(people.index)}


def knows_families(people: pandas.DataFrame) -> bool:
    """Whether the table tells who is related to whom."""
    return any(name in people and people[name].notna().any() for name in KIN)


def numbers_of(people: pandas.DataFrame, subjects: Sequence[str], names: Sequence[str]) -> pandas.DataFrame:
    """Columns of the table as numbers, of two classes as 0 and 1 (sorted); a gap is an error."""
    numbers = pandas.DataFrame(index=pandas.Index(subjects, name="subject"))
    for name in names:
        values = column(people, name)
        if not pandas.api.types.is_numeric_dtype(values):
            both = sorted(values.dropna().unique())
            if len(both) != 2:  # a single class could be either 0 or 1
                raise DataError(f"The covariate {name} has the values {both}. Numbers or two classes are needed.")
            values = values.map({value: code for code, value in enumerate(both)})
        values = values.reindex(subjects)
        if values.isna().any():
            raise DataError(f"Subject {values.index[values.isna()][0]} has no {name}. Complete the table.")
        numbers[name] = values.astype(float)
    return numbers
