"""`brainmri` as a person types it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pandas
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from custom import cli
from custom.errors import ConfigError
from custom.running.bundles import config_files, find_bundle
from tests.conftest import SMALL_RUN, Brainmri


@pytest.mark.parametrize("part", ["iseg", "iseg_mri", "iseg_mri_tissue_segmentation"])
def test_a_bundle_is_named_by_a_unique_part(part: str) -> None:
    assert find_bundle(part).name == "iseg_mri_tissue_segmentation"


def test_unknown_names() -> None:
    with pytest.raises(
        ConfigError, match=r"'spleen' matches no bundle\. Use a unique part of one of: .*iseg_mri_tissue"
    ):
        find_bundle("spleen")
    with pytest.raises(
        ConfigError, match=r"networks has no file resnet\.json\. Use one of: attention_unet, .*, vnet_light"
    ):
        config_files("iseg", "train.json", "networks/resnet.json")
    with pytest.raises(ConfigError, match=r"There is no data set 'adni'\. Use one of: .*iseg"):
        cli.verify("adni", "x")


def test_training_leaves_what_it_says(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {"model.pt", "model.json", "last.pt", "tensorboard", "run.log"}
    events = EventAccumulator(str(trained / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert set(events.Tags()["scalars"]) == {
        "training/loss",
        "lr/group_0",
        *(f"validation/dice_{name}" for name in ("mean", "CSF", "GM", "WM")),
    }
    assert [event.step for event in events.Scalars("training/loss")] == list(range(1, 15))
    mean, *tissues = (events.Scalars(f"validation/dice_{name}")[-1].value for name in ("mean", "CSF", "GM", "WM"))
    assert mean == pytest.approx(np.mean(tissues), abs=1e-5)
    assert [event.step for event in events.Images("validation/segmentation")] == [1, 2]


def test_the_printed_call_does_the_same(trained: Path, iseg_dir: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    words = ("--dataset_dir", iseg_dir, "--ckpt_path", trained / "model.pt", "--roi_size", "[32,32,32]")
    result = brainmri("infer", "iseg", *words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Research use only, not a medical device." in result.stdout
    made = tmp_path / "runs/iseg_mri_tissue_segmentation/segmentations/subject-1-T1_seg.nii.gz"
    first = np.asarray(nibabel.load(made).dataobj)
    made.unlink()
    (call,) = [line for line in result.stdout.splitlines() if line.startswith("python -m monai.bundle")]
    subprocess.run([sys.executable, *shlex.split(call)[1:]], cwd=tmp_path, check=True, capture_output=True)
    np.testing.assert_array_equal(np.asarray(nibabel.load(made).dataobj), first)


def test_submission_has_the_challenges_codes(trained: Path, iseg_dir: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    words = ("--split", "unlabelled", "--submission", "--ckpt_path", trained / "model.pt", "--roi_size", "[32,32,32]")
    result = brainmri("infer", "iseg", "--dataset_dir", iseg_dir, "--output_dir", "out", *words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    written = sorted((tmp_path / "out/segmentations").iterdir())
    assert [path.name for path in written] == [f"subject-{n}-T1_submission.nii.gz" for n in (11, 12, 13)]
    assert set(np.unique(np.asarray(nibabel.load(written[0]).dataobj))) <= {0, 10, 150, 250}


def test_any_pair_of_files(trained: Path, iseg_dir: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    """Two NIfTI files on a grid of their own: oblique, left-handed, 3D."""
    affine = np.array([[-3.9, 0.3, 0, 90], [0.3, 0, 3.9, -120], [0, 4, 0, -70], [0, 0, 0, 1]])
    for role in ("T1", "T2"):
        scan = np.asarray(nibabel.load(iseg_dir / f"subject-11-{role}.hdr").dataobj)[..., 0]
        nibabel.save(nibabel.Nifti1Image(scan.transpose(0, 2, 1), affine), tmp_path / f"{role.lower()}.nii.gz")
    data = "[{'image': ['t1.nii.gz', 't2.nii.gz']}]"
    words = ("--data", data, "--ckpt_path", trained / "model.pt", "--roi_size", "[32,32,32]", "--output_dir", "out")
    result = brainmri("infer", "iseg", *words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    segmentation = nibabel.load(tmp_path / "out/segmentations/t1_seg.nii.gz")
    assert segmentation.shape == nibabel.load(tmp_path / "t1.nii.gz").shape
    np.testing.assert_allclose(segmentation.affine, affine, atol=1e-5)


def test_quickstart(brainmri: Brainmri, tmp_path: Path) -> None:
    for _ in range(2):
        result = brainmri("quickstart", "q", "--max_epochs", 1, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        summary = json.loads((tmp_path / "q/summary.json").read_text())
        assert summary["shipped_on_mni152"]["GM"] > 0.8
        assert set(summary["dice"]) == set(summary["baseline"]) == {"CSF", "GM", "WM", "mean"}
        assert summary["exported_agreement"] >= 0.9999
        assert all((tmp_path / path).exists() for path in summary["files"].values())
        assert "not a result on the iSeg challenge" in result.stdout
    assert "is trained already" in result.stdout
    assert "subject-1-T1_seg.nii.gz is there already" in result.stdout
    longer = brainmri("quickstart", "q", "--max_epochs", 2, cwd=tmp_path)
    assert "is there already" not in longer.stdout  # new weights, new segmentation; the older one is kept
    assert list((tmp_path / "q/run/segmentations/earlier").glob("*/subject-1-T1_seg.nii.gz"))
    summary = json.loads((tmp_path / "q/summary.json").read_text())
    assert summary["baseline"]["mean"] < 0.7
    scores = pandas.read_csv(tmp_path / "q/run/evaluation/scores.csv").set_index("label")["dice"]
    assert scores.to_dict() == pytest.approx({key: summary["dice"][key] for key in scores.index}, abs=1e-4)


def test_report(trained: Path, iseg_dir: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to(trained)
    words = ("--dataset_dir", iseg_dir, "--output_dir", "run", "--roi_size", "[32,32,32]")
    result = brainmri("report", "iseg", *words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for name in ("curves", "segmentation", "overlay", "feature_maps"):
        assert (trained / "report" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    for name in ("sagittal", "coronal", "axial"):
        assert (trained / "report" / f"{name}.gif").read_bytes().startswith(b"GIF89a")


def test_a_wheel_has_all_it_needs(brainmri: Brainmri, tmp_path: Path) -> None:
    """Built and unpacked elsewhere, as `pip install .` does, and used from another folder."""
    unwanted = shutil.ignore_patterns(".*", "build", "*.egg-info", "quickstart", "runs", "data")
    root = shutil.copytree(Path(__file__).parents[1], tmp_path / "source", ignore=unwanted)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(tmp_path / "site"), str(root)], check=True, capture_output=True, timeout=300)
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    words = ["--dataset_dir", "x", "--max_epochs", "1", *SMALL_RUN]
    for command in (["sample", "iseg", "x", "--spacing", "4"], ["train", "iseg", *words]):
        call = [sys.executable, "-P", "-m", "custom.cli", *command]
        result = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", check=False)
        assert result.returncode == 0, result.stderr
    assert f"{tmp_path}/site/custom/bundles/iseg_mri_tissue_segmentation/configs/train.json" in result.stdout
    assert (tmp_path / "site/custom/bundles/brain_mri_tissue_segmentation/models/model.pt").is_file()
    weights = torch.load(tmp_path / "runs/iseg_mri_tissue_segmentation/model.pt", weights_only=True)
    assert len(weights) > 10
