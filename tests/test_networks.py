"""The 3D networks, in one table: sizes, parameters, gradients, TorchScript, and that each one learns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet, VNet
from monai.transforms import Compose, EnsureChannelFirstd, NormalizeIntensityd

from custom import networks
from custom.commands.networks import network_table
from custom.datasets import iseg
from custom.errors import ConfigError
from custom.inferers.foreground import network_stride
from custom.inferers.probe import convolutions
from custom.losses import WithAuxiliary
from custom.metrics import dice_by_name
from custom.networks import check_window
from custom.networks.cost import count_parameters, gflops
from custom.running.bundles import find_bundles
from custom.transforms import EncodeLabelsd, LoadVolumesd

THIN = {"features": [12] * 4}  # of those that keep full resolution, where the whole network would take minutes
NETWORKS: dict[str, dict[str, Any]] = {
    "UNet3D": {},
    "VNetLight": {},
    "SinglePathDenseNet": THIN,
    "DualPathDenseNet": THIN,
    "DualSingleDenseNet": THIN,
    "SkipDenseNet3D": {},
    "DenseVoxelNet": {},
    "HyperDenseNet": THIN,
    "HighResNet": {},
    "SegResNetVAE": {"input_image_size": (32, 32, 32), "init_filters": 16, "dropout_prob": 0.2},
}
ANY_SIZE = [name for name in NETWORKS if name != "SegResNetVAE"]
each = pytest.mark.parametrize("name", NETWORKS)


def build(name: str, in_channels: int = 2, out_channels: int = 4, **settings: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    return getattr(networks, name)(in_channels, out_channels, **settings)


def outputs(network: torch.nn.Module, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
    found = network(image)
    return found if isinstance(found, tuple) else (found,)


@pytest.mark.parametrize(
    ("name", "channels", "parameters"),
    [
        ("UNet3D", (3, 3), 19_072_291),
        ("UNet3D", (2, 4), 19_071_492),
        ("UNet3D", (4, 3), 19_073_155),
        ("VNetLight", (2, 4), 12_249_988),
        ("VNetLight", (1, 4), 12_247_988),
        ("VNetLight", (4, 3), 12_249_976),
        ("SinglePathDenseNet", (2, 4), 2_697_811),
        ("SinglePathDenseNet", (4, 3), 2_722_797),
        ("DualPathDenseNet", (2, 4), 4_774_582),
        ("DualSingleDenseNet", (2, 4), 2_995_086),
        ("DualSingleDenseNet", (3, 4), 3_304_929),
        ("SkipDenseNet3D", (2, 4), 1_552_256),
        ("SkipDenseNet3D", (1, 4), 1_551_392),
        ("SkipDenseNet3D", (4, 4), 1_553_984),
        ("SkipDenseNet3D", (2, 2), 1_552_126),
        ("DenseVoxelNet", (2, 4), 1_784_128),
        ("HyperDenseNet", (2, 4), 10_361_922),
        ("HyperDenseNet", (3, 4), 23_173_431),
    ],
)
def test_parameters(name: str, channels: tuple[int, int], parameters: int) -> None:
    """As counted from the articles' layers."""
    with torch.device("meta"):
        assert count_parameters(build(name, *channels)) == parameters


def test_parameters_of_monais() -> None:
    with torch.device("meta"):
        assert count_parameters(build("HighResNet", bias=True)) == 810_308  # MONAI's has 8 in a last batch norm
        assert count_parameters(VNet(3, 2, 4, act="prelu", bias=True)) == 45_613_092
        wide = BasicUNet(2, 2, 4, (64, 128, 256, 512, 512, 64), act="relu", norm="batch", upsample="nontrainable")
        assert count_parameters(wide) == 17_969_412


@pytest.mark.parametrize("channels", [(1, 2), (3, 3), (5, 7)])
@each
def test_any_number_of_channels_and_classes(name: str, channels: tuple[int, int]) -> None:
    with torch.device("meta"):
        network = build(name, *channels, **NETWORKS[name]).eval()
        assert network(torch.empty(2, channels[0], 32, 32, 32)).shape == (2, channels[1], 32, 32, 32)


def test_vnet_light_says_what_it_takes() -> None:
    with pytest.raises(ConfigError, match=r"in_channels must be 1 to 16, got 17"):
        build("VNetLight", 17)


LIGHT = ["VNetLight", "SkipDenseNet3D", "DenseVoxelNet", "SegResNetVAE"]  # the others: scripts/benchmarks/networks.py
ODD_SIZE = {name: (11, 9, 13) if NETWORKS[name] is THIN else (21, 34, 19) for name in ANY_SIZE}


@pytest.mark.parametrize(("name", "size"), [*((name, (64, 64, 64)) for name in LIGHT), *ODD_SIZE.items()])
def test_gradient_reaches_every_parameter(name: str, size: tuple[int, ...]) -> None:
    """Forward and backward at full width, with all of a network's outputs in training."""
    settings = {} if NETWORKS[name] is THIN else NETWORKS[name]
    network = build(name, **settings | ({"input_image_size": size} if name == "SegResNetVAE" else {})).train()
    image = torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(1))
    found = outputs(network, image)
    assert found[0].shape == (1, 4, *size)
    sum(one.square().mean() for one in found).backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@each
def test_scripted_network_gives_the_same(name: str) -> None:
    network = build(name, **NETWORKS[name]).eval()
    size = (32, 32, 32) if name == "SegResNetVAE" else (17, 32, 23)
    image = torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(1))
    scripted = torch.jit.script(network)
    with torch.no_grad():
        torch.testing.assert_close(scripted(image), network(image))
        assert isinstance(scripted.train()(image), torch.Tensor)  # a second output is for this project's training only


@pytest.mark.parametrize("name", ["DenseVoxelNet", "SegResNetVAE"])
def test_second_output_in_training_only(name: str) -> None:
    network = build(name, **NETWORKS[name])
    image = torch.randn(1, 2, 32, 32, 32)
    logits, second = network.train()(image)
    assert logits.shape == (1, 4, 32, 32, 32)
    assert second.shape == (() if name == "SegResNetVAE" else logits.shape)
    assert network.eval()(image).shape == logits.shape


def test_autoencoder_penalty_is_weighted() -> None:
    """By a tenth, as it comes; the size is checked when the network is built."""
    full, tenth = (build("SegResNetVAE", input_image_size=(32, 32, 32), weight=weight).train() for weight in (1.0, 0.1))
    image = torch.randn(1, 2, 32, 32, 32)
    costs = []
    for network in (full, tenth):
        torch.manual_seed(1)
        costs.append(float(network(image)[1].detach()))
    assert costs[1] == pytest.approx(0.1 * costs[0])
    with pytest.raises(ConfigError, match=r"multiples of 16, got \[32, 40, 32\]"):
        build("SegResNetVAE", input_image_size=(32, 40, 32))


def test_highresnet_gives_logits() -> None:
    image = torch.randn(1, 2, 16, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert float(build("HighResNet").eval()(image).min()) < 0


@pytest.mark.parametrize(
    ("name", "ways"),
    [("DualPathDenseNet", "paths"), ("DualSingleDenseNet", "stems"), ("HyperDenseNet", "layers.0.paths")],
)
def test_each_modality_has_its_own_way(name: str, ways: str) -> None:
    """The first path or stem gets the first modality, the second one the second, and no weights are shared."""
    image = torch.randn(1, 2, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    network = build(name, **THIN).eval()
    met: list[torch.Tensor] = []
    first, second = network.get_submodule(ways)
    for way in (first, second):
        way.register_forward_pre_hook(lambda _, args: met.append(args[0]))
    network(image)
    assert len(met) == 2
    assert all(torch.equal(found, image[:, [modality]]) for modality, found in enumerate(met))
    assert not {id(one) for one in first.parameters()} & {id(one) for one in second.parameters()}


def test_dropout_runs_once() -> None:
    """Half of a dense layer's new values stay with a rate of one half, not a quarter."""
    block = networks.dense.DenseBlock(4, [16], dropout=0.5).train()
    new = block(torch.randn(1, 4, 16, 16, 16, generator=torch.Generator().manual_seed(1)))[:, 4:]
    assert float((new != 0).double().mean()) == pytest.approx(0.5, abs=0.02)


@pytest.fixture(scope="module")
def crop(iseg_dir: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """32x16x16 voxels of the sample's first subject, with all four labels."""
    steps: list[Callable] = [
        LoadVolumesd(["image", "label"]),
        EnsureChannelFirstd(["image", "label"]),
        EncodeLabelsd("label", iseg.CODES),
        NormalizeIntensityd("image", nonzero=True, channel_wise=True),
    ]
    item = Compose(steps)(iseg.datalist(iseg_dir, "test")[0])
    box = (..., slice(8, 40), slice(20, 36), slice(16, 32))
    image, label = item["image"].as_tensor()[box][None], item["label"].as_tensor()[box][None]
    assert set(label.unique().tolist()) == {0, 1, 2, 3}
    return image, label


QUICK = {"UNet3D", "VNetLight", "SkipDenseNet3D", "SegResNetVAE"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.thorough) for name in NETWORKS]
)
def test_learns_one_crop(name: str, crop: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Mean Dice of 0.95 or more on the crop that it was trained on, within 150 steps."""
    image, label = crop
    if name != "SkipDenseNet3D":  # which needs more than 16 voxels along an axis
        image, label = image[:, :, :16], label[:, :, :16]
    size = tuple(image.shape[2:])
    settings = NETWORKS[name] | ({"input_image_size": size} if name == "SegResNetVAE" else {})
    network = build(name, **settings)
    loss = WithAuxiliary(DiceCELoss(softmax=True, to_onehot_y=True))
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    best = 0.0
    for step in range(1, 151):
        optimizer.zero_grad()
        loss(network.train()(image), label).backward()
        optimizer.step()
        if step % 10 == 0:
            with torch.no_grad():
                found = network.eval()(image).argmax(dim=1)
            best = min(dice_by_name(found[0].numpy(), label[0, 0].numpy(), iseg.LABELS).values())
            if best >= 0.95:
                break
    assert best >= 0.95


def test_cost_counts_what_a_convolution_does() -> None:
    """Two for each of 3x3x3 taps, 2 to 5 channels and 8x8x8 voxels."""
    layer = torch.nn.Conv3d(2, 5, 3, padding=1)
    assert count_parameters(layer) == 27 * 2 * 5 + 5
    assert gflops(layer, [1, 2, 8, 8, 8]) == pytest.approx(2 * 27 * 2 * 5 * 8**3 / 1e9, abs=5e-4)
    layer.weight.requires_grad_(False)
    assert count_parameters(layer) == 5


def test_network_table() -> None:
    table = network_table("iseg_mri_tissue_segmentation", 20).set_index("network")
    assert len(table) == 1 + len(list((find_bundles()["iseg_mri_tissue_segmentation"] / "configs/networks").iterdir()))
    assert table.loc["unet3d", ["parameters", "source"]].tolist() == ["19,071,492", "3D U-Net (Cicek et al. 2016)"]
    assert table.loc["default", ["parameters", "GFLOPs"]].tolist() == ["1,982,988", "-"]  # 20 isn't a multiple of 8
    assert float(table.loc["vnet_light", "GFLOPs"]) > 1


def test_a_window_is_checked_without_running_it() -> None:
    network = build("HyperDenseNet")
    check_window(network, 2, [512, 512, 512])  # would take a terabyte
    assert next(network.parameters()).device.type == "cpu"


class LooksAtValues(torch.nn.Module):
    """A network of a user that can't do with shapes alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv3d(2, 4, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found = self.layer(image)
        return found if found.max() > 1 else 2 * found


def test_a_network_that_looks_at_values_gets_them() -> None:
    network = LooksAtValues()
    check_window(network, 2, [8, 8, 8])
    assert network_stride(network, 2) == 1
    window = torch.zeros(1, 2, 32, 32, 32)
    assert len(convolutions(network, window)) == 1  # what the try without values met doesn't count
    assert gflops(network, window.shape) == pytest.approx(2 * 27 * 2 * 4 * 32**3 / 1e9, abs=5e-4)
    assert not network.layer._forward_hooks
