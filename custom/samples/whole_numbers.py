"""The check of sizes that come from a command line."""

from __future__ import annotations


def is_whole_number(value: object, least: int) -> bool:
    """Whether a value is an integer of at least `least`; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
