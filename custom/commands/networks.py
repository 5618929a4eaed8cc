"""What networks a bundle has, and what each costs."""

from __future__ import annotations

import re
from typing import Any

import pandas
from monai.bundle import ConfigParser

from custom.errors import ConfigError
from custom.networks.cost import count_parameters, gflops
from custom.running.bundles import config_files, find_bundle, find_bundles, mixins


def network_tables(bundle: str, size: int | None = None) -> str:
    """The tables of a bundle, or of all bundles if the name is empty, each below its name."""
    folders = [find_bundle(bundle)] if bundle else [folder for _, folder in sorted(find_bundles().items())]
    tables = [f"{folder.name}\n{network_table(str(folder), size).to_string(index=False)}" for folder in folders]
    return "\n\n".join(tables)


def network_table(bundle: str, size: Any = None) -> pandas.DataFrame:
    """A row for the default network and each of configs/networks: parameters, GFLOPs of a window forward, its source.

    Args:
        bundle: a bundle's name.
        size: of the window along each axis, in voxels, the bundle's roi_size by default; a network that can't take it
            has no GFLOPs.

    Raises:
        ConfigError: size isn't a whole number above 0.
    """
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        raise ConfigError(f"size must be a whole number of voxels above 0, got {size!r}.")
    rows = []
    for name in (None, *sorted(path.stem for path in (find_bundle(bundle) / "configs/networks").glob("*.json"))):
        files = config_files(bundle, "train.json", *mixins(bundle, name, None))
        parser = ConfigParser(ConfigParser.load_config_files(files))
        at_default_size = parser.get_parsed_content("network_def")
        parser["roi_size"] = [size] * len(parser["roi_size"]) if size else parser["roi_size"]
        window = [1, parser["in_channels"], *parser["roi_size"]]
        try:
            cost = f"{gflops(parser.get_parsed_content('network_def'), window):,.1f}"
        except (RuntimeError, ValueError, TypeError):
            cost = "-"
        if name:
            source = re.split(r"\. (?:Any size|Sizes|Works)", ConfigParser.load_config_file(files[-1])["_desc_"])[0]
        else:
            own = type(at_default_size).__module__.startswith("custom")
            source = f"{'' if own else 'MONAI: '}{type(at_default_size).__name__}"
        rows.append(
            {
                "network": name or "default",
                "parameters": f"{count_parameters(at_default_size):,}",
                "GFLOPs": cost,
                "source": source,
            }
        )
    return pandas.DataFrame(rows)
