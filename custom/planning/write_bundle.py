"""Writes a plan as a complete bundle: a shipped bundle's JSON with the decided values, channels and labels in place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

import custom
from custom.datasets import freesurfer
from custom.errors import ConfigError
from custom.files import written_whole
from custom.planning.decide import TISSUES, Plan
from custom.planning.measure import Fingerprint
from custom.running.bundles import described, find_bundles

Config = dict[str, Any]
_WIDTH = 118
# Options and sections of the tissue bundle that only its training on label maps uses.
_OF_LABEL_MAPS = ("freesurfer_dir", "scans_per_epoch", "validation_draws", "stripped", "graph")
_OWN = "$import custom.datasets.own_folder as own"
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


def write_bundle(known: Fingerprint, plan: Plan, target: Path) -> Path:
    """Writes the bundle of a plan to a new folder.

    Args:
        known: the folder's measures, whose channels and labels the bundle has.
        plan: the decisions.
        target: the bundle's folder, which does not exist.

    Returns:
        The folder.

    Raises:
        ConfigError: the folder exists: the user may have edited what it holds.
    """
    if target.exists():
        raise ConfigError(f"{target} exists already. Train with it, edit its JSON, or remove it to plan anew.")
    template = find_bundles()[plan.template]
    planned = Planned(target.name, known, plan)
    partial = target.with_name(f".partial-{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        configs = partial / "configs"
        shutil.copytree(template / "configs", configs, ignore=shutil.ignore_patterns("recipes", "__pycache__"))
        for folder in ("docs", "models"):
            (partial / folder).mkdir()
        shutil.copy(template / "LICENSE", partial)
        changed = _tissue_configs if plan.template == TISSUES else _tumor_configs
        for name, config in changed(template / "configs", planned).items():
            _write(configs / f"{name}.json", config)
        _write(configs / "metadata.json", _metadata(_read(template / "configs/metadata.json"), planned))
        _write(configs / "options.json", _options(configs))
        (partial / "docs" / "README.md").write_text(_readme(planned), encoding="utf-8")
        (partial / "docs" / "data_license.txt").write_text(
            f"Trained on scans of {known.folder.name}. Their terms are those that you received them under.\n"
        )
        if plan.template == TISSUES:
            shutil.copy(template / "models" / "model.pt", partial / "models" / "start.pt")
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _tumor_configs(template: Path, planned: Planned) -> dict[str, Config]:
    """train.json and inference.json of the tumor bundle, for other channels and labels, with one voxel size."""
    settings, own = planned.plan.settings, planned.own
    train, inference = _read(template / "train.json"), _read(template / "inference.json")
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
    return {"train": train, "inference": inference}


def _resample(keys: Any, mode: Any) -> Config:
    return {"_target_": "Spacingd", "keys": keys, "pixdim": "@spacing", "mode": mode}


def _tissue_configs(template: Path, planned: Planned) -> dict[str, Config]:
    """train.json with the recipe own_scans in it, and inference.json, of the tissue bundle."""
    settings, own = planned.plan.settings, planned.own
    files = [template / "train.json", template / "recipes" / "own_scans.json"]
    train = ConfigParser.load_config_files([str(path) for path in files])
    inference = _read(template / "inference.json")
    for config in (train, inference):
        _name(config, planned)
    train["imports"] = [line for line in train["imports"] if "as own" not in line] + [_OWN]
    train["dataset_dir"] = str(planned.known.folder.absolute())
    train["from_weights"] = f"$@bundle_root + '/models/{settings['from_weights']}'"
    for name in ("ignore_code", "ignore_index", "fold", *_OF_LABEL_MAPS):
        train.pop(name)
    _replace(train, "labels", own)
    _insert(train, "split", {"fold": 0})
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
    _set_flip(train["train"]["sampling_transforms"], settings["flip"])
    _replace(inference, "labels", {"channels": own["channels"], "labels": own["labels"]})
    return {"train": train, "inference": inference}


def _name(config: Config, planned: Planned) -> None:
    config["_desc_"] = f"Planned for {planned.known.folder.name}. {NOTE} {custom.RESEARCH_USE_ONLY}"
    config["bundle_root"] = f"$custom.bundle_root({planned.name!r})"
    config["output_dir"] = f"runs/{planned.name}"
    if "resume" in config:
        config["resume"] = True
        config["record"]["bundle"] = planned.name
        config["record"] |= {"labels": "@labels", "channels": "@channels"}


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


def _metadata(metadata: Config, planned: Planned) -> Config:
    known, plan = planned.known, planned.plan
    names = ", ".join(f"{code} {name}" for code, name in known.labels.items())
    channels = ", ".join(known.channels)
    of_start = {"weights_sha256", "eval_metrics"}
    metadata = {key: value for key, value in metadata.items() if key not in of_start} | {"eval_metrics": {}}
    metadata |= {
        "name": planned.name,
        "version": "0.1.0",
        "changelog": {"0.1.0": f"planned by brain-mri-bundles {custom.__version__}"},
        "task": f"Segmentation of {', '.join(name for code, name in known.labels.items() if code)} from {channels}",
        "description": f"Planned for the {len(known.subjects)} subjects of {known.folder.name}.",
        "authors": "The owners of the data set",
        "copyright": "Configs: Copyright 2026 Brain MRI Bundles contributors",
        "data_source": known.folder.name,
        "image_classes": f"{len(known.channels)} channels in this order: {channels}",
        "label_classes": f"codes in the files: {', '.join(map(str, known.codes))}; {names} after loading",
        "pred_classes": names,
        "intended_use": f"{custom.RESEARCH_USE_ONLY} Only for scans like those of {known.folder.name}.",
        "own_labels": {"recipe": None, "codes_option": "codes", "channel_order_option": None},
    }
    metadata["references"] = [
        "Isensee F. et al. nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation. "
        "Nature Methods 18, 203-211, 2021.",
        *(metadata["references"] if plan.template == TISSUES else []),
    ]
    record = {"channels": known.channels, "labels": {str(code): name for code, name in known.labels.items()}}
    formats = metadata["network_data_format"]
    metadata = described(metadata, record, _out_channels(planned))
    if network := plan.settings.get("network_def"):
        sizes = [f"{_stride(network, axis)}*n" for axis in range(3)]
        for place in (formats["inputs"]["image"], formats["outputs"]["pred"]):
            place["spatial_shape"] = sizes
    return metadata


def _out_channels(planned: Planned) -> int:
    labels = planned.known.labels
    return freesurfer.out_channels(labels) if planned.plan.template == TISSUES else len(labels)


def _stride(network: Mapping[str, Any], axis: int) -> int:
    total = 1
    for stride in network["strides"]:
        total *= stride[axis] if isinstance(stride, list) else stride
    return total


def _options(configs: Path) -> Config:
    """The meanings of the options that the planned configs have."""
    known = _read(configs / "options.json")
    keys = {key for name in ("train", "evaluate", "inference") for key in _read(configs / f"{name}.json")}
    more = {
        "spacing": {"meaning": "voxel size in mm that every scan is resampled to"},
        "channels": {"meaning": "names of the image's channels, in their order"},
        "labels": {"default": "from the folder", "meaning": "the labels' names by value"},
        "codes": {"meaning": "the labels' codes in the files, label 0's first"},
    }
    return {key: about for key, about in (more | known).items() if key in keys}


def _readme(planned: Planned) -> str:
    known, name = planned.known, planned.name
    rows = [f"| {one.name} | {one.value} | {one.reason} |" for one in planned.plan.decisions]
    shares = ", ".join(f"{label} {share:.3%}" for label, share in known.shares.items())
    lines = [
        f"# {name}",
        "",
        f"A bundle planned for the labelled scans of {known.folder.name}. **{custom.RESEARCH_USE_ONLY}**",
        "",
        f"- Subjects: {len(known.subjects)}, with {len(known.cases)} labelled scans.",
        f"- Channels: {', '.join(known.channels)}.",
        f"- Labels and their share of all voxels: {shares}.",
        "",
        "| decision | value | reason |",
        "|---|---|---|",
        *rows,
        "",
        "Every value is in `configs/train.json` and `configs/inference.json`, and may be changed there.",
        "",
        "```bash",
        "python -m monai.bundle run training --config_file configs/train.json",
        "python -m monai.bundle run evaluating --config_file \"['configs/train.json','configs/evaluate.json']\"",
        "python -m monai.bundle run --config_file configs/inference.json --dataset_dir DIR",
        "```",
        "",
    ]
    return "\n".join(lines)


def _read(path: Path) -> Config:
    content = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def _write(path: Path, config: Config) -> None:
    with written_whole(path) as partial:
        partial.write_text(as_json(config) + "\n", encoding="utf-8")


def as_json(value: Any, indent: int = 0) -> str:
    """JSON in which a list or object stands in one line where it fits."""
    short = json.dumps(value, ensure_ascii=False)
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not items or (indent and indent + len(short) <= _WIDTH):
        return short
    margin = " " * (indent + 4)
    lines = [
        margin + (f"{json.dumps(key)}: " if isinstance(value, dict) else "") + as_json(content, indent + 4)
        for key, content in items
    ]
    start, end = "{}" if isinstance(value, dict) else "[]"
    return f"{start}\n" + ",\n".join(lines) + f"\n{' ' * indent}{end}"
