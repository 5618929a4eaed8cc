"""Regions, slices' normalisation, sub-volumes with enough tumor, measures: by hand; and all of it on a real patient."""

from __future__ import annotations

import json
import math
import re
import shutil
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from monai.transforms import Compose

from custom import cli
from custom.baselines.flair_threshold import whole_tumor_by_flair
from custom.datasets import brain_tumors, brats
from custom.errors import ConfigError, DataError, find_cause
from custom.handlers import SegmentationScores
from custom.metrics import MEASURES, confusion
from custom.networks import AttentionUNet, ClassicUNet, ImprovedUNet
from custom.running.bundles import config_files
from custom.running.workflow import StrictWorkflow
from custom.transforms import (
    AddBackgroundd,
    LabelsToRegionsd,
    NormalizeSlicesd,
    RandCropWithEnoughd,
    RegionsToLabelsd,
)
from tests.conftest import SHARED, Brainmri
from tests.test_bundles import run

REAL = SHARED / "tcga_lgg"


def test_regions_of_the_projects_labels() -> None:
    item = {"label": torch.tensor([[0, 1, 2, 3]])}
    regions = LabelsToRegionsd("label", brats.REGIONS)(item)["label"]
    assert regions.tolist() == [[0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]]  # WT, TC, ET
    scored = LabelsToRegionsd("label", brain_tumors.SCORED)(item)["label"]
    assert list(brain_tumors.SCORED) == ["background", "NCR", "ED", "ET", "TC", "WT"]
    assert scored.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 1, 0, 1], [0, 1, 1, 1]]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20))
def test_regions_and_back(labels: list[int]) -> None:
    item = {"x": torch.tensor([labels], dtype=torch.uint8)}
    logits = LabelsToRegionsd("x", brats.REGIONS)(item)["x"] - 0.5
    assert torch.equal(RegionsToLabelsd("x", (2, 1, 3))({"x": logits})["x"], item["x"])


def test_a_region_outside_of_the_wider_one_is_not_painted() -> None:
    logits = torch.tensor([[1.0, -1, 1, -1], [1, 1, -1, -1], [-1, 1, 1, 1]])  # WT, TC, ET
    assert RegionsToLabelsd("x", (2, 1, 3))({"x": logits})["x"].tolist() == [[1, 0, 2, 0]]


def test_background_of_masks_and_of_logits() -> None:
    masks = torch.tensor([[0.0, 1, 0], [0, 0, 1], [0, 0, 1]])
    assert AddBackgroundd("x")({"x": masks})["x"].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]
    logits = torch.tensor([[-1.0, 0.5, 1], [-2, 0.2, 3], [-3, -1, 2]])
    assert AddBackgroundd("x", logits=True)({"x": logits})["x"].argmax(0).tolist() == [0, 1, 2]


def test_slices_are_normalised_one_by_one() -> None:
    volume = torch.stack([torch.tensor([[0.0, 2], [4, 6]]), torch.full((2, 2), 7.0), 100 * torch.eye(2)], dim=-1)[None]
    z = NormalizeSlicesd("x")({"x": volume})["x"][0]
    # slice 0: mean 3, standard deviation sqrt(5); slice 1 has no deviation: 0; slice 2: mean 50, standard deviation 50
    torch.testing.assert_close(z[..., 0], torch.tensor([[-3.0, -1], [1, 3]]) / math.sqrt(5))
    assert z[..., 1].tolist() == [[0, 0], [0, 0]]
    assert z[..., 2].tolist() == [[1, -1], [-1, 1]]
    # over 2, 4 and 6: mean 4, standard deviation sqrt(8/3); 0 stays
    nonzero = NormalizeSlicesd("x", background="zero")({"x": volume[..., 0]})["x"][0]
    torch.testing.assert_close(nonzero, torch.tensor([[0.0, -2], [0, 2]]) / math.sqrt(8 / 3))
    span = NormalizeSlicesd("x", method="min-max")({"x": volume})["x"][0]
    torch.testing.assert_close(span[..., 0], torch.tensor([[0.0, 2], [4, 6]]) / 6)
    assert span[..., 1].tolist() == [[0, 0], [0, 0]]
    # Corner 5 is the background: over 1, 3 and 8 the mean is 4 and the standard deviation sqrt(26/3), the span 7
    corner = {"x": torch.tensor([[[5.0, 1], [3, 8]]])}
    z = NormalizeSlicesd("x", background="corner")(corner)["x"][0]
    torch.testing.assert_close(z, torch.tensor([[0.0, -3], [-1, 4]]) / math.sqrt(26 / 3))
    span = NormalizeSlicesd("x", method="min-max", background="corner")(corner)["x"][0]
    torch.testing.assert_close(span, torch.tensor([[0.0, 0], [2, 7]]) / 7)
    for method in ("z-score", "min-max"):
        assert not NormalizeSlicesd("x", method, "corner")({"x": torch.full((2, 3, 3), -0.4)})["x"].any()
    with pytest.raises(ValueError, match=r"got 'median', 'counts'"):
        NormalizeSlicesd("x", method="median")
    with pytest.raises(ValueError, match=r"got 'min-max', 'mask'"):
        NormalizeSlicesd("x", method="min-max", background="mask")


def crop(**changes: object) -> RandCropWithEnoughd:
    arguments = {"keys": ["image", "label"], "label_key": "label", "spatial_size": (4, 4, 2), "least": 0.25} | changes
    return RandCropWithEnoughd(**arguments).set_random_state(seed=0)  # type: ignore[arg-type]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), number=st.integers(1, 3))
def test_sub_volumes_hold_enough(seed: int, number: int) -> None:
    label = torch.zeros(1, 12, 10, 6)
    label[:, 3:8, 2:7, 1:5] = 1
    image = torch.arange(label.numel()).reshape(label.shape).float()
    samples = crop(num_samples=number).set_random_state(seed=seed)({"image": image, "label": label, "subject": "s"})
    assert len(samples) == number
    for sample in samples:
        assert sample["image"].shape == sample["label"].shape == (1, 4, 4, 2)
        assert sample["label"].mean() >= 0.25
        assert torch.equal(sample["label"], label.flatten()[sample["image"].long()])  # cut at one place


def test_too_little_tumor() -> None:
    label = torch.zeros(1, 8, 8, 4)
    label[0, 0, 0, 0] = 1  # 1 of 32 in the best sub-volume
    item = {"image": label, "label": label, "subject": "p7"}
    with pytest.raises(DataError, match=r"p7: none of 20 sub-volumes of \(4, 4, 2\) has 25.0% foreground .*the best"):
        crop(most_draws=20)(item)
    (best,) = crop(most_draws=2000, otherwise="best")(item)
    assert best["label"].sum() == 1
    with pytest.raises(DataError, match=r"p7 has the shape \(8, 8, 4\), less than \(4, 4, 5\)\. Pad it first"):
        crop(spatial_size=(4, 4, 5))(item)
    with pytest.raises(ValueError, match=r"got 1.5, 100, 1 and 'raise'"):
        crop(least=1.5)


def test_measures_by_hand(tmp_path: Path) -> None:
    prediction = torch.tensor([[1, 1, 1, 0, 0, 0, 0, 0], [0] * 8, [0] * 8], dtype=torch.bool)
    truth = torch.tensor([[1, 1, 0, 1, 1, 1, 0, 0], [0] * 8, [1] + [0] * 7], dtype=torch.bool)
    tp, fp, fn, tn = matrix = confusion(prediction, truth)
    assert (tp.tolist(), fp.tolist(), fn.tolist(), tn.tolist()) == ([2, 0, 0], [1, 0, 0], [3, 0, 1], [2, 8, 7])
    first = {name: float(measure(matrix)[0]) for name, measure in MEASURES.items()}
    assert first == pytest.approx(
        {
            "dice": 4 / 8,
            "iou": 2 / 6,
            "accuracy": 4 / 8,
            "false_positive_rate": 1 / 3,
            "false_negative_rate": 3 / 5,
            "precision": 2 / 3,
            "recall": 2 / 5,
            "sensitivity": 2 / 5,
            "specificity": 2 / 3,
        }
    )
    empty = {name: float(measure(matrix)[1]) for name, measure in MEASURES.items()}
    assert {name for name, value in empty.items() if math.isnan(value)} == {
        *("dice", "iou", "false_negative_rate", "precision", "recall", "sensitivity")
    }
    missed = {name: float(measure(matrix)[2]) for name, measure in MEASURES.items()}
    assert missed["dice"] == missed["recall"] == 0
    assert math.isnan(missed["precision"])
    with pytest.raises(ConfigError, match=r"Unknown measures \['dise'\]\. Use some of \['dice', 'iou'"):
        SegmentationScores(tmp_path, {0: "background", 1: "A"}, measures=["dise"])


@pytest.mark.parametrize(
    ("network", "filters", "parameters"),
    [
        (ClassicUNet, 16, 1_375_043),
        (ImprovedUNet, 16, 799_075),
        (AttentionUNet, 16, 843_319),
        (ClassicUNet, 32, 5_496_451),
        (ImprovedUNet, 32, 3_082_739),
        (AttentionUNet, 32, 3_258_263),
    ],
)
def test_parameters(network: type, filters: int, parameters: int) -> None:
    assert sum(one.numel() for one in network(4, 3, filters).parameters()) == parameters


@pytest.mark.parametrize("network", [ClassicUNet, ImprovedUNet, AttentionUNet])
def test_2d_networks(network: type) -> None:
    torch.manual_seed(0)
    own, image = network(4, 3, n_filters=4), torch.randn(2, 4, 48, 32)
    assert own(image).shape == (2, 3, 48, 32)
    own(image).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in own.parameters())
    unused = [name for name, parameter in own.named_parameters() if not parameter.grad.any() and "bias" not in name]
    assert not unused


def test_attention_maps_weigh_the_skips() -> None:
    torch.manual_seed(0)
    network, image = AttentionUNet(4, 3, n_filters=4).eval(), torch.randn(1, 4, 32, 48)
    maps = network.attention_maps(image)
    assert [tuple(one.shape) for one in maps] == [(1, 1, 4, 6), (1, 1, 8, 12), (1, 1, 16, 24), (1, 1, 32, 48)]
    assert all(((one > 0) & (one < 1)).all() for one in maps)
    before = network(image)
    with torch.no_grad():
        for gate in network.gates:
            gate.score.bias.fill_(-100)  # every map 0: the skips don't count
    assert not torch.allclose(before, network(image))


real = pytest.mark.skipif(not REAL.is_dir(), reason="the real patient isn't on this machine")


@pytest.fixture(scope="module")
def patient_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real patient three times under BraTS's names, to train, validate and test: no result is claimed."""
    folder = tmp_path_factory.mktemp("real")
    names = {"flair": "flair", "t1": "t1", "t1ce": "t1ce", "t2": "t2", "seg": "seg-autofused"}
    for number in (1, 2, 3):
        name = f"BraTS20_Training_{number:03d}"
        (folder / name).mkdir()
        for role, source in names.items():
            shutil.copy(REAL / f"TCGA-FG-6692_{source}.nii.gz", folder / name / f"{name}_{role}.nii.gz")
    return folder


@real
@pytest.mark.slow
def test_a_real_patient_from_files_to_files(patient_dir: Path, tmp_path: Path, brainmri: Brainmri) -> None:
    assert brain_tumors.verify(patient_dir) == []
    where = ("--dataset_dir", patient_dir, "--output_dir", "run", "--roi_size", "[64,64,64]")
    small = ("--network_def#channels", "[8,16,32,64,64]")
    result = brainmri("train", "brats_mri_tumor", *where, *small, "--max_epochs", 3, "--val_interval", 3, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    result = brainmri("infer", "brats_mri_tumor", *where, *small, "--output_codes", "brats", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "not a medical device" in result.stdout
    (path,) = (tmp_path / "run/segmentations").glob("*.nii.gz")
    segmentation, scan = nibabel.load(path), nibabel.load(REAL / "TCGA-FG-6692_flair.nii.gz")
    assert segmentation.shape == scan.shape == (149, 175, 134)
    np.testing.assert_allclose(segmentation.affine, scan.affine)
    assert set(np.unique(segmentation.dataobj)) <= set(brats.CODES)


@real
def test_the_tutorials_crop_on_a_real_patient(patient_dir: Path) -> None:
    """Every sub-volume of 96x96x16 has its 5%. At 160x160x16 this small tumor fills 3.93% at best, counted."""
    files = config_files("brats_mri_tumor", "train.json", "recipes/tutorial.json")
    item, crops = brain_tumors.datalist(patient_dir, "training")[0], {}
    for size in ([96, 96, 16], [160, 160, 16]):
        parser = ConfigParser(ConfigParser.load_config_files(files))
        parser.update(
            {"dataset_dir": str(patient_dir), "samples_per_volume": 1, "roi_size": size, "otherwise": "raise"}
        )
        if not crops:
            for step in parser.get_parsed_content("train#deterministic_transforms"):
                item = step(item)
        crops[size[0]] = Compose(parser.get_parsed_content("crop"))
    assert item["image"].mean((1, 2)).abs().max() < 1e-3  # each channel and slice by itself
    for seed in range(20):
        (sample,) = crops[96].set_random_state(seed=seed)(item)
        assert sample["image"].shape == (4, 96, 96, 16)
        assert (sample["label"] > 0).double().mean() >= 0.05
    with pytest.raises(RuntimeError) as caught:
        crops[160](item)
    assert re.search(r"none of 1000 sub-volumes .* \(the best 3\.[0-9]%\)", str(find_cause(caught.value)))


def test_evaluation_of_patches_and_of_regions(brain_tumors_dir: Path, tmp_path: Path) -> None:
    where = {"dataset_dir": str(brain_tumors_dir), "output_dir": str(tmp_path / "out"), "roi_size": [32, 32, 32]}
    files = config_files("brats_mri_tumor", "train.json", "recipes/regions.json")
    run("training", files, **where, samples_per_volume=1, max_epochs=1, val_interval=1)
    scored = [*files, *config_files("brats_mri_tumor", "evaluate.json")]
    run("evaluating", scored, **where, samples_per_volume=3, patches=True)
    scores = pandas.read_csv(tmp_path / "out/evaluation/scores.csv")
    assert scores["label"].tolist() == ["NCR", "ED", "ET", "TC", "WT"] * 3  # three sub-volumes of one patient
    assert list(scores.columns) == ["subject", "label", "dice", "hausdorff95_mm", "sensitivity", "specificity"]
    infer = config_files("brats_mri_tumor", "inference.json", "recipes/regions.json")
    run("inferring", infer, **where)
    (path,) = (tmp_path / "out/segmentations").glob("*.nii.gz")
    assert set(np.unique(nibabel.load(path).dataobj)) <= {0, 1, 2, 3}
    inferer = ConfigParser(ConfigParser.load_config_files(infer)).get_parsed_content("inferer")
    assert inferer.background_channel is None


def test_regions_cannot_leave_voxels_out(msd_dir: Path, tmp_path: Path) -> None:
    """Refused as soon as the recipe is read, where Task01's dataset.json names the label ignore."""
    content = json.loads((msd_dir / "dataset.json").read_text())
    files = config_files("brats_mri_tumor", "train.json", "recipes/regions.json")
    for labels in (content["labels"], content["labels"] | {"4": "ignore"}):
        (tmp_path / "dataset.json").write_text(json.dumps(content | {"labels": labels}))
        parser = StrictWorkflow(files, dataset_dir=str(tmp_path), logging_file=False).parser
        if "4" not in labels:
            assert len(parser.get_parsed_content("targets")) == 1
            continue
        with pytest.raises(Exception, match="LabelsToRegionsd") as caught:  # MONAI wraps what it instantiates
            parser.get_parsed_content("targets")
        error = find_cause(caught.value)
        assert type(error) is ConfigError
        assert str(error) == (
            'The recipe regions cannot leave out voxels with the label "ignore". Train without this recipe.'
        )


def test_a_packed_recipe_keeps_its_preprocessing(brain_tumors_dir: Path, tmp_path: Path) -> None:
    where = {"dataset_dir": str(brain_tumors_dir), "output_dir": str(tmp_path / "out"), "roi_size": [32, 32, 32]}
    files = config_files("brats_mri_tumor", "train.json", "recipes/regions.json")
    run("training", files, **where, samples_per_volume=1, max_epochs=1, val_interval=1)
    packed = cli.pack("brats_mri_tumor", output_dir=where["output_dir"], recipe="regions", roi_size=[32, 32, 32])
    with zipfile.ZipFile(packed) as archive:
        config = json.loads(archive.read("brats_mri_tumor_segmentation/configs/inference.json"))
    assert ConfigParser(config).get_parsed_content("network_def#out_channels") == 3
    assert config["to_labels"][0]["_target_"] == "custom.transforms.RegionsToLabelsd"
    assert config["background_channel"] is None
    assert config["roi_size"] == [32, 32, 32]
    assert "targets" not in config  # what only a training reads


@pytest.mark.slow
@pytest.mark.thorough
def test_the_simulated_tumor_is_found(brainmri: Brainmri, tmp_path: Path) -> None:
    """Whole-tumor Dice on held-out samples, after a training of about a minute."""
    assert brainmri("sample", "brats", "data", "--spacing", 4, "--labelled", 10, cwd=tmp_path).returncode == 0
    where = ("--dataset_dir", "data", "--output_dir", "run", "--roi_size", "[48,48,48]")
    result = brainmri("train", "brats_mri_tumor", *where, "--max_epochs", 24, "--val_interval", 12, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert brainmri("evaluate", "brats_mri_tumor", *where, cwd=tmp_path).returncode == 0
    scores = pandas.read_csv(tmp_path / "run/evaluation/scores.csv")
    whole = scores[scores["label"] == "WT"]["dice"]
    assert len(whole) == 2
    assert whole.mean() >= 0.8


def test_flair_threshold_by_hand() -> None:
    """Tumor from 2 on in training, one healthy voxel of 3: 2 takes all 4 tumor voxels and 1 wrong, Dice 8/9."""
    train = {"image": [[-1.0, 0.5, 3, 2, 2.5, 3, 4]], "label": [[0, 0, 0, 1, 1, 2, 3]]}
    test = {"image": [[2.2, 1, 5, -1]], "label": [[1, 1, 0, 0]]}
    items = {
        name: {key: torch.tensor(value) for key, value in one.items()} for name, one in (("a", train), ("b", test))
    }
    threshold, scores = whole_tumor_by_flair(
        [{"subject": "a"}], [{"subject": "b"}], lambda item: items[item["subject"]]
    )
    assert threshold == pytest.approx(0.525)  # the first edge above 0.5: up to 2 all are equally good
    assert scores == {"b": 0.8}  # 2.2, 1 and 5 are above, two of them tumor: 4 / (3 + 2)


def test_baseline_command(brain_tumors_dir: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    result = brainmri("baseline", "brats_mri_tumor", "--dataset_dir", brain_tumors_dir, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert re.search(r"BraTS20_Training_001  0\.\d{3}\nmean  0\.\d{3}, n = 1\. Research use only", result.stdout)
    assert "iseg_mri_tissue_segmentation has no baseline" in brainmri("baseline", "iseg", cwd=tmp_path).stderr
