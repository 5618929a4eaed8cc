"""BraTS's table of survival: age and days from surgery to death of patients with high-grade glioma.

Files: survival_info.csv (2020: Brats20ID, Age, Survival_days, Extent_of_Resection) or survival_data.csv (2018 and 2019:
BraTS18ID, Age, Survival, ResectionStatus), in the folder of the data set or below it.
"""

from __future__ import annotations

from pathlib import Path

import pandas

from custom.datasets.brats import HOW_TO_GET
from custom.errors import ConfigError, DataError, MissingDataError
from custom.reading.volumes import existing_folder

FILES = ("survival_info.csv", "survival_data.csv")
DAYS = ("Survival_days", "Survival")
CLASSES = {0: "under 10 months", 1: "10 to 15 months", 2: "over 15 months"}
BOUNDS = (300.0, 450.0)  # days: BraTS counts 10 and 15 months of 30 days


def table(dataset_dir: str | Path, target: str | None = None) -> pandas.DataFrame:
    """A row for each case whose age and days are numbers: "age" in years and "days", by the case's name.

    A patient who was alive at the end ("ALIVE (361 days later)") has no number of days, and is left out.

    Args:
        dataset_dir: a folder with BraTS's layout.
        target: another column of days; None takes the table's own survival.

    Raises:
        ConfigError: the table has no such column.
        DataError: no table or two of them, a case twice, or no row with numbers.
    """
    folder = existing_folder(dataset_dir, HOW_TO_GET)
    paths = sorted(path for name in FILES for path in folder.glob(f"**/{name}"))
    if not paths:
        raise MissingDataError(f"{folder} holds no {' or '.join(FILES)}. It comes with BraTS 2018 to 2020.")
    if len(paths) > 1:
        raise DataError(f"{paths[0]} and {paths[1]} are two tables of survival. Keep one.")
    rows = pandas.read_csv(paths[0])
    case = next((name for name in rows if str(name).lower().endswith("id")), None)
    days = target or next((name for name in DAYS if name in rows), None)
    if days is not None and days not in rows:
        raise ConfigError(f"{paths[0]} has no column {days!r}. Use one of: {', '.join(map(str, rows))}.")
    if case is None or days is None or "Age" not in rows:
        raise DataError(f"{paths[0]} needs columns for the case (Brats20ID), Age, and survival. It has {list(rows)}.")
    found = pandas.DataFrame(
        {"age": pandas.to_numeric(rows["Age"], "coerce"), "days": pandas.to_numeric(rows[days], "coerce")}
    ).set_index(rows[case].astype(str).str.strip())
    if found.index.has_duplicates:
        raise DataError(f"{paths[0]} has two rows of {found.index[found.index.duplicated()][0]}. Keep one.")
    found = found.dropna()
    if found.empty:
        raise DataError(f"{paths[0]} has no row with numbers for Age and {days}.")
    return found
