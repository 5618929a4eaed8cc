"""`brainmri bundles`: which bundles there are, and whether `brainmri label` can serve them. Nothing of them is run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from custom.checkpoints.find import choose, find_weights
from custom.errors import BrainMRIError, ConfigError
from custom.running.bundles import bundles_in, find_bundle, find_bundles
from custom.running.declared import declared
from custom.serving.foreign import unknown_channels

_HEADER = ("bundle", "served", "input", "labels", "weights or reason")


def bundle_table(places: Sequence[str], runs: Path) -> str:
    """A table of bundles, one a line: name, "yes" or "no", channels, labels, and the weights or the reason.

    Whether weights fit the network is seen only when the server starts.

    Args:
        places: bundles by name or folder, or folders of bundles; none for all that came with this package and those of
            BRAINMRI_BUNDLES.
        runs: the folder of trainings.

    Raises:
        ConfigError: a folder without a bundle, or a name that no bundle has.
    """
    folders = [folder for place in places for folder in _in(place)] or [
        folder for _, folder in sorted(find_bundles().items())
    ]
    rows = [_HEADER, *(_row(folder, runs) for folder in folders)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER) - 1)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _in(place: str) -> list[Path]:
    folder = Path(place).expanduser().absolute()
    if not folder.is_dir():
        return [find_bundle(place)]
    bundles = bundles_in(folder)
    if not bundles:
        raise ConfigError(f"{place} holds no bundle. Name folders with configs/metadata.json.")
    return bundles


def _row(folder: Path, runs: Path) -> tuple[str, ...]:
    try:
        own = declared(folder)
        channels, names = ", ".join(own.channels), [name for code, name in own.labels.items() if code]
        labels = ", ".join(names) if len(names) < 5 else f"{len(names)} labels"
    except BrainMRIError as error:
        return folder.name, "no", "", "", str(error)
    if len(own.channels) > 1 and (unknown := unknown_channels(own.channels)):
        return folder.name, "no", channels, labels, unknown
    try:
        weights = choose(find_weights(folder, runs / folder.name), "newest", folder.name)
    except BrainMRIError as error:
        return folder.name, "no", channels, labels, str(error)
    return folder.name, "yes", channels, labels, weights.name
