"""What a network's output means: probabilities of classes, or a number in its unit; kept beside the weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from custom.errors import CheckpointError, ConfigError
from custom.files import NO_JSON, written_whole

FILE = "calibration.json"  # beside model.pt
Decode = Callable[[torch.Tensor], torch.Tensor]


def softmax(temperature: float = 1.0) -> Decode:
    """Logits (C,) to probabilities; a temperature above 1 makes them less certain, one below 1 more certain."""
    return lambda logits: torch.softmax(logits.double() / temperature, dim=0)  # half precision would underflow


def in_units(mean: float, std: float) -> Decode:
    """Standard deviations from the mean (1,) to the target's own unit."""
    return lambda output: output.double() * std + mean


def decoder(ckpt_path: str | Path, temperature: Any = None) -> Decode:
    """What turns the output of these weights into probabilities or numbers.

    Args:
        ckpt_path: a training's model.pt; without a calibration.json beside it (weights from elsewhere), softmax.
        temperature: another one than the file's; 1 for the network's own probabilities.

    Raises:
        ConfigError: a temperature that isn't a number above 0.
    """
    if temperature is not None and (not isinstance(temperature, (int, float)) or not temperature > 0):
        raise ConfigError(f"temperature must be a number above 0, got {temperature!r}.")
    kept = read(ckpt_path)
    if "std" in kept:
        return in_units(kept["mean"], kept["std"])
    return softmax(temperature or kept.get("temperature", 1.0))


def names(ckpt_path: str | Path, n: int, otherwise: Sequence[str] | None = None) -> dict[int, str]:
    """Names of a network's n outputs: the classes it was trained for, or the number's.

    Args:
        ckpt_path: a training's model.pt, with a calibration.json beside it or not.
        n: the network's outputs.
        otherwise: names to use if there is no such file.

    Raises:
        CheckpointError: another number of names; one output, and nothing that says what it means.
    """
    kept = read(ckpt_path).get("classes", otherwise or [f"class {code}" for code in range(n)])
    if n == 1 and "classes" not in read(ckpt_path):
        raise CheckpointError(
            f"{ckpt_path} has one output, but there is no {FILE} beside it with the unit. Train again."
        )
    if len(kept) != n:
        raise CheckpointError(
            f"{Path(ckpt_path).with_name(FILE)} names {len(kept)} outputs, but the network has {n}. "
            f"Set out_channels {len(kept)}."
        )
    return dict(enumerate(kept))


def check_outputs(classes: Mapping[int, str], out_channels: int, ckpt_path: str | Path | None = None) -> None:
    """Whether a network has an output for each class, and weights were trained for the same ones.

    Raises:
        ConfigError: another number of outputs.
        CheckpointError: the weights' classes have other names, or another order; or one output, and nothing beside the
            weights that says what it means.
    """
    if ckpt_path is not None and Path(ckpt_path).is_file():
        trained = list(names(ckpt_path, out_channels, list(classes.values())).values())
        if len(trained) == len(classes) and trained != list(classes.values()):
            raise CheckpointError(f"{ckpt_path} was trained for {trained}, not for {list(classes.values())}.")
    if len(classes) == 1 != out_channels:
        raise ConfigError(f"{classes[0]} is to be predicted as a number. Add the recipe regression.")
    if len(classes) != out_channels:
        raise ConfigError(
            f"The target has {len(classes)} classes ({', '.join(classes.values())}), but the network {out_channels} "
            f"outputs. Set out_channels {len(classes)}."
        )


def read(ckpt_path: str | Path) -> dict[str, Any]:
    """The content of the calibration.json beside weights, or {} if there is none."""
    path = Path(ckpt_path).with_name(FILE)
    if not path.is_file():
        return {}
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content
    except NO_JSON as error:
        raise CheckpointError(f"{path} can't be read ({error}). Train again, or delete it.") from error


def write(folder: str | Path, content: Mapping[str, Any]) -> None:
    """Writes a calibration.json whole."""
    with written_whole(Path(folder) / FILE) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")
