"""Which subjects of a folder of labelled scans train, validate and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from custom.datasets import own_folder


def split_of(folder: str, fold: int) -> dict[str, list[str]]:
    """{"training": subjects, "validation": ..., "test": ...} of a fold."""
    names = ("training", "validation", "test")
    return {name: [case["subject"] for case in own_folder.datalist(folder, name, fold)] for name in names}


def print_split(split: Mapping[str, Sequence[str]]) -> None:
    """Prints which subjects train, validate and test, a line each."""
    for name, subjects in split.items():
        some = f"{', '.join(subjects[:8])}{', ...' if len(subjects) > 8 else ''}"
        print(f"{name:<11}{len(subjects):>4}: {some}", flush=True)
