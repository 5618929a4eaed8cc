"""What to do where a device's memory is not enough: the next, slower way, and a warning that says so."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from custom.errors import DataError, is_out_of_memory

Result = TypeVar("Result")


def first_that_fits(ways: Sequence[tuple[str, Callable[[], Result]]]) -> Result:
    """The result of the first of several ways, best first, for which the memory is enough.

    Args:
        ways: what each does, for the warning ("in one pass"), and a function that does it.

    Raises:
        DataError: the memory is not enough for any.
    """
    for number, (what, way) in enumerate(ways):
        try:
            return way()
        except RuntimeError as error:  # its traceback holds the tensors until this block ends
            if not is_out_of_memory(error):
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if number + 1 < len(ways):
            warnings.warn(f"The memory is not enough {what}. Going on {ways[number + 1][0]}.", stacklevel=2)
    raise DataError(
        "The memory is not enough for this scan. Close other programs, use smaller windows (roi_size), or the CPU "
        "(device=cpu)."
    )
