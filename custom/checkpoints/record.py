"""The record beside weights: how, when and on which data they were trained.

Keys of a record that a training writes:

    sha256, date, dataset_dir, simulated    of the weights' file and its data (write_record)
    bundle, labels, channels                what the network takes and gives: {"0": "background", ...}, ["T1", ...]
    training, validation                    the subjects of both splits
    epoch, score                            of these weights: {"name": "dice_mean", "value": 0.91}
    versions, device                        of the software, and where it ran
    command, config_files, network, recipe, overrides, options
                                            how the run was started, and all options with their values; options that
                                            are expressions without a plain value stay text (custom.running.description)

A run by plain `python -m monai.bundle run` has no keys of the last group: MONAI does not tell handlers its config.
"""

from __future__ import annotations

import functools
import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import custom
from custom.files import NO_JSON, stamp_of, written_whole


def write_record(weights: str | Path, dataset_dir: str | Path, **more: Any) -> dict[str, Any]:
    """Writes weights' record, model.json for model.pt, and returns it.

    Args:
        weights: the file of weights, which exists.
        dataset_dir: the data that they were trained on.
        more: further keys, which may correct the others.

    Returns:
        sha256 of the weights' file, date (local, ISO 8601), dataset_dir (absolute), simulated (whether that is a sample
        of custom.samples, which leaves a sample.json), the keys of an earlier record of the same file, and `more`.
    """
    path, data = Path(weights), Path(dataset_dir).expanduser().absolute()
    record = (
        read_record(path)
        | {
            "sha256": sha256_of(path),
            "date": datetime.now().astimezone().isoformat(timespec="seconds"),
            "dataset_dir": str(data),
            "simulated": (data / "sample.json").is_file(),
        }
        | more
    )
    with written_whole(path.with_suffix(".json")) as partial:
        partial.write_text(json.dumps(record, indent=4) + "\n", encoding="utf-8")
    return record


def read_record(weights: str | Path) -> dict[str, Any]:
    """The record beside weights; {} if there is none, or if it is another file's."""
    path = Path(weights)
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, *NO_JSON):
        return {}
    return record if isinstance(record, dict) and record.get("sha256") == sha256_of(path) else {}


def versions() -> dict[str, str]:
    """The versions of this package, MONAI, PyTorch and Python."""
    return {
        "custom": custom.__version__,
        "monai": metadata.version("monai"),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def device_name(device: torch.device) -> str:
    """A device in words: "CPU, 2 threads", or the name of the GPU."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{device.type.upper()}, {torch.get_num_threads()} threads"


def subjects_of(data: Sequence[Mapping[str, Any]]) -> list[str]:
    """The subjects of a list for LoadImaged, each once; the name of its file where an item names no subject."""
    names = [str(item.get("subject") or Path(str(item.get("label", item.get("image")))).name) for item in data]
    return list(dict.fromkeys(names))


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    return _sha256(str(path), *stamp_of(Path(path)))


@functools.lru_cache(maxsize=64)  # a server asks again and again
def _sha256(path: str, _size: int, _time_ns: int, _changed_ns: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
