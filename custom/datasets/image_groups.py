"""Which images belong together: near-duplicates, and the groups that a table gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components

from custom.errors import DataError


def given_groups(folder: Path, images: Sequence[str]) -> pandas.Series:
    """What folder/groups.csv (columns image and group) says of each image; NaN where it says nothing.

    Args:
        folder: of the data set.
        images: paths below it.

    Raises:
        DataError: the table can't be read, lacks a column, or lists an image twice or an image that does not exist.
    """
    path = folder / "groups.csv"
    if not path.is_file():
        return pandas.Series(np.nan, index=images)
    try:
        table = pandas.read_csv(path, dtype=str, encoding="utf-8")
    except Exception as error:
        raise DataError(f"{path} can't be read as a table ({error}). Export it again.") from error
    if missing := {"image", "group"} - set(table):
        raise DataError(f"{path} has no column {sorted(missing)[0]}. It needs the columns image and group.")
    table = table.dropna(subset="image")
    if len(twice := table["image"][table["image"].duplicated()]):
        raise DataError(f"{path} lists {twice.iloc[0]} twice. Keep one row for each image.")
    if absent := [image for image in table["image"] if not (folder / image).is_file()]:
        raise DataError(f"{path} lists {absent[0]}, which does not exist. Write images as Training/glioma/NAME.jpg.")
    return table.set_index("image")["group"].reindex(images)


def joined(images: Sequence[str], near: csr_matrix, given: pandas.Series) -> dict[str, str]:
    """Each image's group, by the name of its first image: {"Training/glioma/2.jpg": "Training/glioma/1.jpg", ...}.

    Args:
        images: N names.
        near: which are near-duplicates of which, (N, N).
        given: a group for each image, or NaN. Whoever is joined by either belongs together.
    """
    codes, values = pandas.factorize(given)
    listed = np.flatnonzero(codes >= 0)
    nodes = len(images) + len(values)  # each group of the table is a node of the graph
    pairs = near.tocoo()
    rows = np.concatenate([pairs.row, listed])
    columns = np.concatenate([pairs.col, len(images) + codes[listed]])
    _, group = connected_components(coo_matrix((np.ones(len(rows)), (rows, columns)), (nodes, nodes)), directed=False)
    first: dict[int, str] = {}
    return {image: first.setdefault(int(group[number]), image) for number, image in enumerate(images)}
