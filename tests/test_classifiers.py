"""The classifiers of 2D images: sizes, parameters, gradients, exports, and attention rollout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import ViT as MonaiViT
from torch import nn

from custom import networks
from custom.errors import ConfigError
from custom.networks.cost import count_parameters
from custom.reports.attention_rollout import attention_rollout, attentions_of, rollout

NAMES = ("CustomCNN", "AlexNet", "VGG16", "ViT")
CONVOLUTIONAL = NAMES[:3]
each = pytest.mark.parametrize("name", NAMES)


def build(name: str, in_channels: int = 3, out_channels: int = 4, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return getattr(networks, name)(in_channels, out_channels, **settings)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "channels", "parameters"),
    [
        ("CustomCNN", (3, 4), 3_001_156),
        ("AlexNet", (3, 4), 4_589_316),
        ("VGG16", (3, 4), 65_070_916),
        ("ViT", (3, 4), 21_459_460),
        ("CustomCNN", (1, 3), 3_001_156 - 2 * 96 * 81 - 129),  # two channels of 96 kernels of 9x9, one class less
        ("AlexNet", (1, 3), 4_589_316 - 2 * 96 * 81 - 129),
        ("VGG16", (1, 3), 65_070_916 - 2 * 64 * 9 - 4097),
        ("ViT", (1, 3), 21_459_460 - 2 * 512 * 256 - 513),
    ],
)
def test_parameters(name: str, channels: tuple[int, int], parameters: int) -> None:
    with torch.device("meta"):
        assert count_parameters(build(name, *channels)) == parameters


@pytest.mark.parametrize(
    ("name", "size", "features"),
    [
        ("CustomCNN", 128, (256, 2, 2)),  # 128, 30, 15, 11, 5, 5, 2
        ("AlexNet", 128, (256, 2, 2)),
        ("VGG16", 128, (512, 4, 4)),
        ("CustomCNN", 256, (256, 6, 6)),  # 256, 62, 31, 27, 13, 13, 6
        ("AlexNet", 69, (256, 1, 1)),  # 69, 16, 8, 4, 2, 2, 1
        ("VGG16", 224, (512, 7, 7)),
        ("VGG16", 32, (512, 1, 1)),
    ],
)
def test_sizes(name: str, size: int, features: tuple[int, ...]) -> None:
    with torch.device("meta"):
        network = build(name).eval()
        image = torch.empty(2, 3, size, size)
        assert network.features(image).shape[1:] == features
        assert network(image).shape == (2, 4)


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_pooling_changes_nothing_at_128(name: str) -> None:
    network = build(name).eval()
    with torch.no_grad():
        expected = network(noise(2, 3, 128, 128))
        network.pool = nn.Identity()
        assert torch.equal(network(noise(2, 3, 128, 128)), expected)


@each
def test_gradient_reaches_every_parameter(name: str) -> None:
    network = build(name).eval()  # in training, batch norm takes away the bias before it
    network(noise(2, 3, 128, 128)).square().mean().backward()
    parameters = dict(network.named_parameters())
    assert parameters
    for parameter_name, parameter in parameters.items():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@each
def test_exports_give_the_same(name: str, tmp_path: Path) -> None:
    """TorchScript for other sizes too, where the network takes them; ONNX for one window."""
    onnxruntime = pytest.importorskip("onnxruntime")
    network, image = build(name).eval(), noise(1, 3, 128, 128)
    scripted = torch.jit.script(network)
    with torch.no_grad():
        expected = network(image)
        torch.testing.assert_close(scripted(image), expected)
        torch.testing.assert_close(torch.jit.trace(network, image)(image), expected)
        if name in CONVOLUTIONAL:
            wide = noise(2, 3, 140, 190)
            torch.testing.assert_close(scripted(wide), network(wide))
    torch.onnx.export(network, (image,), tmp_path / "model.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=1e-4)


def test_vit_is_as_it_should_be() -> None:
    """Pre-norm with GELU, a norm after the encoder and one in the head, no dropout of logits, small positions."""
    network = build("ViT")
    assert all(layer.norm_first and layer.activation is nn.functional.gelu for layer in network.layers)
    assert network.positions.shape == (1, 65, 512)
    assert float(network.positions.detach().std()) == pytest.approx(0.02, rel=0.05)
    inputs: dict[str, torch.Tensor] = {}
    for place in ("norm", "head"):
        network.get_submodule(place).register_forward_hook(
            lambda _, args, result, place=place: inputs.update({place: args[0], f"{place} gives": result})
        )
    with torch.no_grad():
        network.head[2].weight.zero_()
        network.head[2].bias.fill_(1)
        assert torch.equal(network.train()(noise(8, 3, 128, 128)), torch.ones(8, 4))  # dropout would make zeros of some
    assert inputs["norm"].shape == (8, 65, 512)
    assert torch.equal(inputs["head"], inputs["norm gives"][:, 0])
    assert isinstance(network.head[0], nn.LayerNorm)


def test_vit_flattens_row_by_row() -> None:
    """Patch (row 1, column 2) of 2x3 is token 1 + 5."""
    network = build("ViT", img_size=(32, 48), num_layers=1, dropout=0.0).eval()
    seen: list[torch.Tensor] = []
    network.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    image = torch.zeros(1, 3, 32, 48)
    network(image)
    image[..., 16:, 32:] = 1
    network(image)
    assert (seen[1] != seen[0]).any(dim=-1)[0].nonzero().flatten().tolist() == [6]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"img_size": 100}, r"multiples of patch_size 16, got \[100, 100\]"),
        ({"img_size": (128, 0)}, r"multiples of patch_size 16, got \[128, 0\]"),
        ({"num_heads": 7}, r"multiple of num_heads 7, got 512"),
    ],
)
def test_vit_says_what_it_takes(settings: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build("ViT", **settings)


def test_rollout_by_hand() -> None:
    """Means of the heads (0.5 0.5; 0 1) and (0 1; 1 0); with the identity (0.75 0.25; 0 1) and (0.5 0.5; 0.5 0.5)."""
    first = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
    second = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    torch.testing.assert_close(rollout([first, second]), torch.tensor([[0.375, 0.625], [0.375, 0.625]]))
    torch.testing.assert_close(rollout([second, first]), torch.tensor([[0.5, 0.5], [0.5, 0.5]]))
    assert torch.equal(rollout([first]), torch.tensor([[0.75, 0.25], [0.0, 1.0]]))


@pytest.mark.parametrize("shapes", [[], [(2, 2)], [(1, 2, 3)]])
def test_rollout_says_what_it_takes(shapes: list[tuple]) -> None:
    with pytest.raises(ValueError, match=r"\(heads, N, N\) of each layer, got"):
        rollout([torch.ones(shape) for shape in shapes])


def monai_vit(**settings: Any) -> nn.Module:
    torch.manual_seed(0)
    size = {"img_size": (32, 48), "patch_size": (16, 16), "hidden_size": 24, "mlp_dim": 48, "num_heads": 4}
    known = size | {"num_layers": 3, "num_classes": 4, "classification": True, "spatial_dims": 2}
    return MonaiViT(3, **known | settings)


def small_vit() -> nn.Module:
    return build("ViT", img_size=(32, 48), hidden_size=24, mlp_dim=48, num_heads=4, num_layers=3)


def test_attention_of_ours_is_what_the_layer_computes() -> None:
    """Softmax of queries and keys, written out from the first layer's weights."""
    network, image = small_vit(), noise(1, 3, 32, 48)
    found = attentions_of(network.train(), image)
    assert network.training
    assert [tuple(one.shape) for one in found] == [(4, 7, 7)] * 3
    layer = network.eval().layers[0]
    with torch.no_grad():
        tokens = network.patches(image).flatten(2).transpose(1, 2)
        tokens = layer.norm1(torch.cat([network.class_token, tokens], dim=1) + network.positions)[0]
        projected = tokens @ layer.self_attn.in_proj_weight.T + layer.self_attn.in_proj_bias
    queries, keys = (projected[:, part * 24 : part * 24 + 24].reshape(7, 4, 6).transpose(0, 1) for part in (0, 1))
    torch.testing.assert_close(found[0], (queries @ keys.transpose(1, 2) / 6**0.5).softmax(dim=-1))


def test_attention_of_monais_is_what_it_saves() -> None:
    network, saving, image = monai_vit(), monai_vit(save_attn=True).eval(), noise(1, 3, 32, 48)
    found = attentions_of(network, image)
    saving(image)
    assert all(torch.equal(one, block.attn.att_mat[0]) for one, block in zip(found, saving.blocks, strict=True))
    assert not any(block.attn.save_attn or block.attn.att_mat.numel() for block in network.blocks)


@pytest.mark.parametrize("make", [small_vit, monai_vit])
def test_rollout_lies_on_the_image(make: Any) -> None:
    found = attention_rollout(make(), noise(1, 3, 32, 48))
    assert found.shape == (32, 48)
    assert float(found.min()) == pytest.approx(0)
    assert float(found.max()) == pytest.approx(1)


def test_rollout_finds_what_the_class_token_looks_at() -> None:
    """One layer made to attend to bright patches, one of which is the last of 2x3."""
    network = build("ViT", img_size=(32, 48), hidden_size=8, num_heads=1, num_layers=1)
    layer = network.layers[0]
    with torch.no_grad():
        for parameter in (*network.patches.parameters(), network.class_token, network.positions):
            parameter.zero_()
        network.patches.weight[0] = 1  # a token's first value is the sum of its patch
        layer.self_attn.in_proj_weight.zero_()
        layer.self_attn.in_proj_weight[8, 0] = 1  # the key's first value
        layer.self_attn.in_proj_bias[0] = 5  # every query asks for it
    image = torch.zeros(1, 3, 32, 48)
    image[..., 16:, 32:] = 1
    found = attention_rollout(network, image)
    assert float(found[24:, 40:].min()) == pytest.approx(1)
    assert float(found[:, :24].max()) == pytest.approx(0, abs=1e-6)
    assert float(found[:8].max()) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("network", "shape", "sentence"),
    [
        (nn.Conv2d(3, 4, 3), (1, 3, 32, 48), r"Conv2d has no attention layers: attention rollout is for a ViT"),
        (nn.Identity(), (2, 3, 32, 48), r"one image \(1, C, \*spatial\), got the shape \(2, 3, 32, 48\)"),
        ("no class token", (1, 3, 32, 48), r"ViT has 6 tokens, .* of 32x48 pixels: build it with classification=True"),
    ],
)
def test_rollout_of_what_has_none(network: Any, shape: tuple, sentence: str) -> None:
    if network == "no class token":
        network = monai_vit(classification=False)
    with pytest.raises(ValueError, match=sentence):
        attention_rollout(network, torch.zeros(shape))
