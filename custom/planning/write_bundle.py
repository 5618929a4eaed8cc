"""Writes a plan as a complete bundle: a shipped bundle's JSON with the decided values, channels and labels in place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import custom
from custom.datasets import freesurfer
from custom.errors import ConfigError
from custom.files import folder_written_whole, written_whole
from custom.planning.configs import Config, Planned, read_config, tissue_configs, tumor_configs
from custom.planning.decide import TISSUES, Plan
from custom.planning.measure import Fingerprint
from custom.running.bundles import described, find_bundles

_WIDTH = 118


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
    with folder_written_whole(target) as partial:
        configs = partial / "configs"
        shutil.copytree(
            template / "configs", configs, ignore=shutil.ignore_patterns("recipes", "__pycache__", "train_areas.json")
        )
        for folder in ("docs", "models"):
            (partial / folder).mkdir()
        shutil.copy(template / "LICENSE", partial)
        changed = tissue_configs if plan.template == TISSUES else tumor_configs
        for name, config in changed(template / "configs", planned).items():
            _write(configs / f"{name}.json", config)
        _write(configs / "metadata.json", _metadata(read_config(template / "configs/metadata.json"), planned))
        _write(configs / "options.json", _options(configs))
        (partial / "docs" / "README.md").write_text(_readme(planned), encoding="utf-8")
        (partial / "docs" / "data_license.txt").write_text(
            f"Trained on scans of {known.folder.name}. Their terms are those that you received them under.\n",
            encoding="utf-8",
        )
        if plan.template == TISSUES:
            shutil.copy(template / "models" / "model.pt", partial / "models" / "start.pt")
    return target


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
        "own_labels": {"planned": False, "codes_option": "codes", "channel_order_option": None},
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
    known = read_config(configs / "options.json")
    keys = {key for name in ("train", "evaluate", "inference") for key in read_config(configs / f"{name}.json")}
    more = {
        "spacing": {"meaning": "voxel size in mm that every scan is resampled to"},
        "channels": {"meaning": "names of the image's channels, in their order"},
        "labels": {"default": "from the folder", "meaning": "the labels' names by value"},
        "cache_dir": {"default": "output_dir/cache", "kind": "path", "meaning": "folder for preprocessed scans"},
        "scores_dir": {"default": "output_dir/evaluation", "kind": "path", "meaning": "folder for the scores"},
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
