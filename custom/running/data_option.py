"""The option `data`: a list of what to predict, as a user types it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from custom.errors import DataError
from custom.reading.volumes import open_volume


def is_datalist(value: Any) -> bool:
    """Whether a value is a list of dicts, each with an "image"."""
    return isinstance(value, (list, tuple)) and all(isinstance(item, dict) and "image" in item for item in value)


def require_channels(items: Iterable[Mapping[str, Any]], channels: Sequence[str]) -> None:
    """Raises DataError for an image whose volumes have more or fewer channels than the network takes.

    Args:
        items: [{"image": a file or a list of files}, ...]; a 4D file has several channels. What is no volume that can
            be opened is left to the transforms.
        channels: the names of the network's channels in their order.
    """
    for item in items:
        image = item["image"]
        files = [str(path) for path in ([image] if isinstance(image, (str, Path)) else image)]
        try:
            shapes = [open_volume(file).shape for file in files]
        except (DataError, OSError):
            continue
        given = sum(int(shape[3]) if len(shape) > 3 else 1 for shape in shapes)
        if given != len(channels):
            raise DataError(
                f"The number of channels in {', '.join(files)} is {given}, but this network takes {len(channels)}. "
                f"Give {', '.join(channels)} in this order."
            )
