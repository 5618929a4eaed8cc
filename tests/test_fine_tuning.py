"""Starting from other weights, and keeping some of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from custom.checkpoints.start import freeze_encoder, start_from
from custom.errors import CheckpointError
from custom.networks import SubpixelUNet


def network(classes: int = 4, features: tuple[int, ...] = (4, 8, 8)) -> SubpixelUNet:
    return SubpixelUNet(1, classes, features, (1, 1, 1), (1, 1))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.save(network().state_dict(), tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_nothing_and_shipped(weights: Path, tmp_path: Path) -> None:
    one = network()
    before = {name: tensor.clone() for name, tensor in one.state_dict().items()}
    for nothing in (None, "None"):  # as a Python caller and the command line give it
        start_from(one, nothing, str(tmp_path))
    assert all(torch.equal(before[name], tensor) for name, tensor in one.state_dict().items())
    (tmp_path / "models").mkdir()
    weights.rename(tmp_path / "models/model.pt")
    start_from(one, "shipped", str(tmp_path))
    shipped = torch.load(tmp_path / "models/model.pt", weights_only=True)
    assert all(torch.equal(shipped[name], tensor) for name, tensor in one.state_dict().items())


def test_other_labels_keep_all_but_the_output_layer(weights: Path) -> None:
    one, shipped = network(classes=7), torch.load(weights, weights_only=True)
    start_from(one, str(weights), "")
    differing = [name for name, tensor in one.state_dict().items() if not torch.equal(tensor, shipped[name])]
    assert differing == ["head.weight", "head.bias"]


def test_another_network(weights: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.pt holds another network's weights \(\d+ of \d+ tensors don't"):
        start_from(network(features=(8, 8, 8)), str(weights), "")
    with pytest.raises(CheckpointError, match=r"There are no weights at .*models/model\.pt\. Train first"):
        start_from(network(), "shipped", "nowhere")


def test_a_frozen_encoder_stays_and_the_decoder_learns() -> None:
    one = network()
    freeze_encoder(one)
    before = {name: parameter.detach().clone() for name, parameter in one.named_parameters()}
    optimizer = torch.optim.AdamW(one.parameters(), lr=0.1, weight_decay=0.1)
    one(torch.randn(1, 1, 32, 32, 32)).square().mean().backward()
    optimizer.step()
    changed = {name for name, parameter in one.named_parameters() if not torch.equal(parameter, before[name])}
    assert {name.split(".")[0] for name in changed} == {"up", "decoder", "last_norm", "last", "head"}
