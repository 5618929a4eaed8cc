"""custom.running.Predictor: the same labels as a bundle's own inference.json, weights loaded once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, create_workflow

from custom.errors import ConfigError
from custom.running import Predictor, StrictWorkflow
from custom.running.bundles import channels_of, config_files, find_bundle, labels_of, read_metadata

SMALL_UNET = {"network_def#channels": [4, 8, 8], "network_def#strides": [2, 2], "roi_size": [32, 32, 32]}
TUMOR = ("NCR", "ED", "ET")
MASKS = ("brats_mri_tumor regions", "brats_mri_slice")
CASES = {
    "iseg": ([], SMALL_UNET, ["CSF", "GM", "WM"]),
    "brats_mri_tumor": ([], SMALL_UNET, [*TUMOR]),
    "brats_mri_tumor regions": (["recipes/regions.json"], SMALL_UNET, [*TUMOR]),
    "brats_mri_slice": ([], {"network_def#n_filters": 4, "roi_size": [48, 48]}, [*TUMOR]),
}


@pytest.fixture
def images(tmp_path: Path) -> list[list[Path]]:
    """Two images of four channels on an oblique, left-handed grid of (26, 30, 22) voxels with a border of zeros."""
    affine = np.array([[-3.9, 0.3, 0, 90], [0.3, 0, 3.9, -120], [0, 4, 0, -70], [0, 0, 0, 1]])
    draw, paths = np.random.default_rng(0), []
    for number in range(2):
        for channel in range(4):
            voxels = np.zeros((26, 30, 22), np.float32)
            voxels[3:-3, 3:-3, 3:-3] = draw.uniform(1, 100, (20, 24, 16))
            paths.append(tmp_path / f"{number}_{channel}.nii.gz")
            nibabel.save(nibabel.Nifti1Image(voxels, affine), paths[-1])
    return [paths[:4], paths[4:]]


def random_weights(files: list[str], settings: dict[str, Any], path: Path) -> Path:
    parser = ConfigParser(ConfigParser.load_config_files(files))
    parser.update(settings)
    torch.manual_seed(3)
    network = parser.get_parsed_content("network_def")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # fresh weights alone give one label everywhere
    torch.save(network.state_dict(), path)
    return path


@pytest.mark.parametrize("case", CASES)
def test_the_labels_are_those_of_the_bundles_own_inference(case: str, images: list[list[Path]], tmp_path: Path) -> None:
    mixins, settings, names = CASES[case]
    files = config_files(case.split()[0], "inference.json", *mixins)
    settings = settings | {"ckpt_path": str(random_weights(files, settings, tmp_path / "model.pt")), "device": "cpu"}
    paths = [[str(path) for path in (image[:2] if case == "iseg" else image)] for image in images]
    workflow = create_workflow(
        workflow_name=StrictWorkflow,
        config_file=files,
        run_id="inferring",
        data=[{"image": image} for image in paths],
        output_dir=str(tmp_path / "out"),
        **settings,
    )
    workflow.run()
    predictor = Predictor(files, **settings)
    assert predictor.labels == dict(enumerate(["background", *names]))
    outputs: list[torch.Tensor] = []
    for image in paths:
        item = predictor.predict(image, on_logits=outputs.append)
        written = nibabel.load(tmp_path / f"out/segmentations/{Path(image[0]).name.split('.')[0]}_seg.nii.gz")
        assert len(np.unique(item["pred"])) > 1 or case == "brats_mri_slice"  # random weights give one label
        assert item["pred"].dtype == np.uint8
        np.testing.assert_array_equal(item["pred"], np.asarray(written.dataobj))
        np.testing.assert_allclose(item["affine"], written.affine, atol=1e-5)
        np.testing.assert_allclose(item["affine"], nibabel.load(image[0]).affine, atol=1e-4)
    assert [tuple(logits.shape[:2]) for logits in outputs] == [(1, 3 if case in MASKS else 4)] * 2
    assert not (tmp_path / "out/segmentations/earlier").exists()  # predictors write nothing


def test_a_classifier_has_no_label_maps(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"hcp_mri_classification gives no label maps\. Use brainmri infer for it\."):
        Predictor(config_files("hcp", "inference.json"))


def test_what_metadata_declares() -> None:
    metadata = {name: read_metadata(find_bundle(name)) for name in ("iseg", "brats_mri_slice", "brain_mri_tissue")}
    assert labels_of(metadata["iseg"]) == {0: "background", 1: "CSF", 2: "GM", 3: "WM"}
    assert labels_of(metadata["brats_mri_slice"]) == {0: "background", 1: "NCR", 2: "ED", 3: "ET"}  # masks
    assert labels_of(metadata["brain_mri_tissue"]) == {0: "background", 1: "CSF", 2: "GM", 3: "WM"}
    assert channels_of(metadata["iseg"]) == ("T1w", "T2w")
