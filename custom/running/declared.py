"""What a bundle declares in its configs: read as JSON, without running any of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from custom.errors import ConfigError
from custom.files import NO_JSON
from custom.running.bundles import channels_of, labels_of, read_metadata

MOST_LABELS = 255  # a label map is uint8


@dataclass(frozen=True)
class Declared:
    """A segmentation bundle by its metadata.

    Args:
        version, task: of the bundle.
        modality: of its images, such as MR or CT.
        channels: names of the image's channels in order.
        labels: {0: "background", 1: ...}; of overlapping masks one for each mask.
        has_masks: the network's channels are masks that may overlap (sigmoid), without one for the background.
    """

    version: str
    task: str
    modality: str
    channels: tuple[str, ...]
    labels: Mapping[int, str]
    has_masks: bool


def is_zoo_form(metadata: Mapping[str, Any]) -> bool:
    """Whether a bundle has the form of MONAI's model zoo: this project's own bundles declare their "kind"."""
    return "kind" not in metadata


def kind_of(metadata: Mapping[str, Any]) -> str:
    """The kind, "segmentation" or "classification"; of a bundle of the model zoo its output's format, or ""."""
    if not is_zoo_form(metadata):
        return str(metadata["kind"])
    return str(_pred(metadata).get("format", ""))


def has_masks(metadata: Mapping[str, Any]) -> bool:
    """Whether the output's channels are masks, without one for the background."""
    return str(_pred(metadata).get("channel_def", {}).get("0", "background")).lower() != "background"


def declared(folder: Path) -> Declared:
    """What a bundle's metadata declares.

    Args:
        folder: of the bundle, with configs/metadata.json.

    Raises:
        ConfigError: it is no segmentation bundle of 3D images, or it does not declare its channels and labels.
    """
    try:
        metadata = read_metadata(folder)
    except (*NO_JSON, OSError, AssertionError) as error:
        raise ConfigError(f"{folder}/configs/metadata.json cannot be read ({error}). Correct it.") from error
    if not (folder / "configs" / "inference.json").is_file():
        raise ConfigError(f"{folder} has no configs/inference.json. Write its inference config as JSON.")
    kind = kind_of(metadata)
    if kind != "segmentation":
        raise ConfigError(f"{folder.name} gives no label maps, but {kind or 'another output'}. Serve another bundle.")
    place = f"{folder.name}'s metadata.json"
    try:
        image = metadata["network_data_format"]["inputs"]["image"]
        channels, labels = channels_of(metadata), labels_of(metadata)
    except (KeyError, TypeError, IndexError) as error:
        raise ConfigError(
            f"{place} does not declare the channels of its image and its output pred ({error} is missing). Add "
            "channel_def to both in network_data_format."
        ) from error
    shape = image.get("spatial_shape")
    axes = len(shape) if isinstance(shape, (list, tuple)) else 0
    if is_zoo_form(metadata) and axes != 3:
        raise ConfigError(f"{folder.name} takes images of {axes} axes, but scans have 3. Correct its spatial_shape.")
    if len(set(labels.values())) < len(labels) or len(labels) > MOST_LABELS + 1:
        raise ConfigError(f"{place} gives two labels one name, or has more than {MOST_LABELS}. Correct channel_def.")
    return Declared(
        str(metadata.get("version", "")),
        str(metadata.get("task") or metadata.get("description") or folder.name),
        str(image.get("modality", "")).upper(),
        channels,
        labels,
        has_masks(metadata),
    )


def _pred(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    part: Any = metadata
    for name in ("network_data_format", "outputs", "pred"):
        part = part.get(name) if isinstance(part, Mapping) else None
    return part if isinstance(part, Mapping) else {}
