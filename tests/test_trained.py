"""Weights that describe themselves: what a training writes beside them, and what later commands take from it."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.networks.nets import UNet

from custom import cli
from custom.checkpoints.record import read_record, subjects_of, write_record
from custom.commands.pack import described
from custom.commands.trained import trained_call
from custom.errors import CheckpointError, WriteError
from custom.networks import SubpixelUNet
from custom.planning.decide import decide
from custom.planning.memory import Machine
from custom.planning.write_bundle import write_bundle
from custom.running.bundles import config_files, find_bundle, read_metadata
from custom.running.description import chosen_mixins, differences, encoded, references, resolved
from custom.running.recorded import changes
from custom.running.workflow import StrictWorkflow
from tests.conftest import Brainmri
from tests.own_folders import fingerprint

UNET = {"_target_": "UNet", "spatial_dims": 3, "in_channels": 2, "out_channels": 4, "channels": [16, 32, 64, 128, 256]}
UNET |= {"strides": [1, 2, 2, 2], "norm": "batch"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, 3),
        ("a", "a"),
        ("$a", "$'$a'"),
        ([1, (2,)], [1, "$(2,)"]),
        ((0, 1), "$(0, 1)"),
        ({0: "background"}, "${0: 'background'}"),
        (torch.device("cpu"), None),
        ([object()], None),
    ],
)
def test_values_as_a_config_reads_them_back(value: Any, text: Any) -> None:
    assert encoded(value) == text
    if text is not None:
        assert ConfigParser({"option": text}).get_parsed_content("option") == value


CONFIG = {
    "dataset_dir": "data",
    "labels": "$dict(enumerate([@dataset_dir, 'b']))",
    "roi_size": [8, 8],
    "net": {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": "$len(@labels)"},
    "codes": "$tuple(@labels)",
    "network": "$@net.to('cpu')",
    "train": {"inner": "@network"},
    "run": ["$@train#inner"],
}


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("roi_size", {"roi_size"}),
        ("codes", {"codes", "labels", "dataset_dir"}),
        ("run", {"run", "train", "network", "net", "labels", "dataset_dir"}),
        ("net#out_features", {"net", "labels", "dataset_dir"}),
    ],
)
def test_what_a_key_refers_to(key: str, names: set[str]) -> None:
    assert references(CONFIG, key) == names


def test_options_as_plain_data() -> None:
    parser = ConfigParser(CONFIG)
    options = resolved(parser, ["labels", "roi_size", "net", "codes", "network"])
    assert options["labels"] == "${0: 'data', 1: 'b'}"
    assert options["net"] == CONFIG["net"] | {"out_features": 2}
    assert (options["codes"], options["roi_size"]) == ("$(0, 1)", [8, 8])
    assert options["network"] == CONFIG["network"]  # an object has no plain value
    assert resolved(parser, ["net", "codes"], without="dataset_dir") == {
        name: CONFIG[name] for name in ("net", "codes")
    }


@pytest.mark.parametrize(
    ("own", "recorded", "changed"),
    [
        (1, 1, {}),
        (1, 2, {"o": 2}),
        ({"_target_": "A", "n": 1, "m": 2}, {"_target_": "A", "n": 3, "m": 2}, {"o#n": 3}),
        ({"_target_": "A", "n": 1}, {"_target_": "B", "n": 1}, {"o": {"_target_": "B", "n": 1}}),
        ([4, 8], [4, 16], {"o": [4, 16]}),
        ([{"_target_": "A", "n": 1}, "@b"], [{"_target_": "A", "n": 2}, "@b"], {"o#0#n": 2}),
        ([{"_target_": "A"}, {"_target_": "B"}], [{"_target_": "A"}], {"o": [{"_target_": "A"}]}),
        ([{"n": 1}, {"_target_": "B"}], [{"n": 1}, {"_target_": "C"}], {"o#1": {"_target_": "C"}}),
        ({"_target_": "A", "n": 1}, {"_target_": "A", "m": 1}, {"o": {"_target_": "A", "m": 1}}),
    ],
)
def test_overrides_that_make_the_difference(own: Any, recorded: Any, changed: dict[str, Any]) -> None:
    assert differences(own, recorded, "o") == changed


def test_mixins_by_name() -> None:
    configs = "/x/configs"
    assert chosen_mixins([f"{configs}/train.json"]) == (None, [])
    files = [f"{configs}/{name}.json" for name in ("train", "networks/vnet", "recipes/b", "recipes/a", "evaluate")]
    assert chosen_mixins(files) == ("vnet", ["b", "a"])


def test_subjects() -> None:
    data = [{"subject": "1", "image": "a"}, {"subject": "1", "image": "b"}, {"label": "x/map.nii.gz"}]
    assert subjects_of(data) == ["1", "map.nii.gz"]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def record(weights: Path, bundle: str, **more: Any) -> None:
    known = {"network": None, "recipe": [], "options": {}}
    write_record(weights, weights.parent, **(known | {"bundle": find_bundle(bundle).name} | more))


def call(run_id: str, bundle: str, weights: Path, network: str | None = None, **given: Any) -> tuple[list[str], Any]:
    files, settings = trained_call(run_id, bundle, network, None, {"ckpt_path": str(weights), **given})
    assert settings.pop("ckpt_path") == str(weights)
    return [Path(file).name for file in files], settings


def test_network_and_options_come_from_the_record(weights: Path) -> None:
    options = {"roi_size": [32, 32, 32], "fold": 2, "max_epochs": 7, "learning_rate": 0.5}
    record(weights, "iseg", network="vnet", recipe=["intensity_max", "optimizer_sgd"], options=options)
    files, settings = call("inferring", "iseg", weights)
    assert files[:3] == ["inference.json", "vnet.json", "intensity_max.json"]
    assert settings == {"roi_size": [32, 32, 32], "fold": 2}  # what only a training reads is left out
    files, settings = call("evaluating", "iseg", weights)
    assert files == ["train.json", "vnet.json", "intensity_max.json", "optimizer_sgd.json", "evaluate.json"]
    assert settings == {"roi_size": [32, 32, 32], "fold": 2, "dataset_dir": str(weights.parent)}


def test_options_of_a_changed_network(weights: Path) -> None:
    record(weights, "iseg", options={"network_def": UNET | {"channels": [4, 8], "strides": [2]}})
    _, settings = call("inferring", "iseg", weights)
    assert settings == {"network_def#channels": [4, 8], "network_def#strides": [2]}


def test_a_given_option_wins_and_a_contradiction_is_a_warning(weights: Path, capsys: pytest.CaptureFixture) -> None:
    record(weights, "iseg", network="vnet", options={"roi_size": [32, 32, 32], "fold": 2})
    files, settings = call("inferring", "iseg", weights, network="unet3d", roi_size=[48, 48, 48], fold=2)
    assert files == ["inference.json", "unet3d.json"]
    assert settings == {"roi_size": [48, 48, 48], "fold": 2}
    assert capsys.readouterr().out.splitlines() == [
        "Warning: --network unet3d contradicts these weights: they were trained with vnet.",
        "Warning: --roi_size [48, 48, 48] contradicts these weights: they were trained with [32, 32, 32].",
    ]


def test_labels_of_ones_own_scans_without_the_scans(weights: Path) -> None:
    labels = "${0: 'background', 1: 'lesion'}"
    record(weights, "brain_mri_tissue", options={"labels": labels, "spacing": 1.0})
    files, settings = call("inferring", "brain_mri_tissue", weights)
    assert files == ["inference.json"]
    assert settings == {"labels": labels, "spacing": 1.0}


def test_own_labels_are_scored_on_the_data_that_are_given(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle whose labels are those of a dataset.json."""
    monkeypatch.setattr(sys, "path", [*sys.path])  # bundles are found there, and this one has the name of another
    own_volumes(tmp_path / "own")
    bundle = shutil.copytree(find_bundle("brain_mri_tissue"), tmp_path / "any_labels", ignore=lambda *_: ["models"])
    train = json.loads((bundle / "configs/train.json").read_text())
    train["imports"].append("$import custom.datasets.msd as msd")
    train["labels"] = "$msd.labels(@dataset_dir)"
    (bundle / "configs/train.json").write_text(json.dumps(train))
    labels = "${0: 'background', 1: 'ventricle', 2: 'lesion'}"
    record(weights, str(bundle), options={"labels": labels, "spacing": 2.5})
    for name, warning in (("lesion", ""), ("tumor", "Warning: the data set has the labels {0: 'background', 1: 'vent")):
        text = (tmp_path / "own/dataset.json").read_text().replace("lesion", name)
        (tmp_path / "own/dataset.json").write_text(text)
        files, settings = call("evaluating", str(bundle), weights, dataset_dir=str(tmp_path / "own"))
        assert files == ["train.json", "evaluate.json"]
        assert settings == {"spacing": 2.5, "dataset_dir": str(tmp_path / "own")}
        printed = capsys.readouterr().out
        assert printed.startswith(warning)
        assert bool(printed) == bool(warning)


def described_training(bundle: str, *recipes: str, **settings: Any) -> dict[str, Any]:
    """What a training with these settings would write about its options."""
    files = config_files(bundle, "train.json", *(f"recipes/{name}.json" for name in recipes))
    handlers = StrictWorkflow(files, run_id="training", logging_file=False, **settings).parser["train#handlers"]
    (description,) = (handler["describe"]() for handler in handlers if "describe" in handler)
    return dict(description)


def evaluation(bundle: str, weights: Path, **given: Any) -> ConfigParser:
    """The parsed config of an evaluation of weights."""
    files, settings = trained_call("evaluating", bundle, None, None, {"ckpt_path": str(weights), **given})
    return StrictWorkflow(files, run_id="evaluating", logging_file=False, **settings).parser


@pytest.mark.parametrize(
    ("calibration", "given", "probability"),
    [
        ({}, {}, 1 / (1 + math.exp(-4))),
        ({}, {"temperature": 4}, 0.731),
        ({"temperature": 4.0}, {}, 0.731),
        ({"temperature": 2.0}, {"temperature": 4}, 0.731),
        ({"temperature": 4.0}, {"temperature": 1}, 1 / (1 + math.exp(-4))),
    ],
)
@pytest.mark.parametrize("older", [False, True])
def test_a_record_leaves_the_temperature_to_the_evaluation(
    calibration: dict[str, Any], given: dict[str, Any], probability: float, older: bool, weights: Path
) -> None:
    """Logits of 4 and 0 at a temperature of 4: e / (e + 1) = 0.731."""
    known = described_training("brain_mri_tumor")
    assert "decode" not in known["options"]
    if older:
        known["options"]["decode"] = "$custom.checkpoints.calibration.softmax()"
    record(weights, "brain_mri_tumor", **known)
    if calibration:
        (weights.parent / "calibration.json").write_text(json.dumps(calibration))
    decode = evaluation("brain_mri_tumor", weights, **given).get_parsed_content("decode")
    assert float(decode(torch.tensor([4.0, 0.0]))[0]) == pytest.approx(probability, abs=5e-4)


def test_a_given_option_also_wins_inside_another_one(weights: Path) -> None:
    """hcp's data_options#space is @space, and brats's crop#2#num_samples is @samples_per_volume."""
    known = described_training("hcp", space="mni", fold=2)
    assert known["options"]["data_options"]["space"] == "@space"
    for recorded in ("mni", "@space"):  # earlier versions recorded the value
        known["options"]["data_options"]["space"] = recorded
        record(weights, "hcp", **known)
        _, settings = call("evaluating", "hcp", weights, space="native")
        assert settings == {"space": "native", "fold": 2, "dataset_dir": str(weights.parent)}
    for given, space in (({"space": "native"}, "native"), ({}, "mni")):
        options = evaluation("hcp", weights, **given).get_parsed_content("data_options")
        assert (options.space, options.target) == (space, "Gender")

    record(weights, "brats_mri_tumor", **described_training("brats_mri_tumor", samples_per_volume=5, fold=1))
    _, settings = call("evaluating", "brats_mri_tumor", weights, samples_per_volume=3)
    assert settings == {"samples_per_volume": 3, "fold": 1, "dataset_dir": str(weights.parent)}
    for more, number in (({"samples_per_volume": 3}, 3), ({}, 5)):
        crop = evaluation("brats_mri_tumor", weights, **more).get_parsed_content("crop#2#num_samples")
        assert crop == number


def test_a_list_of_an_earlier_record_follows_a_given_option(weights: Path) -> None:
    """Earlier versions recorded the value of brats's crop#2#num_samples, which is @samples_per_volume."""
    known = described_training("brats_mri_tumor", samples_per_volume=5)
    known["options"]["crop"][2]["num_samples"] = 5
    record(weights, "brats_mri_tumor", **known)
    _, settings = call("evaluating", "brats_mri_tumor", weights, samples_per_volume=3)
    assert settings == {"samples_per_volume": 3, "dataset_dir": str(weights.parent)}
    known["options"]["crop"][2]["neg"] = 4  # a difference of its own stays
    record(weights, "brats_mri_tumor", **known)
    _, settings = call("evaluating", "brats_mri_tumor", weights)
    assert settings == {"samples_per_volume": 5, "crop#2#neg": 4, "dataset_dir": str(weights.parent)}


def test_a_part_that_is_an_expression_of_a_given_option_follows_it(weights: Path) -> None:
    files = config_files("iseg", "train.json")
    parser = ConfigParser(ConfigParser.load_config_files(files) | {"evaluating": "@a", "a": {"n": "$@fold + 1"}})
    parser.parse()
    assert changes(parser, ["a", "fold"], {"a": {"n": 3}, "fold": 2}) == {"fold": 2}
    assert changes(parser, ["a", "fold"], {"a": {"n": 4}, "fold": 2}) == {"fold": 2, "a#n": 4}


def test_last_pt_has_the_record_of_its_run(weights: Path) -> None:
    labels = "${0: 'background', 1: 'lesion'}"
    record(weights, "brain_mri_tissue", options={"labels": labels, "spacing": 1.0})
    last = shutil.copy(weights, weights.with_name("last.pt"))
    assert call("inferring", "brain_mri_tissue", Path(last))[1] == {"labels": labels, "spacing": 1.0}
    other = shutil.copy(weights, weights.with_name("other.pt"))
    assert call("inferring", "brain_mri_tissue", Path(other))[1] == {}


def test_weights_of_another_bundle(weights: Path) -> None:
    record(weights, "iseg")
    message = r"was trained with the bundle iseg_mri_tissue_segmentation, not with brats_mri_tumor"
    with pytest.raises(CheckpointError, match=message):
        call("inferring", "brats_mri_tumor", weights)


def test_weights_without_a_record_change_nothing(weights: Path) -> None:
    assert call("inferring", "iseg", weights, fold=1) == (["inference.json"], {"fold": 1})


def test_what_a_training_writes(trained: Path, iseg_dir: Path) -> None:
    content = read_record(trained / "model.pt")
    assert content["bundle"] == "iseg_mri_tissue_segmentation"
    assert content["labels"] == {"0": "background", "1": "CSF", "2": "GM", "3": "WM"}
    assert content["channels"] == ["T1", "T2"]
    assert (content["network"], content["recipe"]) == (None, [])
    assert content["options"]["roi_size"] == [32, 32, 32]
    assert content["options"]["codes"] == "$(0, 10, 150, 250)"
    assert content["overrides"]["max_epochs"] == 2
    assert content["training"]
    assert content["validation"]
    assert not {*content["training"]} & {*content["validation"]}
    assert content["score"]["name"] == "dice_mean"
    assert 1 <= content["epoch"] <= 2
    assert set(content["versions"]) == {"custom", "monai", "torch", "python"}
    assert " train iseg --dataset_dir " in content["command"]
    assert content["dataset_dir"] == str(iseg_dir)


def test_nothing_is_repeated_after_a_training(trained: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    result = brainmri("evaluate", "iseg", "--output_dir", "run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "--roi_size '[32, 32, 32]'" in result.stdout
    assert (tmp_path / "run/evaluation/scores.csv").is_file()


def own_volumes(folder: Path) -> Path:
    """Six labelled cases of two channels in nnU-Net's layout."""
    draw, affine = np.random.default_rng(0), np.diag([2.0, 2, 2, 1])
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number in range(1, 7):
        labels = np.zeros((32, 36, 32), np.uint8)
        labels[6:16, 8:24, 8:24], labels[20:28, 10:20, 10:20] = 1, 2
        for channel in range(2):
            voxels = draw.normal(0, 5, labels.shape) + 100 * labels * (1 + channel) + 50
            path = folder / f"imagesTr/case{number}_{channel:04d}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(voxels.astype(np.float32), affine), path)
        nibabel.save(nibabel.Nifti1Image(labels, affine), folder / f"labelsTr/case{number}.nii.gz")
    content = {"channel_names": {"0": "T1", "1": "FLAIR"}, "labels": {"background": 0, "ventricle": 1, "lesion": 2}}
    (folder / "dataset.json").write_text(json.dumps(content | {"numTraining": 6, "file_ending": ".nii.gz"}))
    return folder


WITHOUT_DATA = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import custom
from monai.bundle import ConfigParser
assert Path(custom.__file__).parents[1] == Path(sys.argv[1]), custom.__file__
parser = ConfigParser(ConfigParser.load_config_file(sys.argv[1] + "/configs/inference.json"))
parser.get_parsed_content("imports")
for section in ("network_def", "labelling", "preprocessing"):
    parser.get_parsed_content(section)
parser["dataset_dir"] = "scan.nii.gz"
assert len(parser.get_parsed_content("dataset#data")) == 1
print(*(parser.get_parsed_content(name) for name in ("labels", "spacing", "out_channels")))
"""


def test_a_zip_of_a_fine_tuned_network_needs_no_data(tmp_path: Path) -> None:
    """A planned bundle that starts from the any-scan weights, and whose scans are gone when it is packed."""
    own, run = own_volumes(tmp_path / "scans"), tmp_path / "run"
    names = {0: "background", 1: "ventricle", 2: "lesion"}
    heads = replace(fingerprint(subjects=6, counts=(10, 5, 5)), folder=own, labels=names, codes=tuple(names))
    planned = write_bundle(heads, decide(heads, Machine("cpu", 16 * 10**9)), tmp_path / "mine_bundle")
    small = {"network_def#features": [4, 8], "network_def#blocks_down": [1, 1], "network_def#blocks_up": [1]}
    small |= {"roi_size": [32, 32, 32], "spacing": 2.5, "dataset_dir": str(own)}
    known = described_training(str(planned), **small)
    run.mkdir()
    torch.save(SubpixelUNet(1, 3, (4, 8), (1, 1), (1,)).state_dict(), run / "model.pt")
    labels = {str(code): name for code, name in names.items()}
    write_record(run / "model.pt", own, **known, bundle=planned.name, labels=labels, channels=["T1w"])
    shutil.copy(own / "imagesTr/case1_0000.nii.gz", tmp_path / "scan.nii.gz")
    shutil.rmtree(own)
    packed = cli.pack(str(planned), output_dir=str(run))
    assert packed == run / "mine_bundle.zip"
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path / "elsewhere")
    bundle = tmp_path / "elsewhere/mine_bundle"
    config = json.loads((bundle / "configs/inference.json").read_text())
    assert config["labels"] == "${0: 'background', 1: 'ventricle', 2: 'lesion'}"
    shipped = json.loads((planned / "configs/inference.json").read_text())
    assert set(config) == set(shipped)  # nothing of the training's own sections
    assert (config["imports"], config["dataset_dir"]) == (shipped["imports"], "data/scans")
    train = json.loads((bundle / "configs/train.json").read_text())
    assert train["from_weights"] == "shipped"  # the start weights stay behind
    assert not re.search(r"\bown\b", json.dumps(config))
    assert str(tmp_path) not in json.dumps(config) + (bundle / "models/model.json").read_text()
    assert {path.name for path in (bundle / "models").iterdir()} == {"model.pt", "model.ts", "model.json"}
    words = [sys.executable, "-c", WITHOUT_DATA, str(bundle)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "{0: 'background', 1: 'ventricle', 2: 'lesion'} 2.5 3"


def test_weights_of_any_name_are_exported_beside_themselves(tmp_path: Path) -> None:
    best = tmp_path / "X" / "best.pt"
    best.parent.mkdir()
    network = UNet(3, 2, 4, channels=(4, 8), strides=(2,), norm="batch")
    torch.save(network.state_dict(), best)
    network_def = UNET | {"channels": [4, 8], "strides": [2]}
    record(best, "iseg", options={"network_def": network_def, "roi_size": [16, 16, 16]})
    assert cli.export("iseg", ckpt_path=str(best)) == tmp_path / "X/model.ts"
    packed = cli.pack("iseg", ckpt_path=str(best))
    assert packed == tmp_path / "X/iseg_mri_tissue_segmentation.zip"
    with zipfile.ZipFile(packed) as archive:
        models = {name for name in archive.namelist() if "/models/" in name}
        assert models == {f"{packed.stem}/models/model.{ending}" for ending in ("pt", "ts", "json")}
        assert archive.read(f"{packed.stem}/models/model.pt") == best.read_bytes()
        content = json.loads(archive.read(f"{packed.stem}/models/model.json"))
    assert content["sha256"] == hashlib.sha256(best.read_bytes()).hexdigest()  # so that it is the record of model.pt
    (tmp_path / "other").mkdir()
    written = cli.export("iseg", ckpt_path=str(best), output_dir=str(tmp_path / "other"))
    assert written == tmp_path / "other/model.ts"


def test_export_on_a_full_disk(tmp_path: Path, small_disk: Path) -> None:
    """Torch's own writer of TorchScript would end the process."""
    network = UNet(3, 2, 4, channels=(4, 8), strides=(2,), norm="batch")
    torch.save(network.state_dict(), tmp_path / "best.pt")
    options = {"network_def": UNET | {"channels": [4, 8], "strides": [2]}, "roi_size": [16, 16, 16]}
    record(tmp_path / "best.pt", "iseg", options=options)
    (small_disk / "filled").write_bytes(bytes(4 * 2**20 - 8192))
    with pytest.raises(WriteError, match=r"model\.ts could not be written, because the disk is full\. Free some space"):
        cli.export("iseg", ckpt_path=str(tmp_path / "best.pt"), output_dir=str(small_disk))
    assert {path.name for path in small_disk.iterdir()} == {"filled"}


@pytest.mark.parametrize(
    ("bundle", "known", "out_channels", "expected"),
    [
        ("iseg", {}, 4, {"num_channels": 4, "labels": None, "last": "WM"}),
        (
            "iseg",
            {"labels": {"0": "background", "1": "lesion"}},
            2,
            {"num_channels": 2, "labels": None, "last": "lesion"},
        ),
        (
            "brain_mri_tissue",
            {"labels": {"0": "background", "1": "hippocampus"}},
            18,
            {"num_channels": 18, "labels": {"0": "background", "1": "hippocampus"}, "last": "output 17"},
        ),
    ],
)
def test_metadata_of_a_run(bundle: str, known: dict[str, Any], out_channels: int, expected: dict[str, Any]) -> None:
    pred = described(read_metadata(find_bundle(bundle)), known, out_channels)["network_data_format"]["outputs"]["pred"]
    last = pred["channel_def"][str(len(pred["channel_def"]) - 1)]
    assert {"num_channels": pred["num_channels"], "labels": pred.get("labels"), "last": last} == expected
