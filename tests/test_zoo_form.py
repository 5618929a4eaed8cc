"""Bundles in the form of MONAI's model zoo: the labels of their own inference, in names that can be served."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from monai.data import MetaTensor
from monai.networks.nets import SegResNet
from monai.transforms import Orientation, Spacing
from nibabel.processing import resample_from_to
from scipy.ndimage import gaussian_filter

from custom.commands.bundles import bundle_table
from custom.errors import BrainMRIError, CheckpointError, ConfigError
from custom.running import Predictor
from custom.running.bundles import bundle_root, find_bundles
from custom.running.declared import declared
from custom.running.zoo_form import on_file_grid, smallest_mask
from custom.serving.bundles import ServedBundle, load_bundles
from custom.serving.foreign import check_code
from tests.zoo_bundles import MERGED, SEG_RES_NET, random_spleen, spleen_bundle, tumor_bundle

# as the zoo's own configs make MONAI warn
pytestmark = pytest.mark.filterwarnings("ignore:inverse has been called", "ignore::FutureWarning")
AFFINE = np.array([[-3.9, 0.3, 0, 90], [0.3, 0, 3.9, -120], [0, 4, 0, -70], [0, 0, 0, 1]])  # oblique, left-handed


@pytest.fixture
def scans(tmp_path: Path) -> list[str]:
    """Four scans of (26, 30, 22) voxels of smooth noise, mostly from -100 to 200."""
    draw, paths = np.random.default_rng(0), []
    for channel in range(4):
        noise = gaussian_filter(draw.normal(size=(26, 30, 22)), 2)
        voxels = (50 + 75 * noise / noise.std()).astype(np.float32)
        paths.append(str(tmp_path / f"case_{channel}.nii.gz"))
        nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), paths[-1])
    return paths


def random_tumor(folder: Path) -> Path:
    torch.manual_seed(0)
    network = SegResNet(**SEG_RES_NET)
    with torch.no_grad():
        network.conv_final[-1].conv.bias.copy_(torch.tensor([0.0, 0.3, -0.3]))
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return folder


def own_inference(folder: Path, key: str, data: Any, target: Path) -> np.ndarray:
    """What MONAI itself writes with this bundle."""
    workflow = ConfigWorkflow(
        str(folder / "configs" / "inference.json"), logging_file=False, workflow_type="infer", bundle_root=str(folder)
    )
    more = {"output_dir": str(target), "device": "cpu", "dataloader#num_workers": 0, "evaluator#amp": False}
    workflow.parser.update({key: data, **more})
    workflow.initialize()
    workflow.run()
    (written,) = target.rglob("*.nii.gz")
    return np.squeeze(np.asarray(nibabel.load(written).dataobj))


def test_four_channels_and_merged_masks(scans: list[str], tmp_path: Path) -> None:
    folder = random_tumor(tumor_bundle(tmp_path / "brats_mri_segmentation"))
    predictor = Predictor([str(folder / "configs" / "inference.json")], device="cpu")
    assert predictor.labels == dict(enumerate(["background", *MERGED]))
    result = predictor.predict(scans)
    written = own_inference(folder, "test_datalist", [{"image": scans}], tmp_path / "own")
    assert set(np.unique(written)) == {0, 1, 2, 4}
    expected = np.select([written == 1, written == 2, written == 4], [1, 2, 3])  # codes without gaps, as DICOM numbers
    np.testing.assert_array_equal(result["pred"], expected)
    np.testing.assert_allclose(result["affine"], AFFINE, atol=1e-4)


def test_a_resampled_scan_and_exclusive_classes(scans: list[str], tmp_path: Path) -> None:
    folder = random_spleen(spleen_bundle(tmp_path / "spleen_ct_segmentation"))
    predictor = Predictor([str(folder / "configs" / "inference.json")], device="cpu")
    assert predictor.labels == {0: "background", 1: "spleen"}
    result = predictor.predict(scans[0])
    written = own_inference(folder, "datalist", scans[:1], tmp_path / "own")
    assert 0.01 < written.mean() < 0.99
    np.testing.assert_array_equal(result["pred"], written)
    np.testing.assert_allclose(result["affine"], AFFINE, atol=1e-4)


def test_a_result_on_the_networks_grid_comes_back_to_the_scans(scans: list[str], tmp_path: Path) -> None:
    """Without Invertd, the labels are those of the nearest voxels of what MONAI itself writes."""
    folder = random_spleen(spleen_bundle(tmp_path / "spleen_ct_segmentation"))
    path = folder / "configs" / "inference.json"
    config = json.loads(path.read_text())
    config["postprocessing"]["transforms"].pop(1)
    path.write_text(json.dumps(config))
    result = Predictor([str(path)], device="cpu").predict(scans[0])
    assert result["pred"].shape == (26, 30, 22)
    np.testing.assert_allclose(result["affine"], AFFINE, atol=1e-4)
    own_inference(folder, "datalist", scans[:1], tmp_path / "own")
    (path,) = (tmp_path / "own").rglob("*.nii.gz")
    moved = resample_from_to(nibabel.load(path), nibabel.load(scans[0]), order=0)
    assert nibabel.load(path).shape != (26, 30, 22)
    assert (result["pred"] == np.asarray(moved.dataobj)).mean() > 0.95  # ties, and what lies outside the grid


def test_labels_on_another_grid_are_those_of_the_nearest_voxels() -> None:
    box = np.zeros((1, 26, 30, 22), np.float32)
    box[0, 5:15, 8:20, 6:12] = 1
    scan = MetaTensor(torch.tensor(box), affine=torch.tensor(AFFINE))
    scan.meta |= {"original_affine": AFFINE, "spatial_shape": np.array([26, 30, 22])}
    labels = Spacing((5, 5, 5), mode="nearest")(Orientation("RAS", labels=None)(scan))
    there = nibabel.Nifti1Image(np.asarray(labels[0]), np.asarray(labels.affine))
    expected = resample_from_to(there, nibabel.Nifti1Image(box[0], AFFINE), order=0)
    moved = on_file_grid(labels, scan)
    np.testing.assert_array_equal(moved[0], np.asarray(expected.dataobj))
    assert (np.asarray(moved) == box).mean() > 0.99


def test_masks_that_no_step_merges(scans: list[str], tmp_path: Path) -> None:
    folder = random_tumor(tumor_bundle(tmp_path / "masks", merge=None))
    predictor = Predictor([str(folder / "configs" / "inference.json")], device="cpu")
    assert predictor.labels == dict(enumerate(["background", "Tumor core", "Whole tumor", "Enhancing tumor"]))
    assert set(np.unique(predictor.predict(scans)["pred"])) == {0, 1, 2, 3}


def test_a_voxel_belongs_to_the_smallest_mask() -> None:
    core, whole, enhancing = [0, 1, 1, 0, 0], [1, 1, 1, 1, 0], [0, 0, 1, 0, 0]
    masks = torch.tensor([core, whole, enhancing], dtype=torch.float32)[:, :, None, None]
    assert smallest_mask(masks).flatten().tolist() == [2, 1, 3, 2, 0]
    assert smallest_mask(masks * 0).flatten().tolist() == [0] * 5


def served(folder: Path) -> ServedBundle:
    return load_bundles([str(folder)], folder / "no runs", check=lambda bundle: bundle.check(bundle.choose_weights()))[
        folder.name
    ]


def test_what_is_served(tmp_path: Path) -> None:
    tumor = served(random_tumor(tumor_bundle(tmp_path / "brats_mri_segmentation")))
    assert (tumor.channels, tumor.modality, tumor.is_trained) == (("T1ce", "T1", "T2", "FLAIR"), "MR", False)
    assert tumor.labels == {name: code for code, name in enumerate(MERGED, start=1)}
    spleen = served(random_spleen(spleen_bundle(tmp_path / "spleen")))
    assert (spleen.channels, spleen.labels, spleen.modality) == ((None,), {"spleen": 1}, "CT")


def _formats(image: dict[str, Any] | None = None, pred: dict[str, Any] | None = None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "configs" / "metadata.json"
        content = json.loads(path.read_text())
        content["network_data_format"]["inputs"]["image"] |= image or {}
        content["network_data_format"]["outputs"]["pred"] |= pred or {}
        path.write_text(json.dumps(content))

    return change


def _without(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "configs" / "inference.json"
        content = json.loads(path.read_text())
        del content[name]
        path.write_text(json.dumps(content))

    return change


def _merging(function: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "configs" / "inference.json"
        content = json.loads(path.read_text())
        content["postprocessing"]["transforms"][3]["func"] = function
        path.write_text(json.dumps(content))

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_formats(pred={"format": "classes"}), "gives no label maps, but classes"),
        (_formats(image={"channel_def": {"1": "T1"}}), "does not declare the channels"),
        (_formats(image={"spatial_shape": [64, 64]}), "takes images of 2 axes"),
        (_formats(image={"channel_def": {"0": "T1", "1": "ADC"}}), "'ADC' names no MR contrast"),
        (_formats(image={"channel_def": {"0": "T1", "1": "T1w"}}), "Two of its channels are T1"),
        (_formats(pred={"channel_def": {"0": "a", "1": "a"}}), "gives two labels one name"),
        (_formats(image={"spatial_shape": None}), "takes images of 0 axes"),
        (
            _formats(pred={"channel_def": {"0": "long " * 20 + "A", "1": "long " * 20 + "B", "2": "C"}}),
            "Two values of the bundle's result have the same name",  # after the cut to DICOM's 64 letters
        ),
        (_merging("$lambda x: 1 - x[[1]]"), "stands for no mask"),
        (_merging("$lambda x: x.unknown"), "cannot be read"),
        (_merging("$lambda x: x[:2]"), "become an array of (2, 8, 1, 1)"),
        (_without("inferer"), "has no inferer"),
        (lambda folder: (folder / "configs" / "inference.json").unlink(), "has no configs/inference.json"),
        (lambda folder: (folder / "configs" / "metadata.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "models" / "model.pt").unlink(), "has no weights"),
    ],
)
def test_why_a_bundle_is_not_served(change: Callable[[Path], None], sentence: str, tmp_path: Path) -> None:
    folder = random_tumor(tumor_bundle(tmp_path / "some_bundle"))
    change(folder)
    with pytest.raises(BrainMRIError) as caught:
        served(folder)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("content", [None, 1, "x", [], True])
def test_metadata_of_other_types(content: Any, tmp_path: Path) -> None:
    """A sentence, so that such a bundle on the path stops no other."""
    folder = tumor_bundle(tmp_path / "some_bundle")
    path = folder / "configs" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"network_data_format": content}))
    with pytest.raises(ConfigError, match="gives no label maps, but another output"):
        declared(folder)


def test_weights_of_another_network(tmp_path: Path) -> None:
    folder = random_tumor(tumor_bundle(tmp_path / "some_bundle"))
    random_spleen(folder)
    with pytest.raises(CheckpointError, match="another network's weights"):
        served(folder)


def test_two_bundles_with_code_of_one_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Python keeps one module of each name: the second bundle would run the code of the first one."""
    folders = {name: tumor_bundle(tmp_path / name) for name in ("one", "two")}
    (folders["one"] / "scripts").mkdir()
    (folders["one"] / "scripts" / "networks.py").touch()
    check_code(folders)
    assert "one brings Python code of its own, which this server runs: scripts" in caplog.text
    (folders["two"] / "scripts").mkdir()
    (folders["two"] / "scripts" / "losses.py").touch()
    with pytest.raises(ConfigError, match="one and two both bring Python code in scripts"):
        check_code(folders)


def test_nothing_runs_when_a_bundle_is_read(tmp_path: Path) -> None:
    folder = tumor_bundle(tmp_path / "some_bundle")
    path = folder / "configs" / "inference.json"
    mark = tmp_path / "it ran"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"imports": [f"$__import__('pathlib').Path({str(mark)!r}).touch()"]})
    )
    assert declared(folder).channels == ("T1c", "T1", "T2", "FLAIR")
    assert bundle_table([str(folder)], tmp_path).splitlines()[2].startswith("some_bundle  no ")
    assert not mark.exists()


def test_the_table_of_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for change, name in ((random_tumor, "with_weights"), (lambda folder: folder, "without")):
        change(tumor_bundle(tmp_path / "zoo" / name))
    _formats(pred={"format": "classes"})(spleen_bundle(tmp_path / "zoo" / "classes"))
    rows = {line.split()[0]: line for line in bundle_table([str(tmp_path / "zoo")], tmp_path / "runs").splitlines()[2:]}
    assert list(rows) == ["classes", "with_weights", "without"]
    assert " yes " in rows["with_weights"]
    assert "T1c, T1, T2, FLAIR" in rows["with_weights"]
    assert "shipped" in rows["with_weights"]
    assert "no weights" in rows["without"]
    assert "gives no label maps, but classes" in rows["classes"]
    own = bundle_table([], tmp_path / "runs").splitlines()
    (tissue,) = (line for line in own if line.startswith("brain_mri_tissue_segmentation "))
    (images,) = (line for line in own if line.startswith("brain_mri_tumor_classification "))
    assert " yes " in tissue
    assert "classification" in images.split(" no ")[1]
    assert bundle_table(["brain_mri_tissue"], tmp_path / "runs").splitlines()[2].split() == tissue.split()
    with pytest.raises(ConfigError, match="matches no bundle"):
        bundle_table(["unknown"], tmp_path)
    with pytest.raises(ConfigError, match="holds no bundle"):
        bundle_table([str(tmp_path / "zoo" / "without" / "models")], tmp_path)


def test_a_broken_bundle_on_the_path_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/metadata.json").write_text("{broken")
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "brain_mri_tissue_segmentation"
    assert bundle_root(name) == str(find_bundles()[name])
