"""95% intervals of measures, from bootstrap samples of groups (families, or subjects with several images)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A measure of all rows, and the ends of its 95% interval."""

    value: float
    low: float
    high: float


def bootstrap_intervals(
    measures: Mapping[str, Callable[[np.ndarray], float]], groups: Sequence[str], draws: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """Measures with 95% intervals. Whole groups are drawn with replacement, with all their rows.

    Args:
        measures: functions of row numbers (n,), which may repeat. Each is computed on the same draws; a draw for which
            it gives NaN does not count.
        groups: (n,), the group of each row. Rows without relatives have a group of their own.
        draws: bootstrap samples, each of as many groups as there are.
        seed: of the draws.

    Returns:
        An Interval for each measure; its ends are NaN where no draw has a value.

    Source: Efron, Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13 (percentile intervals).
    """
    names, group_of = np.unique(np.asarray(groups), return_inverse=True)
    rows_of = [np.flatnonzero(group_of == number) for number in range(len(names))]
    rng = np.random.default_rng(seed)
    samples = [
        np.concatenate([rows_of[number] for number in rng.integers(0, len(names), len(names))]) for _ in range(draws)
    ]
    intervals = {}
    for name, measure in measures.items():
        values = np.array([measure(rows) for rows in samples])
        low, high = np.nanquantile(values, [0.025, 0.975]) if np.isfinite(values).any() else (np.nan, np.nan)
        intervals[name] = Interval(measure(np.arange(len(group_of))), float(low), float(high))
    return intervals
