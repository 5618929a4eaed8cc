"""Weights as other trainings save them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from custom.checkpoints.load import load_checkpoint, load_weights, plain_weights
from custom.checkpoints.start import start_from
from custom.errors import CheckpointError

Weights = dict[str, torch.Tensor]


def network(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.BatchNorm1d(2), torch.nn.Conv1d(2, 1, 1))


def behind(prefix: str) -> Callable[[Weights], dict[str, Any]]:
    return lambda weights: {f"{prefix}{name}": value for name, value in weights.items()}


def of_averaged_model(weights: Weights) -> dict[str, Any]:
    model = torch.optim.swa_utils.AveragedModel(network(5))
    model.module.load_state_dict(weights)
    return model.state_dict()


FORMS: dict[str, Callable[[Weights], dict[str, Any]]] = {
    "plain": dict,
    "DataParallel": behind("module."),
    "torch.compile": behind("_orig_mod."),
    "compiled, then distributed": behind("module._orig_mod."),
    "distributed, then compiled": behind("_orig_mod.module."),
    "state_dict": lambda weights: {"state_dict": weights, "epoch": 3},
    "model": lambda weights: {"model": weights, "optimizer": {"state": {}, "param_groups": []}, "epoch": 7},
    "PyTorch's tutorial": lambda weights: {"epoch": 2, "model_state_dict": weights, "loss": torch.tensor(0.5)},
    "nnU-Net": lambda weights: {"network_weights": weights, "current_epoch": 9, "trainer_name": "nnUNetTrainer"},
    "Lightning": lambda weights: {"state_dict": behind("net.")(weights), "global_step": 8},
    "Lightning, compiled": lambda weights: {"state_dict": behind("model._orig_mod.")(weights)},
    "Lightning, with a loss": lambda weights: {"state_dict": behind("net.")(weights) | {"loss.weight": torch.ones(2)}},
    "two classes deep": lambda weights: behind("task.module.net.")(weights) | {"task.counter": torch.zeros(1)},
    "DeepSpeed": lambda weights: {"module": weights, "global_steps": 4},
    "Composer": lambda weights: {"state": {"model": behind("module.")(weights)}, "rng": []},
    "double precision": lambda weights: {name: value.double() for name, value in weights.items()},
    "both at once": lambda weights: {"model": {"state_dict": behind("module.")(weights)}},
    "AveragedModel": of_averaged_model,
    "last.pt": lambda weights: {"network": weights, "trainer": {"epoch": 1}, "optimizer": {"state": {}}},
    "last.pt with an average": lambda weights: {"network": network(4).state_dict(), "average": weights, "trainer": {}},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_gives_the_same_weights(form: Callable[[Weights], dict[str, Any]], tmp_path: Path) -> None:
    expected = network(1).state_dict()
    torch.save(form(expected), tmp_path / "weights.pt")
    for load in (
        lambda other: load_weights(other, load_checkpoint(tmp_path / "weights.pt"), "weights.pt"),
        lambda other: start_from(other, str(tmp_path / "weights.pt"), ""),
    ):
        other = network(2)
        load(other)
        assert all(torch.equal(tensor, expected[name]) for name, tensor in other.state_dict().items())


def test_a_name_of_the_network_itself_stays() -> None:
    """MONAI's UNet names every tensor "model...."; that prefix is its own."""
    weights = {"model.0.weight": torch.zeros(1), "model.1.weight": torch.zeros(1)}
    assert plain_weights(weights, set(weights)) == weights
    assert set(plain_weights({"net.model.0.weight": torch.zeros(1)}, {"model.0.weight"})) == {"model.0.weight"}


def save_script(path: Path) -> None:
    torch.jit.script(network(1)).save(str(path))


def save_objects(path: Path) -> None:
    torch.save({"state_dict": network(1).state_dict(), "options": argparse.Namespace(lr=1)}, path)


def save_other(path: Path) -> None:
    torch.save({"state_dict": behind("module.")(torch.nn.Linear(2, 2).state_dict())}, path)


REFUSED = {
    "TorchScript": (save_script, r"w\.pt is a TorchScript program, not weights\. Use the model\.pt that it was"),
    "objects": (save_objects, r"w\.pt holds Python objects besides tensors, which are not loaded because they could"),
    "another network": (save_other, r"w\.pt holds another network's weights"),
    "two networks": (
        lambda path: torch.save(behind("a.")(network(1).state_dict()) | behind("b.")(network(2).state_dict()), path),
        r"w\.pt holds another network's weights",
    ),
    "no weights": (lambda path: torch.save({"epoch": 3}, path), r"w\.pt holds no weights, but only epoch\. Give"),
    "NaN": (
        lambda path: torch.save({name: value * torch.nan for name, value in network(1).state_dict().items()}, path),
        r"w\.pt holds NaN or infinite weights \(\S+ first\), as a training that diverged leaves them\. Use an earlier",
    ),
    "safetensors": (
        lambda path: path.write_bytes((20).to_bytes(8, "little") + b'{"a": {}}'.ljust(20) + bytes(8)),
        r"w\.pt is a safetensors file\. Save its tensors with torch\.save",
    ),
    "text": (lambda path: path.write_text("hello"), r"w\.pt can't be read .*\. It is cut short or no file of weights"),
}


@pytest.mark.parametrize(("save", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_loaded_is_explained(save: Callable[[Path], object], sentence: str, tmp_path: Path) -> None:
    save(tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=sentence):
        load_weights(network(2), load_checkpoint(tmp_path / "w.pt"), tmp_path / "w.pt")
