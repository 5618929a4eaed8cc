"""What every bundle must do: one table, every network, no copies."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow, verify_metadata, verify_net_in_out
from monai.inferers import SliceInferer, SlidingWindowInferer
from monai.transforms import CenterSpatialCrop

from custom import cli
from custom.datasets import freesurfer
from custom.networks.cost import without_values
from custom.planning.configs import FINE_TUNING
from custom.running.bundles import config_files, find_bundles
from custom.running.hardware import amp_dtype, num_workers
from custom.running.workflow import StrictWorkflow


@dataclass
class Case:
    """What the tests need of one bundle: a data set, what to segment, and options that make a run short."""

    dataset: str
    scans: str  # the fixture with scans for inference
    source: str  # the scan that is segmented first
    small: dict[str, Any]
    scored: tuple[str, ...] = ()  # in the scores, where they are more than the labels
    thin: dict[str, Any] = field(default_factory=dict)  # makes the default network smaller where it takes long
    result: str = "segmentations/*.nii.gz"  # of an inference
    differ: set[str] = field(default_factory=set)  # settings that mean another thing in training and inference


CASES = {
    "iseg_mri_tissue_segmentation": Case(
        "iseg", "iseg_dir", "*-1-T1.*", {"roi_size": [32, 32, 32], "samples_per_volume": 1}
    ),
    "brain_mri_tissue_segmentation": Case(
        "synthseg_labels",
        "mni152_dir",
        "*_T1w.*",
        {"roi_size": [32, 32, 32], "spacing": 4.0, "scans_per_epoch": 2, "validation_draws": 1, "warmup_steps": 1},
        tuple(freesurfer.LABELS.values())[1:],
        thin={"network_def#features": [8, 8, 8, 16], "network_def#blocks_down": [1, 1, 1, 1]},
        differ={"labels"},  # structures are trained, tissues are a result
    ),
    "brats_mri_tumor_segmentation": Case(
        "brain_tumors",
        "brain_tumors_dir",
        "*_001/*_flair.*",
        {"roi_size": [32, 32, 32], "samples_per_volume": 1},
        ("NCR", "ED", "ET", "TC", "WT"),
    ),
    "brats_mri_slice_segmentation": Case(
        "brats_slices",
        "brain_tumors_dir",
        "*_001/*_flair.*",
        {"roi_size": [64, 64], "batch_size": 16, "middle_slices": 16},
        thin={"network_def#n_filters": 8},
    ),
    "hcp_mri_classification": Case(
        "hcp", "hcp_dir", "100001/T1w/*.nii.gz", {"roi_size": [48, 48, 48]}, result="predictions.csv"
    ),
    "brain_mri_tumor_classification": Case(
        "tumor_images",
        "tumor_images_dir",
        "Testing/glioma/*",
        {"roi_size": [80, 80], "batch_size": 16},
        result="predictions.csv",
    ),
}
SCHEMA = Path(__file__).parent / "data/monai_schema/meta_schema_20240725.json"
SCHEMA_SHA256 = "2dc39cea06d330b654fc99a693322bb01c0f09ce4f7715f90d97df9bfacbb277"
CLASSIFIERS = [name for name, case in CASES.items() if case.result == "predictions.csv"]
# one transform or optimizer, the size, other data: tests/test_recipes.py, test_hcp_bundle.py, test_more_datasets.py
SINGLE_STEPS = ("intensity_", "optimizer_", "resolution_", "crop_", "n4", "mrbrains")
RECIPES: dict[str, dict[str, Any]] = {
    "medicalzoo": {"subvolumes_per_epoch": 3},
    "tutorial": {"roi_size": [32, 32, 16], "least_tumor": 0.01},
    "original": {"middle_slices": 8, "batch_size": 4},
    "regression": {"target": "Strength_Unadj"},
}
THIN: dict[str, dict[str, Any]] = {  # smaller where the default takes minutes
    "unetr": {"network_def#hidden_size": 96, "network_def#mlp_dim": 192},
    **{name: {"network_def#n_filters": 8} for name in ("classic", "improved", "attention")},
    "swinunetr": {"network_def#feature_size": 12, "roi_size": [64, 32, 32]},
    **{f"{name}_densenet": {"network_def#features": [4, 4]} for name in ("single_path", "dual_path", "hyper")},
    "dual_single_densenet": {"network_def#features": [4, 4]},
    "segresnet_vae": {"network_def#init_filters": 8},
    "basic_unet": {"network_def#features": [8, 8, 16, 16, 16, 8]},
    "talk": {"network_def#kernel_sizes": [12, 5, 3, 3, 3]},
    "vgg16": {"roi_size": [32, 32]},
    "vit": {
        "network_def#hidden_size": 48,
        "network_def#mlp_dim": 96,
        "network_def#num_layers": 2,
        "network_def#num_heads": 4,
    },
}
THIN["monai_vit"] = THIN["vit"]
THIN["vit3d"] = THIN["vit"] | {"roi_size": [50, 50, 50]}  # patches of 10
BUNDLES = find_bundles()
NETWORKS = [
    (name, path.stem)
    for name, folder in BUNDLES.items()
    for path in [Path("default"), *sorted(folder.glob("configs/networks/*.json"))]
]
ONCE = list({network: (name, network) for name, network in reversed(NETWORKS) if name not in CLASSIFIERS}.values())


def is_the_default(bundle: str, network: str) -> bool:
    own = [
        json.loads((BUNDLES[bundle] / "configs" / file).read_text())
        for file in ("train.json", f"networks/{network}.json")
    ]
    return own[0]["network_def"] == own[1]["network_def"]


def mixin(network: str) -> str | None:
    return None if network == "default" else f"networks/{network}.json"


# Each network once, since its mixin is the same in all bundles; classifiers each, of 2D and of 3D images.
# Besides the defaults, one network of each kind runs always: deep supervision, a second output, attention, a ViT.
OFTEN = ("default", "dynunet", "segresnet_vae", "attention_unet", "monai_vit")
RUN = [
    pytest.param(name, network, marks=[] if network in OFTEN else pytest.mark.thorough)
    for name, network in NETWORKS
    if network == "default" or ((name in CLASSIFIERS or (name, network) in ONCE) and not is_the_default(name, network))
]
MIXINS = [
    (name, path)
    for name, folder in BUNDLES.items()
    for path in (
        *sorted(folder.glob("configs/*/*.json")),
        *folder.glob("configs/evaluate.json"),
        *folder.glob("configs/multi*.json"),
    )
]

bundle = pytest.mark.parametrize("bundle", BUNDLES)


@pytest.fixture
def data(bundle: str, request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(f"{CASES[bundle].dataset}_dir")


@pytest.fixture
def scans(bundle: str, request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(CASES[bundle].scans)


def small(bundle: str, file: str = "train.json") -> dict[str, Any]:
    """The options of a short run that a config file has."""
    return {key: value for key, value in CASES[bundle].small.items() if key in config(bundle, file)}


def config(bundle: str, *names: str) -> dict[str, Any]:
    return ConfigParser.load_config_files(config_files(bundle, *names))


def labels_and_channels(bundle: str, data: Path) -> tuple[dict[int, str], tuple[str, ...]]:
    """Those of a bundle's data set: of its module, or of the folder's own dataset.json."""
    dataset = importlib.import_module(f"custom.datasets.{CASES[bundle].dataset}")
    if CASES[bundle].dataset == "msd":
        return dataset.labels(data), dataset.channels(data)
    return dataset.LABELS, dataset.CHANNELS


@bundle
def test_metadata_agrees_with_the_dataset(bundle: str, data: Path) -> None:
    metadata = config(bundle, "metadata.json")
    known_labels, known_channels = labels_and_channels(bundle, data)
    assert metadata["name"] == bundle
    assert metadata["version"] in metadata["changelog"]
    ports = metadata["network_data_format"]
    outputs = ports["outputs"]["pred"]["channel_def"]
    assert list(outputs) == [str(channel) for channel in range(len(outputs))]
    labels = ports["outputs"]["pred"].get("labels", outputs)  # of a result, where a network tells more apart
    assert list(labels.values()) == list(known_labels.values())[-len(labels) :]  # masks have no background channel
    assert len(known_labels) - len(labels) <= 1
    image = ports["inputs"]["image"]["channel_def"].values()
    assert [channel.removesuffix("w") for channel in image] == [name.removesuffix("w") for name in known_channels]
    parser = ConfigParser(config(bundle, "train.json"))
    assert parser.get_parsed_content("in_channels") == ports["inputs"]["image"]["num_channels"] == len(known_channels)
    assert parser.get_parsed_content("out_channels") == ports["outputs"]["pred"]["num_channels"] == len(outputs)
    assert "not a medical device" in metadata["intended_use"]


@bundle
def test_metadata_declares_the_kind_of_bundle(bundle: str) -> None:
    """So that no code guesses it from the keys of a config file."""
    metadata, train = config(bundle, "metadata.json"), config(bundle, "train.json")
    assert metadata["kind"] == ("classification" if bundle in CLASSIFIERS else "segmentation")
    ports = metadata["network_data_format"]
    sizes = train["roi_size"], ports["inputs"]["image"]["spatial_shape"]
    assert [len(size) for size in sizes] == [metadata["spatial_dims"]] * 2
    if metadata["kind"] == "classification":
        assert "own_labels" not in metadata
        return
    own = metadata["own_labels"]  # how train.json takes labelled scans from elsewhere
    assert set(own) == {"planned", "codes_option", "channel_order_option"}
    assert own["planned"] is (CASES[bundle].dataset == "synthseg_labels")
    assert {own["codes_option"], own["channel_order_option"]} - {None} <= set(train)
    assert (own["codes_option"] is not None) == ("codes" in train)
    assert (own["channel_order_option"] is not None) == ("channel_order" in train)


@bundle
def test_shipped_weights_are_the_ones_that_metadata_names(bundle: str) -> None:
    metadata, weights = config(bundle, "metadata.json"), BUNDLES[bundle] / "models/model.pt"
    assert weights.is_file() == ("weights_sha256" in metadata)
    if weights.is_file():
        assert hashlib.sha256(weights.read_bytes()).hexdigest() == metadata["weights_sha256"]
        assert weights.stat().st_size < 25e6
        tensors = torch.load(weights, weights_only=True)
        config_parser = ConfigParser(config(bundle, "train.json"))
        config_parser.get_parsed_content("network_def").load_state_dict(tensors)


@bundle
def test_what_is_written_twice_is_equal(bundle: str) -> None:
    train, inference = config(bundle, "train.json"), config(bundle, "inference.json")
    own = {"_desc_", "imports", "run"} | (
        {"dataset_dir"} if CASES[bundle].scans != f"{CASES[bundle].dataset}_dir" else set()
    )
    both = (set(train) & set(inference)) - own
    assert {"in_channels", "out_channels", "network_def", "network"} <= both
    assert {"bundle_root", "device", "output_dir", "roi_size", "amp"} <= both
    for key in both - CASES[bundle].differ:
        assert train[key] == inference[key], key
    assert train["validate"]["inferer"] == inference["inferer"]
    if "preprocessing" in both:  # one chain for both
        assert train["train"]["deterministic_transforms"] == ["@preprocessing"]
        return
    last = inference["preprocessing"]["transforms"][-1]
    fixed = train["train"]["deterministic_transforms"]
    if config(bundle, "metadata.json").get("own_labels", {}).get("planned"):  # train.json itself draws its scans
        fixed = json.loads(FINE_TUNING.read_text(encoding="utf-8"))["train#deterministic_transforms"]
    assert last in fixed + train["train"]["sampling_transforms"]
    if CASES[bundle].dataset == "brats_slices":  # trains on slices, infers on volumes
        return
    chains = fixed, inference["preprocessing"]["transforms"]
    fixed, used = ([train[one[1:]] if isinstance(one, str) else one for one in chain] for chain in chains)
    of_image = [one | {"keys": "image"} for one in fixed if "image" in one["keys"]]
    assert of_image == [one for one in used if one["_target_"] != "CopyItemsd"]


@bundle
def test_engines_on_cuda_compute_in_the_type_that_the_gpu_has(bundle: str) -> None:
    """Where MONAI's engine does the mixed precision; AveragedStep does its own."""
    engines = {}
    for file, keys in {"train.json": ("train#trainer", "validate#evaluator"), "inference.json": ("evaluator",)}.items():
        parser = ConfigParser(config(bundle, file))
        chosen = [key for key in keys if "iteration_update" not in parser[key]]
        engines |= {key: parser.get_parsed_content(f"{key}#amp_kwargs") for key in chosen}
    assert len(engines) >= 2
    assert all(kwargs == {"dtype": amp_dtype()} for kwargs in engines.values())


@bundle
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_workers_by_the_device(bundle: str, device: str) -> None:
    """The tissue bundle draws its scans on the device, in the main process."""
    expected = 0 if CASES[bundle].dataset == "synthseg_labels" else num_workers(device)
    for file in ("train.json", "inference.json"):
        parser = ConfigParser(config(bundle, file) | {"device": device})
        assert parser.get_parsed_content("num_workers") == expected


@bundle
@pytest.mark.parametrize("mixin", [None, "multi_gpu_train.json"])
@pytest.mark.parametrize("deterministic", [True, False])
def test_deterministic_sets_what_cudnn_may_choose(
    bundle: str, mixin: str | None, deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of `training` in their order: MONAI's set_determinism comes first and would win otherwise."""
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "deterministic", not deterministic)  # both are put back after the test
    monkeypatch.setattr(cudnn, "benchmark", deterministic)
    parser = ConfigParser(config(bundle, "train.json", mixin) | {"deterministic": deterministic})
    for number, step in enumerate(parser["training"]):
        if "set_determinism" in step or "cudnn" in step:
            parser.get_parsed_content(f"training#{number}")
    assert (cudnn.deterministic, cudnn.benchmark) == (deterministic, not deterministic)


@bundle
def test_only_the_tissue_bundle_is_not_deterministic_by_default(bundle: str) -> None:
    assert config(bundle, "train.json")["deterministic"] is (CASES[bundle].dataset != "synthseg_labels")


def test_network_mixins_of_one_name_are_identical() -> None:
    texts: dict[str, set[bytes]] = {}
    for folder in BUNDLES.values():
        for path in folder.glob("configs/networks/*.json"):
            texts.setdefault(path.name, set()).add(path.read_bytes())
    assert len(texts) > 20
    assert [name for name, versions in texts.items() if len(versions) > 1] == []


@pytest.mark.parametrize(("bundle", "path"), MIXINS, ids=lambda value: getattr(value, "stem", value))
def test_a_mixin_replaces_only_what_is_there(bundle: str, path: Path) -> None:
    base = ConfigParser(config(bundle, "train.json"))
    new = {key for key in json.loads(path.read_text()) if key != "_desc_" and key not in base}
    new -= set(config(bundle, "inference.json"))
    if path.parent.name == "networks":
        assert set(json.loads(path.read_text())) == {"_desc_", "network_def"}
    text = path.read_text()
    unused = {key for key in new if f"@{key}" not in text and f"%{key}" not in text}
    assert not unused, f"{unused} are neither in train.json nor used"


@pytest.mark.parametrize(
    ("bundle", "path"),
    [pair for pair in MIXINS if pair[1].parent.name == "recipes"],
    ids=lambda value: getattr(value, "stem", value),
)
def test_a_recipe_changes_the_default(bundle: str, path: Path) -> None:
    configs = [config(bundle, "train.json", *mixins) for mixins in ((), (f"recipes/{path.name}",))]
    for content in configs:
        content.pop("_desc_")
    assert configs[0] != configs[1]


@bundle
@pytest.mark.parametrize("file", ["train.json", "inference.json"])
def test_a_config_reads_from_top_to_bottom(bundle: str, file: str) -> None:
    """A key is defined above the first use, except for parts of `train` and `validate`, which use each other."""
    content = config(bundle, file)
    keys = list(content)
    order = [key for key in ("network_def", "train", "validate", "training", "run") if key in keys]
    if file == "inference.json":
        order = ["data", "preprocessing", "dataset", "dataloader", "network_def", "network", "inferer"]
        order += ["postprocessing", "handlers", "evaluator", "inferring", "run"]
    assert [key for key in keys if key in order] == order
    for position, (key, value) in enumerate(content.items()):
        if key != "_desc_":
            used = set(re.findall(r"[@%](\w+)", json.dumps(value))) - {"train", "validate"}
            too_late = used - set(keys[: position + 1])
            assert not too_late, f"{key} uses {too_late}, which the file defines below it"


@bundle
def test_no_absolute_paths(bundle: str) -> None:
    paths = sorted((BUNDLES[bundle] / "configs").rglob("*.json"))
    assert paths
    for path in paths:
        assert '"/' not in path.read_text(), path


@bundle
def test_every_option_is_documented(bundle: str) -> None:
    page = (Path(__file__).parents[1] / "docs" / "bundles.md").read_text()
    split = page.split(f"## {bundle}")[1].split("\n## ")[0]
    built = {"imports", "training", "evaluating", "inferring", "run", "bundle_root", "network", "preprocessing"}
    for file in ("train.json", "evaluate.json", "inference.json"):
        content = json.loads((BUNDLES[bundle] / "configs" / file).read_text())
        assert content
        for key, value in content.items():
            is_option = not isinstance(value, dict) and "#" not in key and not key.startswith("_") and key not in built
            known = key in ("handlers", "iterations_per_epoch", "average") or f"`{key}`" in split
            assert not is_option or known, f"{file}: {key}"


@bundle
@pytest.mark.parametrize(("file", "kind"), [("train.json", "train"), ("inference.json", "infer")])
def test_properties(bundle: str, file: str, kind: str, data: Path, scans: Path, tmp_path: Path) -> None:
    workflow = ConfigWorkflow(
        config_file=config_files(bundle, file),
        workflow_type=kind,
        dataset_dir=str(data if kind == "train" else scans),
        output_dir=str(tmp_path),
        **small(bundle, file),
    )
    workflow.initialize()
    assert workflow.check_properties() == []


def run(run_id: str, files: list[str], **overrides: Any) -> ConfigWorkflow:
    workflow = create_workflow(workflow_name=StrictWorkflow, config_file=files, run_id=run_id, **overrides)
    workflow.run()
    return workflow


@pytest.mark.parametrize(("bundle", "network"), NETWORKS)
def test_network_fits_its_bundle(bundle: str, network: str) -> None:
    """It takes the default network's image and gives its classes, in windows of the bundle's own size."""
    default, own = (ConfigParser(config(bundle, "train.json", mixin(name))) for name in ("default", network))
    channels = [
        [parser.get_parsed_content(f"network_def#{name}") for name in ("in_channels", "out_channels")]
        for parser in (own, default)
    ]
    assert channels[0] == channels[1]
    window = torch.empty(1, channels[0][0], *own["roi_size"], device="meta")
    logits = without_values(own.get_parsed_content("network_def"))(window)
    size = [] if bundle in CLASSIFIERS else own["roi_size"]
    assert logits.shape == (1, channels[0][1], *size)


@pytest.mark.parametrize(("bundle", "network"), RUN)
def test_trains_evaluates_infers_exports(
    bundle: str, network: str, data: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each network of each bundle, from a folder that isn't the bundle's, with relative paths."""
    monkeypatch.chdir(tmp_path)
    thin = CASES[bundle].thin if network == "default" else THIN.get(network, {})
    where = {"dataset_dir": os.path.relpath(data, tmp_path), "output_dir": "out"}
    short = small(bundle) | thin
    train = config_files(bundle, "train.json", mixin(network))
    run("training", train, **where, **short, max_epochs=1, val_interval=1)
    weights = torch.load(tmp_path / "out/model.pt", weights_only=True)
    assert not [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    assert torch.load(tmp_path / "out/last.pt", weights_only=True)["trainer"]["epoch"] == 1

    evaluate = config_files(bundle, "train.json", mixin(network), "evaluate.json")
    evaluation = run("evaluating", evaluate, **where, **short)
    scores = pandas.read_csv(tmp_path / "out/evaluation/scores.csv")
    if bundle in CLASSIFIERS:
        check_classifier(bundle, network, evaluation, scores, where, short)
        return
    labels, _ = labels_and_channels(bundle, data)
    subjects = scores["subject"].nunique()
    names = list(CASES[bundle].scored) or [labels[code] for code in sorted(labels)][1:]
    assert scores["label"].tolist() == names * subjects
    assert scores["dice"].between(0, 1).all()

    where["dataset_dir"] = os.path.relpath(scans, tmp_path)
    short = small(bundle, "inference.json") | thin
    run("inferring", config_files(bundle, "inference.json", mixin(network)), **where, **short)
    (result,) = (tmp_path / "out/segmentations").glob("*.nii.gz")
    segmentation = nibabel.load(result)
    source = nibabel.load(next(scans.glob(CASES[bundle].source)))
    assert np.isin(np.unique(segmentation.dataobj), list(labels)).all()
    assert segmentation.shape == source.shape[:3]
    assert segmentation.get_data_dtype() == np.uint8
    np.testing.assert_allclose(segmentation.affine, source.affine)
    if data == scans:
        channels = evaluation.parser.get_parsed_content("validate#evaluator").state.output[0]["pred"].as_tensor()
        predicted = channels[: len(labels)].argmax(dim=0)
        canonical = np.asarray(nibabel.as_closest_canonical(segmentation).dataobj)
        assert np.mean(canonical == predicted.cpu().numpy()) > 0.9999

    name = None if network == "default" else network
    assert cli.export(
        bundle, network=name, output_dir="out", format="onnx", **short
    ).is_file()  # export compares it with the checkpoint
    exported = cli.export(bundle, network=name, output_dir="out", **short)
    size = short["roi_size"]
    middle = CenterSpatialCrop([*size, 1][:3])  # one window, which is all that a traced network takes
    image = middle(evaluation.parser.get_parsed_content("validate#evaluator").state.output[0]["image"])
    infer = (SliceInferer if len(size) == 2 else SlidingWindowInferer)(roi_size=size, sw_batch_size=1)
    pair = evaluation.parser.get_parsed_content("network").eval(), torch.jit.load(str(exported)).eval()
    with torch.no_grad():
        first, second = (infer(torch.as_tensor(image)[None], one).argmax(dim=1) for one in pair)
    assert (first == second).double().mean() >= 0.9999


def check_classifier(
    bundle: str, network: str, evaluation: ConfigWorkflow, scores: pandas.DataFrame, where: dict, short: dict
) -> None:
    """Scores of each class; inference says of each person what the evaluation said; exports do too."""
    classes = list(importlib.import_module(f"custom.datasets.{CASES[bundle].dataset}").LABELS.values())
    assert scores["label"].tolist() == [*classes, "all"]
    assert pandas.read_csv("out/evaluation/predictions.csv")["group"].notna().all()
    evaluated = pandas.read_csv("out/evaluation/predictions.csv", dtype={"subject": str}).set_index("subject")
    assert scores["n"].tolist() == [*(int((evaluated["label"] == name).sum()) for name in classes), len(evaluated)]
    assert set(json.loads(Path("out/calibration.json").read_text())["classes"]) == set(classes)

    run("inferring", config_files(bundle, "inference.json", mixin(network)), **where, **short)
    predicted = pandas.read_csv("out/predictions.csv", dtype={"subject": str}).set_index("subject")
    assert "label" not in predicted
    assert len(predicted) > len(evaluated)
    columns = [f"p_{name}" for name in classes]
    both = predicted.loc[evaluated.index]
    np.testing.assert_allclose(both[columns], evaluated[columns], atol=0.02)  # bfloat16: a batch of others
    np.testing.assert_allclose(predicted[columns].sum(axis=1), 1, atol=1e-5)

    name = None if network == "default" else network
    assert cli.export(
        bundle, network=name, output_dir="out", format="onnx", **short
    ).is_file()  # export compares it with the checkpoint
    exported = torch.jit.load(str(cli.export(bundle, network=name, output_dir="out", **short))).eval()
    image = torch.as_tensor(evaluation.parser.get_parsed_content("validate#dataset")[0]["image"])[None].float()
    with torch.no_grad():
        logits = evaluation.parser.get_parsed_content("network").eval()(image)
        torch.testing.assert_close(exported(image), logits, atol=1e-3, rtol=1e-3)


@bundle
def test_metadata_as_the_model_zoo_wants_it(bundle: str) -> None:
    (metadata,) = config_files(bundle, "metadata.json")
    verify_metadata(metadata, filepath=SCHEMA, hash_val=SCHEMA_SHA256, hash_type="sha256")


@bundle
def test_network_takes_and_gives_what_metadata_says(bundle: str) -> None:
    files = config_files(bundle, "metadata.json", "train.json", "inference.json")
    for file in files[1:]:
        verify_net_in_out("network_def", meta_file=files[0], config_file=file, device="cpu", n=4)


@bundle
def test_packed_bundle_runs_without_this_package(bundle: str, data: Path, scans: Path, tmp_path: Path) -> None:
    """Trained, packed, unzipped, and run by an interpreter that finds MONAI but no `custom`."""
    where = {"dataset_dir": str(data), "output_dir": str(tmp_path / "run")}
    run("training", config_files(bundle, "train.json"), **where, **small(bundle), max_epochs=1, val_interval=1)
    with zipfile.ZipFile(cli.pack(bundle, output_dir=str(tmp_path / "run"))) as archive:
        archive.extractall(tmp_path / "elsewhere")
    unpacked = tmp_path / "elsewhere" / bundle
    venv.create(tmp_path / "venv")
    python = str(tmp_path / "venv/bin/python")
    environment = os.environ | {"PYTHONPATH": str(Path(torch.__file__).parents[1])}

    def call(*words: object) -> subprocess.CompletedProcess:
        return subprocess.run(
            [python, *map(str, words)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )

    assert "No module named 'custom'" in call("-c", "import custom").stderr

    def bundle_run(file: str, dataset_dir: Path, **settings: Any) -> subprocess.CompletedProcess:
        settings = {"config_file": unpacked / "configs" / file, "dataset_dir": dataset_dir, **settings}
        options = [word for key, value in (settings | small(bundle, file)).items() for word in (f"--{key}", value)]
        return call("-m", "monai.bundle", "run", *options)

    segmented = bundle_run("inference.json", scans)
    assert segmented.returncode == 0, segmented.stderr
    assert f"Weights: {unpacked}/models/model.pt" in segmented.stdout
    assert list((tmp_path / "runs" / bundle).glob(CASES[bundle].result))
    trained = bundle_run("train.json", data, max_epochs=1, val_interval=1)
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "runs" / bundle / "model.pt").is_file()


@bundle
def test_plain_monai_from_another_folder(
    bundle: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """The command of the README, in a process of its own; then every recipe of a whole training, in this one."""
    settings = {"dataset_dir": data, "max_epochs": 1, **small(bundle), "val_interval": 1}
    options = [str(word) for key, value in settings.items() for word in (f"--{key}", value)]
    files = str(config_files(bundle, "train.json"))
    call = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", files, *options]
    subprocess.run(call, cwd=tmp_path, check=True, capture_output=True, timeout=300)
    output = tmp_path / "runs" / bundle
    assert (output / "model.pt").is_file()
    monkeypatch.chdir(tmp_path)
    recipes = [path.stem for path in sorted((BUNDLES[bundle] / "configs/recipes").glob("*.json"))]
    recipes = [name for name in recipes if not name.startswith(SINGLE_STEPS)]
    for recipe in recipes:
        own = settings | RECIPES.get(recipe, {})
        own["dataset_dir"] = str(own["dataset_dir"])
        run("training", config_files(bundle, "train.json", f"recipes/{recipe}.json"), **own)
        assert (output / "model.pt").is_file()
    assert len(list(output.glob("earlier/*/model.pt"))) == len(recipes)
