"""Files of weights and checkpoints, read without running code from them."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from custom.errors import CheckpointError

# Where trainings keep weights among other things, the most useful first: a moving average, then the network itself.
CONTAINERS = (
    "average", "network", "state_dict", "model_state_dict", "network_weights", "model", "module", "net", "weights",
    "ema", "state",
)  # fmt: skip
WRAPPERS = ("module.", "_orig_mod.")  # DataParallel and DistributedDataParallel; torch.compile


def load_checkpoint(path: str | Path, device: Any = "cpu") -> dict[str, Any]:
    """Reads a file that torch.save wrote, without running code from it (weights_only).

    Raises:
        CheckpointError: the file is missing, damaged, TorchScript, or holds other objects than tensors and numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"There are no weights at {path}. Train first, or give the file by --ckpt_path or the training's folder by "
            "--output_dir."
        )
    if _is_torchscript(path):
        raise CheckpointError(f"{path} is a TorchScript program, not weights. Use the model.pt that it was made from.")
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        if not isinstance(content, dict):
            raise TypeError(f"it holds a {type(content).__name__}")
        return content
    except Exception as error:
        raise CheckpointError(_unreadable(path, error)) from error


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(Path(name).name == "constants.pkl" for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):  # torch.load says why
        return False


def _unreadable(path: Path, error: Exception) -> str:
    """Why a file gave no weights, in a sentence."""
    unpickled = isinstance(error, pickle.UnpicklingError) and "weights_only" in str(error).lower()
    if unpickled and zipfile.is_zipfile(path):
        return (
            f"{path} holds Python objects besides tensors, which are not loaded because they could run code. "
            "Save its weights alone, with torch.save(network.state_dict(), FILE)."
        )
    with path.open("rb") as file:
        start = file.read(10)
    if len(start) == 10 and start[8:9] == b"{":
        return (
            f"{path} is a safetensors file. Save its tensors with torch.save(safetensors.torch.load_file(FILE), ...)."
        )
    return f"{path} can't be read ({type(error).__name__}). It is cut short or no file of weights. Copy it again."


def plain_weights(content: Mapping[str, Any], names: Collection[str] = ()) -> dict[str, Any]:
    """The weights in a checkpoint of any usual form, under the network's own names.

    Taken off are containers ({"state_dict": ...}, {"model": ...}, this project's last.pt, ...), the prefixes "module."
    and "_orig_mod.", and the counter of torch.optim.swa_utils.AveragedModel. Plain weights are returned as they are.

    Args:
        content: what `load_checkpoint` reads.
        names: of the network's tensors; with them, a prefix of the training's own class ("net." of a Lightning module)
            is taken off too, where no name fits with it, and what else that class holds is left out.
    """
    weights = dict(content)
    while inner := next((weights[key] for key in CONTAINERS if _holds_weights(weights.get(key))), None):
        weights = dict(inner)
    if "n_averaged" in weights and "n_averaged" not in names:
        del weights["n_averaged"]
    while prefix := next((text for text in WRAPPERS if _all_start_with(weights, text)), None):
        weights = _without(weights, prefix)
    if names and not set(weights) & set(names):
        return _behind_a_prefix(weights, names)
    return weights


def _behind_a_prefix(weights: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """The tensors that bear all of the names behind one prefix; other ones, as of a loss, are left out.

    Where there is no such prefix, or more than one, the weights are returned as they are.
    """
    first = next(iter(names))
    prefixes = {name.removesuffix(first) for name in weights if name.endswith(f".{first}")}
    fitting = [prefix for prefix in prefixes if all(f"{prefix}{name}" in weights for name in names)]
    if len(fitting) != 1:
        return weights
    return {name: weights[f"{fitting[0]}{name}"] for name in names}


def _holds_weights(value: Any) -> bool:
    """Whether a value is a dictionary of tensors, or holds one under a known name."""
    if not isinstance(value, Mapping) or not value or not all(isinstance(key, str) for key in value):
        return False
    if any(isinstance(item, torch.Tensor) for item in value.values()):
        return True
    return any(_holds_weights(value.get(key)) for key in CONTAINERS)


def _all_start_with(weights: Mapping[str, Any], prefix: str) -> bool:
    return bool(weights) and all(name.startswith(prefix) for name in weights)


def _without(weights: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in weights.items()}


def _of_another(path: str | Path, difference: str) -> str:
    return (
        f"{path} holds another network's weights ({difference}). Set the network that they were trained with "
        "(--network), or give other weights."
    )


def load_weights(network: torch.nn.Module, weights: Mapping[str, Any], path: str | Path) -> None:
    """Puts weights into a network of the same architecture.

    Args:
        network: the network.
        weights: a state_dict, or a checkpoint that `plain_weights` can take apart.
        path: where they come from, for the error message.

    Raises:
        CheckpointError: names or shapes differ, or values are not finite.
    """
    own = network.state_dict()
    weights = plain_weights(weights, own)
    if not any(isinstance(value, torch.Tensor) for value in weights.values()):
        raise CheckpointError(
            f"{path} holds no weights, but only {', '.join(map(str, weights)) or 'nothing'}. Give a file of weights."
        )
    unfit = [name for name in own if name not in weights or _shape(weights[name]) != own[name].shape]
    unknown = [name for name in weights if name not in own]
    if unfit:
        raise CheckpointError(_of_another(path, f"{len(unfit)} of {len(own)} tensors don't fit, {unfit[0]} first"))
    if unknown:
        raise CheckpointError(_of_another(path, f"this network has no tensor {unknown[0]}"))
    if invalid := [name for name in own if not torch.isfinite(weights[name]).all()]:
        raise CheckpointError(
            f"{path} holds NaN or infinite weights ({invalid[0]} first), as a training that diverged leaves them. "
            "Use an earlier checkpoint, or train with a lower learning_rate."
        )
    network.load_state_dict(weights)


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None
