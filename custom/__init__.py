"""What MONAI lacks for this project's bundles; each room's page says what is in it.

Research use only, not a medical device.
"""

import json
import sys
from pathlib import Path

__version__ = "0.1.0"
RESEARCH_USE_ONLY = "Research use only, not a medical device."


def bundles() -> dict[str, Path]:
    """Every bundle that came with this package: its name and its folder."""
    package = Path(__file__).resolve().parent
    places = (package / "bundles", package.parent / "bundles")  # installed, and in the repository
    found = (metadata.parents[1] for place in places for metadata in sorted(place.glob("*/configs/metadata.json")))
    return {folder.name: folder for folder in found}


def weights(output_dir: str, bundle_root: str) -> str:
    """The file of weights to use: the user's own training if there is one, else those that came with the bundle."""
    own, shipped = Path(output_dir) / "model.pt", Path(bundle_root) / "models" / "model.pt"
    return str(shipped if shipped.is_file() and not own.is_file() else own)


def bundle_root(name: str) -> str:
    """The folder of the bundle that is being run.

    MONAI puts the folder of the bundle whose config it runs on sys.path, so that a copy or an unzipped bundle
    finds itself; otherwise it is the bundle of that name that came with this package.

    Args:
        name: the bundle's `name` in configs/metadata.json, and its folder's.

    Raises:
        FileNotFoundError: there is no such bundle.
    """
    for entry in sys.path:
        metadata = Path(entry) / "configs" / "metadata.json"
        if metadata.is_file() and json.loads(metadata.read_text(encoding="utf-8")).get("name") == name:
            return str(metadata.parents[1].resolve())
    if name not in bundles():
        raise FileNotFoundError(f"There is no bundle {name!r}, only {sorted(bundles())}.")
    return str(bundles()[name])
