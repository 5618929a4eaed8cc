"""Bundles in the form of MONAI's model zoo: their configs with this project's settings, their results as label maps."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import AsDiscreted, Compose, Invertd, SaveImaged, SpatialResample

from custom.checkpoints.find import shipped_weights
from custom.errors import ConfigError
from custom.reading.volumes import in_one_place
from custom.running.bundles import labels_of
from custom.running.declared import has_masks
from custom.running.workflow import literal

SETTINGS = ("bundle_root", "ckpt_path", "device", "output_dir")  # that every bundle takes here
_MOST_MASKS = 10
_LONGEST = 64  # letters of a segment's name in DICOM


def zoo_parser(files: Sequence[str], settings: Mapping[str, Any]) -> ConfigParser:
    """The config of a bundle whose weights are models/model.pt, as MONAI's form asks for.

    Args:
        files: the inference config.
        settings: overrides of SETTINGS, and of keys that the config has.

    Raises:
        ConfigError: an unknown setting, or a config without a network, an inferer or a preprocessing.
    """
    root = Path(files[0]).parents[1]
    parser = ConfigParser()
    parser.read_config(list(files))
    parser.read_meta(str(root / "configs" / "metadata.json"))
    if unknown := [name for name in settings if name not in SETTINGS and name not in parser]:
        raise ConfigError(f"{root.name} has no option {unknown[0]!r}.")
    needed = ("network_def", "network", "inferer", "preprocessing", "postprocessing", "evaluator")
    if missing := [name for name in needed if name not in parser]:
        raise ConfigError(f"{files[0]} has no {missing[0]}, which MONAI's form of a bundle asks for. Add it.")
    known = {"bundle_root": str(root), "ckpt_path": str(shipped_weights(root))} | dict(settings)
    parser.update({name: literal(value) for name, value in known.items()})
    return parser


class ZooLabelling:
    """A bundle's own postprocessing, and then one label map on the grid of the image's file.

    The step that saves is left out. Exclusive classes give their codes. Masks that overlap become one label for each
    voxel: by the bundle's own step that merges them, or else by the smallest mask of the scan.

    Args:
        parser: of the inference config.

    Attributes:
        labels: {0: "background", 1: ...}. The meaning of a merging step's values is read off that step, by showing it
            every combination of masks: "Whole tumor without Enhancing tumor" is a value for voxels of the first mask
            and not of the second.

    Raises:
        ConfigError: a merging step whose values mean nothing that can be named.
    """

    def __init__(self, parser: ConfigParser) -> None:
        metadata = parser["_meta_"]
        steps = list(parser.get_parsed_content("postprocessing").transforms)
        self.steps = Compose([step for step in steps if not isinstance(step, SaveImaged)])
        self.labels: dict[int, str] = labels_of(metadata)
        self.codes: dict[int, int] | None = None  # {a value of the merging step: its code}
        self.has_masks = has_masks(metadata)
        own_names = "labels" in metadata["network_data_format"]["outputs"]["pred"]
        if self.has_masks and not own_names:
            names = [self.labels[code] for code in sorted(self.labels) if code]
            if (meanings := merged_names(steps, names)) is not None:
                self.codes = {value: code for code, value in enumerate(sorted(meanings), start=1)}
                self.labels = {0: "background"} | {self.codes[value]: meanings[value] for value in meanings}

    def __call__(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """The item with "pred" as labels (1, X, Y, Z) on the grid of the image's file."""
        image = item["image"]
        result = dict(self.steps(item))
        pred = result["pred"]
        if pred.shape[0] > 1:
            pred = smallest_mask(pred) if self.has_masks else pred.argmax(dim=0, keepdim=True)
        elif self.codes is not None:
            codes = torch.zeros_like(pred)
            for value, code in self.codes.items():
                codes[pred == value] = code
            pred = codes
        result["pred"] = on_file_grid(pred, image)
        return result


def merged_names(steps: Sequence[Any], names: Sequence[str]) -> dict[int, str] | None:
    """What the values of a step that merges masks mean; None if there is no such step.

    Args:
        steps: of a postprocessing. Those after the last threshold may merge masks.
        names: of the masks, in the order of the channels.

    Returns:
        {value: "A", "A and B", or "A without B"}, without 0.

    Raises:
        ConfigError: the step fails, or a value stands for no mask.
    """
    places = [n for n, step in enumerate(steps) if isinstance(step, AsDiscreted) and any(step.threshold)]
    merging = (
        [step for step in steps[places[-1] + 1 :] if not isinstance(step, (SaveImaged, Invertd))] if places else []
    )
    if not merging:
        return None
    advice = 'Declare what its values mean: "labels": {"0": "background", "1": ...} in outputs.pred of metadata.json.'
    if len(names) > _MOST_MASKS:
        raise ConfigError(f"The bundle merges {len(names)} masks. {advice}")
    shown = list(itertools.product((0, 1), repeat=len(names)))
    masks = MetaTensor(torch.tensor(shown, dtype=torch.float32).T[:, :, None, None])
    try:
        values = Compose(merging)({"pred": masks})["pred"]
    except Exception as error:  # of a bundle's own code
        raise ConfigError(f"The bundle merges its masks by a step that cannot be read ({error}). {advice}") from error
    if tuple(values.shape) == tuple(masks.shape):
        return None
    if tuple(values.shape) != (1, *masks.shape[1:]):
        raise ConfigError(f"The bundle's masks become an array of {tuple(values.shape)}. {advice}")
    combinations: dict[int, list[tuple[int, ...]]] = {}
    for combination, value in zip(shown, values.flatten().tolist(), strict=True):
        combinations.setdefault(int(value), []).append(combination)
    combinations.pop(0, None)
    meanings = {value: _name(masks_of, names) for value, masks_of in combinations.items()}
    if "" in meanings.values() or not meanings:
        raise ConfigError(f"A value of the bundle's result stands for no mask. {advice}")
    if len(set(meanings.values())) < len(meanings):  # as long names are cut, also of different masks
        raise ConfigError(f"Two values of the bundle's result have the same name. {advice}")
    return meanings


def _name(combinations: Sequence[tuple[int, ...]], names: Sequence[str]) -> str:
    """The masks that are in all of these combinations, without those that are in none."""
    inside = [name for n, name in enumerate(names) if all(one[n] for one in combinations)]
    outside = [name for n, name in enumerate(names) if not any(one[n] for one in combinations)]
    text = " and ".join(inside) + (f" without {', '.join(outside)}" if outside else "")
    return text[:_LONGEST].strip() if inside else ""


def smallest_mask(masks: torch.Tensor) -> torch.Tensor:
    """Labels (1, X, Y, Z) of overlapping masks (C, X, Y, Z): a voxel in several masks belongs to the smallest one.

    Label 1 is the first mask; 0 is outside all masks. Of masks of equal size the later one counts.
    """
    inside = masks > 0.5
    sizes = inside.flatten(1).sum(dim=1)
    labels = torch.zeros_like(masks[:1])
    for channel in sorted(range(len(masks)), key=lambda n: (-int(sizes[n]), n)):  # the largest first
        labels[0][inside[channel]] = channel + 1
    return labels


def on_file_grid(pred: Any, image: MetaTensor) -> Any:
    """Labels (1, ...) on the grid of the image's file, where a postprocessing left them on the network's grid."""
    pred = pred if isinstance(pred, MetaTensor) else MetaTensor(pred, affine=image.affine)
    affine = np.asarray(image.meta["original_affine"], dtype=np.float64)
    size = tuple(int(n) for n in np.asarray(image.meta["spatial_shape"]).ravel())[:3]
    if tuple(pred.shape[1:]) == size and in_one_place(size, np.asarray(pred.affine, dtype=np.float64), affine):
        return pred
    return SpatialResample(mode="nearest", padding_mode="zeros", dtype=np.float32)(
        pred, dst_affine=torch.as_tensor(affine), spatial_size=size
    )
