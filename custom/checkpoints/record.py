"""What is written beside weights: on what they were trained, and when."""

from __future__ import annotations

import functools
import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from custom.files import written_whole


def write_record(weights: str | Path, dataset_dir: str | Path, **more: Any) -> dict[str, Any]:
    """Writes weights' record, model.json for model.pt, and returns it.

    Its keys: sha256 of the weights' file, date (local, ISO 8601), dataset_dir (absolute), simulated (whether that is a
    sample of custom.samples, which leaves a sample.json), and `more`, which may correct these.
    """
    path, data = Path(weights), Path(dataset_dir).expanduser().absolute()
    record = {
        "sha256": sha256_of(path),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "dataset_dir": str(data),
        "simulated": (data / "sample.json").is_file(),
    } | more
    with written_whole(path.with_suffix(".json")) as partial:
        partial.write_text(json.dumps(record, indent=4) + "\n", encoding="utf-8")
    return record


def read_record(weights: str | Path) -> dict[str, Any]:
    """The record beside weights; {} where there is none, or it is another file's."""
    path = Path(weights)
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and record.get("sha256") == sha256_of(path) else {}


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    found = Path(path).stat()
    return _sha256(str(path), found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=64)  # a server asks again and again
def _sha256(path: str, size: int, time_ns: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
