"""Whether bundles that others made can be served: the contrasts of their channels, and their own Python code."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from custom.errors import ConfigError
from custom.serving.contrasts import contrast_of

logger = logging.getLogger(__name__)


def unknown_channels(channels: Sequence[str]) -> str:
    """Why the scans of a bundle's channels cannot be found in a study; "" if they can."""
    contrasts = [contrast_of(channel) for channel in channels]
    for channel, contrast in zip(channels, contrasts, strict=True):
        if contrast is None:
            return f"Its channel {channel!r} names no MR contrast, so that no scan can be found for it."
        if contrasts.count(contrast) > 1:
            return f"Two of its channels are {contrast}, so that they cannot be told apart in a study."
    return ""


def check_code(bundles: Mapping[str, Path]) -> None:
    """Logs which bundles bring Python code.

    Args:
        bundles: the folders of the bundles to serve, by name.

    Raises:
        ConfigError: two bring code of one name, such as scripts.
    """
    owners: dict[str, str] = {}
    for name, root in bundles.items():
        for package in code_of(root):
            logger.warning("%s brings Python code of its own, which this server runs: %s", name, package)
            if other := owners.get(package):
                raise ConfigError(
                    f"{other} and {name} both bring Python code in {package}, and one process can load only one "
                    "of them. Serve them by two servers."
                )
            owners[package] = name


def code_of(root: Path) -> list[str]:
    """The names of the Python modules and packages in a bundle's folder, which its configs can import."""
    modules = [path.stem for path in root.glob("*.py")]
    return sorted(modules + [path.name for path in root.iterdir() if path.is_dir() and next(path.rglob("*.py"), None)])
