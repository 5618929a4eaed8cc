"""Pretraining without labels, by a bundle's configs/pretrain.json."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from custom.commands.options import PRETRAIN, typed
from custom.errors import ConfigError
from custom.running.bundles import config_files, find_bundle, find_bundles
from custom.running.workflow import run


def pretrain(bundle: str, overrides: Mapping[str, Any]) -> None:
    """Trains by pretrain.json, and prints where the weights are and the command that starts a training from them.

    Args:
        bundle: any unique part of a bundle's name.
        overrides: as the user gave them.

    Raises:
        ConfigError: the bundle has no pretrain.json.
    """
    folder, name = find_bundle(bundle), f"{PRETRAIN}.json"
    if not (folder / "configs" / name).is_file():
        known = sorted(other for other, place in find_bundles().items() if (place / "configs" / name).is_file())
        raise ConfigError(f"{folder.name} has no configs/{name}. Pretrain one of: {', '.join(known)}.")
    files = config_files(bundle, name)
    workflow = run("training", files, **typed(files, overrides))
    if int(os.environ.get("RANK", "0")) > 0:
        return
    output_dir, dataset_dir = (workflow.parser.get_parsed_content(key) for key in ("output_dir", "dataset_dir"))
    weights = Path(output_dir) / "model.pt"
    options: dict[str, Any] = {"network": "vit", "dataset_dir": dataset_dir, "from_weights": weights}
    words = [word for name, value in (options | _of_training(overrides)).items() for word in (f"--{name}", str(value))]
    print(f"The weights are in {weights}, and {output_dir}/reconstructions.png shows what they rebuild.")
    print(f"Start a training from them with:\n{shlex.join(['brainmri', 'train', bundle, *words])}")


def _of_training(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The options that the training from these weights must have too: those of its splits and of its network."""
    alike = ("partition", "fold", "class_names", "cache_dir", "roi_size", "in_channels")
    given = {name: value for name, value in overrides.items() if name in alike}
    start = "network_def#"
    given |= {name: value for name, value in overrides.items() if name.startswith(start) and "decoder" not in name}
    return given | ({f"{start}patch_size": overrides["patch_size"]} if "patch_size" in overrides else {})
