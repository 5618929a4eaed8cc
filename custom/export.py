"""TorchScript by MONAI's own call, with every path explicit (its defaults are the current directory)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from custom.errors import CheckpointError
from custom.files import written_whole


def export_torchscript(
    files: list[str], folder: Path, announce: Callable[[str, dict[str, Any]], None], **overrides: Any
) -> Path:
    """Writes folder/model.ts from folder/model.pt.

    Args:
        files: inference.json and mixins; the first one's folder has metadata.json.
        folder: a run's output_dir.
        announce: is told the name and the arguments of the MONAI call.
        overrides: settings that the network depends on.

    Raises:
        CheckpointError: there is no model.pt.
    """
    from monai.bundle import ckpt_export

    weights, target = folder / "model.pt", folder / "model.ts"
    if not weights.is_file():
        raise CheckpointError(f"There are no weights at {weights}: train first, or name the run's output_dir.")
    call: dict[str, Any] = {
        "net_id": "network_def",
        "config_file": files,
        "meta_file": str(Path(files[0]).with_name("metadata.json")),
        "ckpt_file": str(weights),
        "filepath": str(target),
        **overrides,
    }
    announce("ckpt_export", call)
    with written_whole(target) as partial:
        ckpt_export(**(call | {"filepath": str(partial)}))
    return target
