"""The configs of a planned bundle: those of a shipped bundle, with what was decided in place."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

import custom
from custom.datasets import freesurfer
from custom.planning.decide import TISSUES, Decision, Plan, flips
from custom.planning.measure import Fingerprint

Config = dict[str, Any]
# Options and sections of the tissue bundle that only its training on label maps uses.
_OF_LABEL_MAPS = ("freesurfer_dir", "scans_per_epoch", "validation_draws", "stripped", "graph")
_OWN = "$import custom.datasets.own_folder as own"
CACHE = {"cache_dir": "$@output_dir + '/cache'"}
FINE_TUNING = Path(__file__).with_name("fine_tuning.json")
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
    evaluate = _evaluation(template)
    for name in ("patches", "validate#preprocessing#transforms"):
        del evaluate[name]
    return {"train": train, "inference": inference, "evaluate": evaluate}


def _read_from_disk(train: Config, steps: str, number: Any) -> None:
    """Replaces the copies in memory, and the crop from whole scans, by `number` windows from memory maps."""
    kept = {"cache_dir": "@cache_dir", "ignore_index": "@ignore_index"}
    crop = {
        "_target_": "custom.transforms.CropFromDiskd",
        "transforms": steps,
        **kept,
        "spatial_size": "@roi_size",
        "num_samples": number,
        "pos": 3,
        "neg": 1,
    }
    _insert(train, "record", {"crop": crop})
    whole = {"_target_": "custom.transforms.FromDiskd", "transforms": "@train#deterministic_transforms", **kept}
    train["validate"]["preprocessing"]["transforms"] = [whole]
    for part in ("train", "validate"):
        dataset = train[part]["dataset"]
        train[part]["dataset"] = {"_target_": "Dataset", "data": dataset["data"], "transform": dataset["transform"]}


def _evaluation(template: Path) -> Config:
    """evaluate.json with a folder for the scores, and with trials of a post-processing."""
    config = read_config(template / "evaluate.json")
    _insert(config, "ckpt_path", {"scores_dir": "$@output_dir + '/evaluation'"})
    handlers = config["validate#handlers"]
    for handler in handlers:
        if handler["_target_"].endswith("SegmentationScores"):
            handler["output_dir"] = "@scores_dir"
            labels = handler["labels"]
    handlers.append({"_target_": "custom.handlers.PostprocessingTrials", "output_dir": "@scores_dir", "labels": labels})
    return config


def _resample(keys: Any, mode: Any) -> Config:
    return {"_target_": "Spacingd", "keys": keys, "pixdim": "@spacing", "mode": mode}


def tissue_configs(template: Path, planned: Planned) -> dict[str, Config]:
    """fine_tuning_config as train.json, and inference.json and evaluate.json of the tissue bundle for other labels."""
    own = planned.own
    inference = read_config(template / "inference.json")
    _name(inference, planned)
    _replace(inference, "labels", {"channels": own["channels"], "labels": own["labels"]})
    train = fine_tuning_config(template, planned)
    return {"train": train, "inference": inference, "evaluate": _evaluation(template)}


def fine_tuning_config(template: Path, planned: Planned) -> Config:
    """The tissue bundle's train.json, with FINE_TUNING in the place of its training on label maps."""
    settings = planned.plan.settings
    train = ConfigParser.load_config_files([str(template / "train.json"), str(FINE_TUNING)])
    _name(train, planned)
    train["dataset_dir"] = str(planned.known.folder.absolute())
    train["from_weights"] = settings["from_weights"]
    for name in ("ignore_index", *_OF_LABEL_MAPS):
        train.pop(name)
    _replace(train, "labels", planned.own)
    _insert(train, "split", {"fold": 0} | CACHE)
    for name in ("max_epochs", "val_interval"):
        train[name] = settings[name]
    for part in ("train", "validate"):
        del train[part]["structures"]
    del train["validate"]["sampling_transforms"]
    _set_flip(train["train"]["sampling_transforms"], settings["flip"])
    _read_from_disk(train, "@train#deterministic_transforms", 1)
    return train


def config_for_saved_labels(template: Path, name: str, labels: Mapping[int, str]) -> Config:
    """fine_tuning_config for label maps that viewers saved, whose start weights and length the caller sets.

    Args:
        template: configs/ of the tissue bundle.
        name: of the bundle that is trained.
        labels: {0: "background", 1: ...}, the meaning of the codes in the label maps.
    """
    known = Fingerprint(Path(name), freesurfer.CHANNELS, dict(labels), tuple(labels), None, ())
    length = {"from_weights": None, "max_epochs": 20, "val_interval": 4}
    plan = Plan(TISSUES, (Decision("length", "20 epochs", "unless the caller sets it", length), flips(known)))
    return fine_tuning_config(template, Planned(name, known, plan)) | {"resume": False}


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
