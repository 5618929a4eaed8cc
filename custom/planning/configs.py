"""The configs of a planned bundle: those of a shipped bundle, with what was decided in place."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

import custom
from custom.planning.decide import Plan
from custom.planning.measure import Fingerprint

Config = dict[str, Any]
# Options and sections of the tissue bundle that only its training on label maps uses.
_OF_LABEL_MAPS = ("freesurfer_dir", "scans_per_epoch", "validation_draws", "stripped", "graph")
_OWN = "$import custom.datasets.own_folder as own"
CACHE = {"cache_dir": "$@output_dir + '/cache'"}
NOTE = "The options come first; configs/options.json explains them. You may change every line."


@dataclass(frozen=True)
class Planned:
    """What all files of a planned bundle are made of."""

    name: str
    known: Fingerprint
    plan: Plan

    @property
    def own(self) -> Config:
        """Channels, labels and codes as options of the bundle."""
        known = self.known
        return {
            "channels": list(known.channels),
            "labels": f"${known.labels!r}",
            "codes": list(known.codes),
            "ignore_code": known.ignore_code,
            "ignore_index": None if known.ignore_code is None else len(known.labels),
        }


def tumor_configs(template: Path, planned: Planned) -> dict[str, Config]:
    """train.json and inference.json of the tumor bundle, for other channels and labels, with one voxel size."""
    settings, own = planned.plan.settings, planned.own
    train, inference = read_config(template / "train.json"), read_config(template / "inference.json")
    for config in (train, inference):
        _name(config, planned)
        config["imports"] = [_OWN if "brain_tumors" in line else line for line in config["imports"]]
        config["dataset_dir"] = str(planned.known.folder.absolute())
        config["datalist"] = "$own.datalist"
        config["in_channels"], config["out_channels"] = len(planned.known.channels), len(planned.known.labels)
        for name in ("roi_size", "network_def", "normalize"):
            config[name] = settings[name]
        _insert(config, "roi_size", {"spacing": settings["spacing"]})
    for name in ("max_epochs", "val_interval", "early_stop_patience", "batch_size", "samples_per_volume"):
        train[name] = settings[name]
    _replace(train, "codes", own)
    train["scored_regions"] = "${name: (label,) for label, name in @labels.items()}"
    steps = train["train"]["deterministic_transforms"]
    steps.insert(-1, _resample(["image", "label"], ["bilinear", "nearest"]))
    _set_flip(train["train"]["sampling_transforms"], settings["flip"])
    _insert(inference, "datalist", {"channels": own["channels"], "labels": own["labels"]})
    inference["preprocessing"]["transforms"].insert(-1, _resample("image", "bilinear"))
    for name in ("output_codes", "file_codes"):
        del inference[name]
    inference["saving"] = [step for step in inference["saving"] if step["_target_"] != "MapLabelValued"]
    _insert(train, "cache_rate", CACHE)
    del train["cache_rate"]
    train["train"]["to_brain"]["select_fn"] = "$torch.Tensor.bool"  # not 0; a lambda would not pickle
    _read_from_disk(train, "$@train#deterministic_transforms + [@train#to_brain]", "@samples_per_volume")
    train["train"]["preprocessing"]["transforms"] = "$[@crop] + @train#sampling_transforms + @targets"
    evaluate = _evaluation(template, True)
    for name in ("patches", "validate#preprocessing#transforms"):
        del evaluate[name]
    return {"train": train, "inference": inference, "evaluate": evaluate}


def _read_from_disk(train: Config, steps: str, number: Any) -> None:
    """Replaces the copies in memory, and the crop from whole scans, by `number` windows from memory maps."""
    kept = {"cache_dir": "@cache_dir", "ignore_index": "@ignore_index"}
    train["crop"] = {
        "_target_": "custom.transforms.CropFromDiskd",
        "transforms": steps,
        **kept,
        "spatial_size": "@roi_size",
        "num_samples": number,
        "pos": 3,
        "neg": 1,
    }
    whole = {"_target_": "custom.transforms.FromDiskd", "transforms": "@train#deterministic_transforms", **kept}
    train["validate"]["preprocessing"]["transforms"] = [whole]
    for part in ("train", "validate"):
        dataset = train[part]["dataset"]
        train[part]["dataset"] = {"_target_": "Dataset", "data": dataset["data"], "transform": dataset["transform"]}


def _evaluation(template: Path, trials: bool) -> Config:
    """evaluate.json with a folder for the scores, and with trials of a post-processing."""
    config = read_config(template / "evaluate.json")
    _insert(config, "ckpt_path", {"scores_dir": "$@output_dir + '/evaluation'"})
    handlers = config["validate#handlers"]
    for handler in handlers:
        if handler["_target_"].endswith("SegmentationScores"):
            handler["output_dir"] = "@scores_dir"
            labels = handler["labels"]
    if trials:
        handlers.append(
            {"_target_": "custom.handlers.PostprocessingTrials", "output_dir": "@scores_dir", "labels": labels}
        )
    return config


def _resample(keys: Any, mode: Any) -> Config:
    return {"_target_": "Spacingd", "keys": keys, "pixdim": "@spacing", "mode": mode}


def tissue_configs(template: Path, planned: Planned) -> dict[str, Config]:
    """train.json with the recipe own_scans in it, and inference.json, of the tissue bundle."""
    settings, own = planned.plan.settings, planned.own
    files = [template / "train.json", template / "recipes" / "own_scans.json"]
    train = ConfigParser.load_config_files([str(path) for path in files])
    inference = read_config(template / "inference.json")
    for config in (train, inference):
        _name(config, planned)
    train["imports"] = [line for line in train["imports"] if "as own" not in line] + [_OWN]
    train["dataset_dir"] = str(planned.known.folder.absolute())
    train["from_weights"] = f"$@bundle_root + '/models/{settings['from_weights']}'"
    for name in ("ignore_code", "ignore_index", "fold", *_OF_LABEL_MAPS):
        train.pop(name)
    _replace(train, "labels", own)
    _insert(train, "split", {"fold": 0} | CACHE)
    for name in ("max_epochs", "val_interval"):
        train[name] = settings[name]
    train["record"]["channels"] = "@channels"
    train["train"]["step"]["graph"] = False
    for split in ("training", "validation"):
        part = train["train" if split == "training" else "validate"]
        part.pop("structures")
        part["dataset"]["data"] = f"$own.datalist(@dataset_dir, {split!r}, @fold)"
    train["validate"]["dataset"]["data"] = "$own.datalist(@dataset_dir, @split, @fold)"
    train["validate"].pop("sampling_transforms", None)
    for step in train["train"]["deterministic_transforms"]:
        if step["_target_"].endswith("EncodeLabelsd"):
            step["codes"] = "@codes"
    steps = train["train"]["sampling_transforms"]
    del steps[: next(n for n, step in enumerate(steps) if step["_target_"] == "RandFlipd")]  # padding and the crop
    _set_flip(steps, settings["flip"])
    _read_from_disk(train, "@train#deterministic_transforms", 1)
    train["train"]["preprocessing"]["transforms"] = "$[@crop] + @train#sampling_transforms"
    _replace(inference, "labels", {"channels": own["channels"], "labels": own["labels"]})
    return {"train": train, "inference": inference, "evaluate": _evaluation(template, False)}


def _name(config: Config, planned: Planned) -> None:
    config["_desc_"] = f"Planned for {planned.known.folder.name}. {NOTE} {custom.RESEARCH_USE_ONLY}"
    config["bundle_root"] = f"$custom.bundle_root({planned.name!r})"
    config["output_dir"] = f"runs/{planned.name}"
    if "resume" in config:
        config["resume"] = True
        config["record"]["bundle"] = planned.name
        config["record"] |= {"labels": "@labels", "channels": "@channels"}
        config["validate"]["handlers"].insert(0, {"_target_": "custom.handlers.ValidationLoss", "loss": "@loss"})


def _set_flip(steps: Sequence[Config], probability: float) -> None:
    for step in steps:
        if step["_target_"] == "RandFlipd":
            step["prob"] = probability


def _insert(config: Config, after: str, more: Mapping[str, Any]) -> None:
    """Puts keys after another one, so that the file still reads from top to bottom."""
    content = [(key, value) for key, value in config.items() if key not in more]
    config.clear()
    for key, value in content:
        config[key] = value
        if key == after:
            config.update(more)


def _replace(config: Config, name: str, more: Mapping[str, Any]) -> None:
    """Puts keys in the place of another one."""
    _insert(config, name, {key: value for key, value in more.items() if key != name})
    if name in more:
        config[name] = more[name]


def read_config(path: Path) -> Config:
    """The content of a JSON file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content
