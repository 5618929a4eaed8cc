"""Pretraining of a ViT without labels: the loss, the images, the command, and a training from its weights."""

from __future__ import annotations

import json
import math
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from custom.checkpoints.record import write_record
from custom.datasets import pretraining_images, tumor_images
from custom.errors import CheckpointError, ConfigError, DataError
from custom.handlers import EpochSeed
from custom.losses import MaskedPatchLoss
from custom.losses.masked_patches import image_of, patches_of
from custom.networks import MaskedAutoencoder
from custom.reports import reconstruction_figure
from custom.running.bundles import config_files
from tests.conftest import Brainmri

SIZES = {"hidden_size": 48, "mlp_dim": 96, "num_layers": 2, "num_heads": 4}
NESTED = tuple(word for name, value in SIZES.items() for word in (f"--network_def#{name}", value))
SMALL = ("--roi_size", "[64,64]", "--batch_size", 16, *NESTED)
ALL = tuple(tumor_images.LABELS.values())


def test_patches_row_by_row() -> None:
    """As the patch embedding of a ViT orders them, with the channels last."""
    image = torch.arange(2 * 4 * 6).reshape(1, 2, 4, 6)
    patches = patches_of(image, 2)
    assert patches.shape == (1, 6, 8)
    assert patches[0, 0].tolist() == [0, 24, 1, 25, 6, 30, 7, 31]
    assert patches[0, 1, 0] == 2  # the next one to the right
    assert patches[0, 3, 0] == 12  # the first one of the next row
    assert torch.equal(image_of(patches, 2, (4, 6)), image)


def test_the_loss_is_of_hidden_patches_only() -> None:
    """Errors 3 and 1 in the two hidden patches of one image, 2 in that of the other; nan where the image was seen."""
    image = torch.zeros(2, 1, 4, 4)
    errors = torch.tensor([[[3.0], [1.0], [100.0], [100.0]], [[100.0], [2.0], [100.0], [100.0]]])
    mask = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 0]])
    loss = MaskedPatchLoss(2)((errors.expand(-1, -1, 4), mask), image)
    assert loss.item() == pytest.approx((9 + 1 + 4) / 3)


def test_the_autoencoder_sees_a_quarter_of_the_patches() -> None:
    torch.manual_seed(0)
    network = MaskedAutoencoder(3, [32, 48], 8, **SIZES)
    patches, mask = network(torch.randn(2, 3, 32, 48))
    assert patches.shape == (2, 24, 8 * 8 * 3)
    assert mask.sum(dim=1).tolist() == [18, 18]
    image = torch.randn(1, 3, 32, 48)
    torch.manual_seed(1)
    first, hidden = network.eval()(image)
    changed = torch.where(image_of(hidden[..., None].expand_as(first), 8, (32, 48)) > 0, 9.0, image)
    torch.manual_seed(1)
    torch.testing.assert_close(network(changed)[0], first)  # what is hidden has no influence


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"img_size": [32, 30]}, r"roi_size must be two multiples of patch_size 8, got \[32, 30\]"),
        ({"img_size": [32]}, r"roi_size must be two multiples of patch_size 8, got \[32\]"),
        ({"num_heads": 5}, "hidden_size must be a multiple of 4 and of its number of heads 5, got 48"),
        ({"decoder_hidden_size": 36}, "decoder_hidden_size must be a multiple of 4 and of its number of heads 8"),
        ({"masking_ratio": 1.0}, "masking_ratio must hide some of the 16 patches and leave some, got 1.0"),
        ({"masking_ratio": 0}, "masking_ratio must hide some of the 16 patches and leave some, got 0"),
        ({"masking_ratio": 2}, "masking_ratio must hide some of the 16 patches and leave some, got 2"),
    ],
)
def test_sizes_that_do_not_fit(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MaskedAutoencoder(**({"in_channels": 3, "img_size": [32, 32], "patch_size": 8} | SIZES | changed))


@pytest.mark.parametrize(("repeat", "alike"), [(True, True), (False, False)])
def test_a_validation_hides_the_same_patches_each_time(repeat: bool, alike: bool) -> None:
    drawn = []
    engine = Engine(lambda _engine, _batch: drawn.append(torch.rand(1).item()))
    engine.state.rank = 0
    engine.data_loader = SimpleNamespace(dataset=None)
    EpochSeed(3, repeat).attach(engine)
    engine.run([0], max_epochs=2)
    assert (drawn[0] == drawn[1]) is alike


def test_the_figure_shows_what_was_hidden() -> None:
    image = torch.full((1, 3, 4, 4), 0.5)
    image[0, :, 0, 0] = 0.0
    image[0, :, 3, 3] = 1.0
    hidden = torch.zeros_like(image)
    hidden[..., :2] = 1
    figure = reconstruction_figure(image, torch.full_like(image, 0.25), hidden)
    seen, rebuilt, original = (ax.get_images()[0].get_array() for ax in figure.axes)
    assert np.ma.getmaskarray(seen)[:, :2].all()
    assert not np.ma.getmaskarray(seen)[:, 2:].any()
    assert (rebuilt[:, :2] == 0.25).all()
    np.testing.assert_array_equal(rebuilt[:, 2:], original[:, 2:])
    assert original[0, 0] == 0
    assert "not a medical device" in figure.get_supxlabel()


@pytest.mark.parametrize(("partition", "fold"), [("grouped", 0), ("grouped", 3), ("folds", 1), ("original", 0)])
def test_only_training_images(partition: str, fold: int, tumor_images_dir: Path, tmp_path: Path) -> None:
    """The splits are those of the later training, and no item has a label."""
    where = (fold, partition, ALL, tmp_path)
    for split in ("training", "validation"):
        items = pretraining_images.datalist(tumor_images_dir, split, *where)
        later = tumor_images.datalist(tumor_images_dir, split, *where)
        assert [item["subject"] for item in items] == [item["subject"] for item in later]
        assert all(set(item) == {"subject", "image"} for item in items)
    with pytest.raises(ConfigError, match="A pretraining has no test split"):
        pretraining_images.datalist(tumor_images_dir, "test", *where)


def test_any_folder_of_images(tumor_images_dir: Path, tmp_path: Path) -> None:
    """Copies stay on one side, each fold validates other images, and all are in one of the two splits."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for number, path in enumerate(sorted((tumor_images_dir / "Training").rglob("*.jpg"))[::5]):
        shutil.copy(path, folder / f"{number}.jpg")
    Image.open(folder / "0.jpg").resize((150, 150)).save(folder / "copy.png")
    names = {path.name for path in folder.iterdir()}
    validated = []
    for fold in range(5):
        training, validation = (
            {item["subject"] for item in pretraining_images.datalist(folder, split, fold, cache_dir=tmp_path)}
            for split in ("training", "validation")
        )
        assert training | validation == names
        assert not training & validation
        assert ("0.jpg" in training) == ("copy.png" in training)
        validated += [*validation]
    assert sorted(validated) == sorted(names)
    for path in sorted(folder.iterdir())[5:]:
        path.unlink()
    with pytest.raises(DataError, match=r"mine has \d groups of images that belong together. At least ten are needed"):
        pretraining_images.datalist(folder, "training", cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("pretrained_on", "fold", "problem"),
    [("training", 0, ""), ("training", 1, "validation"), ("validation", 0, "validation"), ("test", 0, "test")],
)
def test_weights_that_saw_held_out_images_are_refused(
    pretrained_on: str, fold: int, problem: str, tumor_images_dir: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "model.pt"
    torch.save({}, weights)
    items = tumor_images.datalist(tumor_images_dir, pretrained_on, 0, cache_dir=tmp_path)
    write_record(weights, tumor_images_dir, training=[item["subject"] for item in items])
    words = (str(weights), tumor_images_dir, fold, "grouped", ALL, tmp_path)
    if problem:
        with pytest.raises(CheckpointError, match=rf"was trained on \d+ of the \d+ images of this {problem} split"):
            pretraining_images.check_start(*words)
    else:
        pretraining_images.check_start(*words)
    pretraining_images.check_start(None, *words[1:])
    other = shutil.copytree(tumor_images_dir, tmp_path / "other")  # another set may have the same names
    pretraining_images.check_start(str(weights), other, *words[2:])


def test_the_encoder_has_the_sizes_of_vit() -> None:
    """So that the default network takes the default pretraining."""
    files = [config_files("tumor_class", *names) for names in (["pretrain.json"], ["train.json", "networks/vit.json"])]
    own, other = (ConfigParser(ConfigParser.load_config_files(names)) for names in files)
    for name in ("patch_size", "hidden_size", "mlp_dim", "num_layers", "num_heads"):
        assert own.get_parsed_content(f"network_def#{name}") == other[f"network_def#{name}"], name
    for name in ("roi_size", "in_channels", "normalize", "partition", "fold", "class_names", "cache_dir"):
        assert own[name] == other[name], name
    assert own["train#deterministic_transforms"] == other["train#deterministic_transforms"]


@pytest.fixture(scope="module")
def pretrained(tumor_images_dir: Path, brainmri: Brainmri, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretraining in two parts, the second one resumed. Read only."""
    folder = tmp_path_factory.mktemp("pretrained")
    words = ("--dataset_dir", tumor_images_dir, "--output_dir", "run", "--val_interval", 2, "--patch_size", 8, *SMALL)
    for epochs in (("--max_epochs", 2), ("--max_epochs", 6, "--resume", True)):
        done = brainmri("pretrain", "tumor_class", *words, "--warmup_epochs", 1, *epochs, cwd=folder)
        assert done.returncode == 0, done.stderr
    (folder / "stdout.txt").write_text(done.stdout, encoding="utf-8")
    return folder


def test_a_pretraining_leaves_what_a_training_leaves(pretrained: Path, tumor_images_dir: Path) -> None:
    run = pretrained / "run"
    assert {path.name for path in run.iterdir()} >= {"model.pt", "last.pt", "model.json", "run.log"}
    record = json.loads((run / "model.json").read_text())
    items = tumor_images.datalist(tumor_images_dir, "training", cache_dir=None)
    assert record["training"] == [item["subject"] for item in items]
    assert record["pretraining"] is True
    assert record["score"]["name"] == "masked_mse"
    assert record["options"]["masking_ratio"] == 0.75
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    errors = [event.value for event in events.Scalars("validation/masked_mse")]
    assert len(errors) == 3  # of epochs 2, 4 and 6; the resumed part goes on
    assert errors[-1] == pytest.approx(record["score"]["value"])
    assert errors[-1] < errors[0] < 1.1
    assert not math.isnan(events.Scalars("training/loss")[-1].value)
    with Image.open(run / "reconstructions.png") as picture:
        assert picture.width > picture.height > 300


def test_a_training_from_the_pretraining(
    pretrained: Path, tumor_images_dir: Path, brainmri: Brainmri, tmp_path: Path
) -> None:
    """The printed command runs. Another fold is refused, and so is an evaluation of the pretraining itself."""
    command = shlex.split((pretrained / "stdout.txt").read_text().strip().splitlines()[-1])
    assert command[:3] == ["brainmri", "train", "tumor_class"]
    weights = command.index("--from_weights") + 1
    command[weights] = str(pretrained / command[weights])
    words = (*command[1:], "--max_epochs", 1, "--batch_size", 16, "--output_dir", "run")
    refused = brainmri(*words, "--fold", 1, cwd=tmp_path)
    assert refused.returncode == 1
    assert "images of this validation split" in refused.stderr
    assert not (tmp_path / "run/model.pt").exists()
    done = brainmri(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the output layers start afresh" in done.stdout
    place = ("--dataset_dir", tumor_images_dir, "--output_dir", pretrained / "run")
    scored = brainmri("evaluate", "tumor_class", *place, cwd=tmp_path)
    assert scored.returncode == 1
    assert "holds weights of a pretraining, which give no classes. Train from them first" in scored.stderr


def test_a_bundle_without_a_pretraining(brainmri: Brainmri, tmp_path: Path) -> None:
    done = brainmri("pretrain", "iseg", cwd=tmp_path)
    assert done.returncode == 1
    assert "has no configs/pretrain.json. Pretrain one of: brain_mri_tumor_classification." in done.stderr
