"""A ViT that starts from another one: the same tokens from other names; and images of 256x256."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.networks.nets import MaskedAutoEncoderViT
from monai.networks.nets import ViT as MonaiViT
from torch import nn

from custom.checkpoints.start_vit import start_classifier
from custom.errors import CheckpointError
from custom.networks import CustomCNN, ViT, ViTClassifier
from custom.running.bundles import config_files, find_bundle
from tests.conftest import Brainmri
from tests.test_bundles import THIN

WIDTH, DEPTH, HEADS = 24, 2, 3
SIZES = {"hidden_size": WIDTH, "mlp_dim": 40, "num_layers": DEPTH, "num_heads": HEADS}
NETWORKS = [path.stem for path in sorted(find_bundle("tumor_class").glob("configs/networks/*.json"))]


class TimmBlock(nn.Module):
    """A layer with timm's names and order of operations."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(WIDTH, 3 * WIDTH), "proj": nn.Linear(WIDTH, WIDTH)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(WIDTH, 40), "fc2": nn.Linear(40, WIDTH)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        qkv = self.attn["qkv"](self.norm1(x)).reshape(*x.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(*qkv).transpose(1, 2).flatten(2)
        x = x + self.attn["proj"](mixed)
        return x + self.mlp["fc2"](nn.functional.gelu(self.mlp["fc1"](self.norm2(x))))


class TimmViT(nn.Module):
    """A vision transformer with the names of timm's VisionTransformer: the class token after the last norm."""

    def __init__(self, channels: int = 3, patches: int = 16, patch_size: int = 8) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + patches, WIDTH))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(channels, WIDTH, patch_size, patch_size)})
        self.blocks = nn.ModuleList([TimmBlock() for _ in range(DEPTH)])
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 1000)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed["proj"](image).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]


def ours(channels: int = 3, size: int = 32, **changed: Any) -> ViT:
    return ViT(channels, 4, size, **({"patch_size": 8, "dropout": 0.0} | SIZES | changed)).eval()


def monais(channels: int = 3, size: int = 32, **changed: Any) -> ViTClassifier:
    return ViTClassifier(channels, 4, [size, size], 8, 2, **(SIZES | {"qkv_bias": True} | changed)).eval()


def token_of(network: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """The class token after the last norm, whatever the head."""
    found = []
    norm = network.vit.norm if isinstance(network, ViTClassifier) else network.norm
    with norm.register_forward_hook(lambda _module, _input, output: found.append(output[:, 0])), torch.no_grad():
        network(image)
    return found[0]


@pytest.fixture
def image() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 3, 32, 32)


@pytest.mark.parametrize("make", [ours, monais])
@pytest.mark.parametrize("source", ["timm", "monai", "monai classifier", "ours", "monai without bias"])
def test_the_tokens_are_those_of_the_other(make: Any, source: str, image: torch.Tensor, tmp_path: Path) -> None:
    """Also behind "model" and "module.", as trainings save them."""
    other: nn.Module
    if source == "timm":
        other = TimmViT().eval()
        with torch.no_grad():
            expected = other(image)
    elif source == "monai":
        other = MonaiViT(3, 32, 8, spatial_dims=2, classification=True, qkv_bias=True, **SIZES).eval()
        classifier = monais()
        classifier.vit.load_state_dict(other.state_dict(), strict=False)
        classifier.vit.norm.load_state_dict(other.norm.state_dict())
        expected = token_of(classifier, image)
    else:
        other = {"ours": ours, "monai classifier": monais}.get(source, lambda: monais(qkv_bias=False))()
        expected = token_of(other, image)
    state = {f"module.{name}": tensor for name, tensor in other.state_dict().items()}
    torch.save({"model": state, "epoch": 3}, tmp_path / "other.pt")
    network = make()
    assert not torch.allclose(token_of(network, image), expected, atol=0.1)
    head = [tensor.clone() for name, tensor in network.state_dict().items() if "head" in name]
    start_classifier(network, str(tmp_path / "other.pt"), (32, 32), "")
    torch.testing.assert_close(token_of(network, image), expected, atol=1e-4, rtol=1e-4)
    kept = [tensor for name, tensor in network.state_dict().items() if "head" in name]
    assert all(map(torch.equal, head, kept))


def test_a_masked_autoencoder(image: torch.Tensor, tmp_path: Path) -> None:
    """Its encoder alone: without masks it gives the tokens of MONAI's ViT."""
    other = MaskedAutoEncoderViT(
        3,
        32,
        8,
        spatial_dims=2,
        decoder_hidden_size=12,
        decoder_num_heads=2,
        pos_embed_type="learnable",
        decoder_pos_embed_type="learnable",
        qkv_bias=True,
        **SIZES,
    ).eval()
    torch.save(other.state_dict(), tmp_path / "mae.pt")
    network = ours()
    start_classifier(network, str(tmp_path / "mae.pt"), (32, 32), "")
    with torch.no_grad():
        tokens = torch.cat([other.cls_token.expand(2, -1, -1), other.patch_embedding(image)], dim=1)
        expected = other.blocks(tokens)[:, 0]
    torch.testing.assert_close(token_of(network, image), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("make", [ours, monais])
def test_channels_and_positions_of_another_size(make: Any, image: torch.Tensor, tmp_path: Path) -> None:
    """A grey image gives the same tokens with one channel; constant positions stay constant on a larger grid."""
    other = TimmViT().eval()
    with torch.no_grad():
        other.pos_embed[:, 1:] = other.pos_embed[:, 1:2]
    torch.save(other.state_dict(), tmp_path / "timm.pt")
    grey = image[:, :1]
    network = make(1)
    start_classifier(network, str(tmp_path / "timm.pt"), (32, 32), "")
    with torch.no_grad():
        expected = other(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(token_of(network, grey), expected, atol=1e-4, rtol=1e-4)
    larger = make(3, 64)
    start_classifier(larger, str(tmp_path / "timm.pt"), (64, 64), "")
    state = larger.vit.state_dict() if make is monais else larger.state_dict()
    patches = state["patch_embedding.position_embeddings"] if make is monais else state["positions"][:, 1:]
    torch.testing.assert_close(patches, other.pos_embed[:, 1:2].expand(1, 64, WIDTH), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            lambda: ours(hidden_size=48),
            "has 2 layers of width 24, but the network has 2 of width 48. Set --network_def#n",
        ),
        (lambda: ours(num_layers=3), "has 2 layers of width 24, but the network has 3 of width 24"),
        (lambda: ours(patch_size=16), r"has patches of \[8, 8\] pixels, but the network has \[16, 16\]"),
        (lambda: ours(mlp_dim=80), r"layers.0.linear1.weight has the shape \[80, 24\], the file has \[40, 24\]"),
        (lambda: monais(qkv_bias=False), "has a bias of queries, keys and values, .* Set --network_def#qkv_bias True"),
        (lambda: CustomCNN(3, 4), "holds another network's weights"),
    ],
)
def test_what_does_not_fit_is_refused(network: Any, message: str, tmp_path: Path) -> None:
    torch.save(TimmViT().state_dict(), tmp_path / "timm.pt")
    made = network()
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        start_classifier(made, str(tmp_path / "timm.pt"), (32, 32), "")
    assert all(torch.equal(before[name], tensor) for name, tensor in made.state_dict().items())


def test_files_that_hold_no_vit(tmp_path: Path) -> None:
    torch.save(CustomCNN(3, 4).state_dict(), tmp_path / "cnn.pt")
    with pytest.raises(CheckpointError, match="holds no vision transformer of this project, MONAI or timm"):
        start_classifier(ours(), str(tmp_path / "cnn.pt"), (32, 32), "")
    with pytest.raises(CheckpointError, match="There are no weights at"):
        start_classifier(ours(), str(tmp_path / "none.pt"), (32, 32), "")
    state = TimmViT(patches=15).state_dict()
    torch.save(state, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError, match="has positions of 15 patches, which is no square"):
        start_classifier(ours(), str(tmp_path / "odd.pt"), (32, 32), "")


@pytest.mark.parametrize("network", NETWORKS)
def test_every_classifier_takes_256x256_by_one_option(network: str, tumor_images_dir: Path) -> None:
    """One option sets the images' size and the network's: an image of the sample to four finite logits."""
    files = config_files("tumor_class", "train.json", f"networks/{network}.json")
    thin = {key: value for key, value in THIN.get(network, {}).items() if key != "roi_size"}
    parser = ConfigParser(ConfigParser.load_config_files(files))
    parser.update({"roi_size": [256, 256], "device": "cpu", **thin})
    path = next((tumor_images_dir / "Testing/glioma").iterdir())
    picture = parser.get_parsed_content("validate#preprocessing")({"image": str(path)})["image"]
    assert picture.shape == (3, 256, 256)
    with torch.no_grad():
        logits = parser.get_parsed_content("network").eval()(torch.as_tensor(picture)[None])
    assert logits.shape == (1, 4)
    assert logits.isfinite().all()


def test_a_training_at_256_from_a_file(tumor_images_dir: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    """The evaluation takes the size from the record; a start from the wrong file leaves no run behind."""
    torch.save(TimmViT(patches=4, patch_size=16).state_dict(), tmp_path / "timm.pt")
    sizes = [word for name, value in SIZES.items() for word in (f"--network_def#{name}", value)]
    words = ("tumor_class", "--network", "vit", "--dataset_dir", tumor_images_dir, "--output_dir", "run")
    training = (*words, "--from_weights", tmp_path / "timm.pt", "--roi_size", "[256,256]", "--max_epochs", 1)
    refused = brainmri("train", *training, cwd=tmp_path)
    assert refused.returncode == 1
    assert "has 2 layers of width 24, but the network has 10 of width 512" in refused.stderr
    assert not (tmp_path / "run/model.pt").exists()
    trained = brainmri("train", *training, *sizes, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "Started from" in trained.stdout + trained.stderr
    assert json.loads((tmp_path / "run/model.json").read_text())["options"]["roi_size"] == [256, 256]
    scored = brainmri("evaluate", *words, *sizes, cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
    assert (tmp_path / "run/evaluation/scores.csv").is_file()
