"""The two brain tumor data sets, their one convention, and what is wrong with a broken copy."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.apps import DecathlonDataset
from monai.transforms import Compose, EnsureChannelFirstd, Orientationd

from custom.datasets import brain_tumors, brats, download
from custom.datasets.split import split_by_participant
from custom.errors import ConfigError, DataError, MissingDataError
from custom.samples import brats as sample
from custom.transforms import EncodeLabelsd, LoadVolumesd
from tests.conftest import Brainmri


@pytest.fixture
def brats_copy(brain_tumors_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(brain_tumors_dir, tmp_path / "brats"))


@pytest.fixture
def msd_copy(msd_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(msd_dir, tmp_path / "msd"))


def case(folder: Path, number: int, role: str) -> Path:
    name = f"BraTS20_Training_{number:03d}"
    return folder / name / f"{name}_{role}.nii.gz"


def test_split_is_by_person_and_covers_everyone() -> None:
    people = [f"p{number}" for number in range(1, 23)] * 2
    for fold in range(5):
        parts = [split_by_participant(people, split, fold, "x") for split in ("training", "validation", "test")]
        assert sorted(one for part in parts for one in part) == sorted(set(people))
        assert parts[2] == ["p1", "p6", "p11", "p16", "p21"]
    assert split_by_participant(people, "validation", 1, "x") == ["p3", "p9", "p15", "p22"]  # of 2 to 5, 7 to 10, ...
    with pytest.raises(MissingDataError, match=r"x has too few participants for the training split"):
        split_by_participant(["a", "b"], "training", 0, "x")
    with pytest.raises(ConfigError, match=r"split must be .* got 'all'"):
        split_by_participant(people, "all", 0, "x")
    with pytest.raises(ConfigError, match=r"fold must be 0 to 4, got 5"):
        split_by_participant(people, "test", 5, "x")


def loaded(dataset_dir: Path) -> dict:
    (item,) = brain_tumors.datalist(dataset_dir, "test")
    both = ["image", "label"]
    chain = [
        LoadVolumesd(keys=both),
        EnsureChannelFirstd(keys=both),
        Orientationd(keys=both, axcodes="RAS", labels=None),
        EncodeLabelsd(keys="label", codes=brain_tumors.codes(dataset_dir)),
    ]
    return Compose(chain)(item)


def test_both_sources_come_out_alike(brain_tumors_dir: Path, msd_dir: Path) -> None:
    """The same simulated patient, as BraTS and as the Decathlon write it: other files, codes and orientation."""
    first, second = loaded(brain_tumors_dir), loaded(msd_dir)
    assert first["image"].shape == (4, 50, 59, 48)
    assert torch.equal(torch.as_tensor(first["image"]), torch.as_tensor(second["image"]))
    assert torch.equal(torch.as_tensor(first["label"]), torch.as_tensor(second["label"]))
    files = nibabel.load(case(brain_tumors_dir, 1, "seg")), nibabel.load(msd_dir / "labelsTr/BRATS_001.nii.gz")
    assert [sorted(np.unique(file.dataobj)) for file in files] == [[0, 1, 2, 4], [0, 1, 2, 3]]
    # Edema is 2 in BraTS's files and 1 in the Decathlon's, and the largest part of this tumor.
    counts = [np.bincount(np.asarray(file.dataobj).ravel()) for file in files]
    assert counts[0][2] == counts[1][1] == int((first["label"] == 2).sum())
    flair, inside = first["image"][0], first["label"][0]
    assert flair[inside == 2].mean() > 1.5 * flair[(inside == 0) & (flair > 0)].mean()  # FLAIR shows edema bright


def test_splits(brain_tumors_dir: Path, msd_dir: Path) -> None:
    for folder, name in ((brain_tumors_dir, "BraTS20_Training_{:03d}"), (msd_dir, "BRATS_{:03d}")):
        found = {
            split: [item["subject"] for item in brain_tumors.datalist(folder, split)]
            for split in ("test", "validation", "training", "unlabelled")
        }
        numbers = {"test": [1], "validation": [2], "training": [3], "unlabelled": [4, 5]}
        assert found == {split: [name.format(number) for number in own] for split, own in numbers.items()}
    assert brats.datalist(brain_tumors_dir, "test")[0]["image"][1].endswith("_t1.nii.gz")


def test_case_355_and_macos_files(brats_copy: Path) -> None:
    case(brats_copy, 2, "seg").rename(case(brats_copy, 2, "seg").with_name("W39_1998.09.19_Segm.nii.gz"))
    (brats_copy / "BraTS20_Training_002/._BraTS20_Training_002_t1.nii.gz").write_bytes(b"x")
    assert brats.verify(brats_copy) == []
    (item,) = brats.datalist(brats_copy, "validation")
    assert item["label"].endswith("W39_1998.09.19_Segm.nii.gz")


def spoil_shape(path: Path) -> None:
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj)[:-1], image.affine), path)


def spoil_code(path: Path) -> None:
    image = nibabel.load(path)
    voxels = np.asarray(image.dataobj).copy()
    voxels[0, 0, 0] = 3
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine), path)


@pytest.mark.parametrize(
    ("role", "spoil", "message"),
    [
        (
            "t1ce",
            Path.unlink,
            r"BraTS20_Training_001 has no t1ce file .* Add BraTS20_Training_001_t1ce.nii.gz, or remove",
        ),
        ("t2", lambda path: path.write_bytes(path.read_bytes()[:200]), r"_001_t2.nii.gz .*(cut short|Copy)"),
        ("flair", lambda path: path.write_bytes(b"no scan"), r"_001_flair\.nii\.gz is a text \('no scan'"),
        ("t1", spoil_shape, r"has the shape .* Resample them to one grid"),
        ("seg", spoil_code, r"_001_seg.nii.gz holds the label codes \[3\], but only \[0, 1, 2, 4\] are known"),
        ("t1", lambda path: shutil.copy(path, path.parents[1] / path.name), r"are the same case's t1\. Keep one"),
    ],
)
def test_a_broken_copy(brats_copy: Path, role: str, spoil: object, message: str, brainmri: Brainmri) -> None:
    spoil(case(brats_copy, 1, role))  # type: ignore[operator]
    (problem,) = brain_tumors.verify(brats_copy)
    assert re.search(message, problem)
    result = brainmri("verify", "brain_tumors", brats_copy, cwd=brats_copy)
    assert result.returncode == 1
    assert problem in result.stdout


def test_a_missing_contrast_stops_training(brats_copy: Path) -> None:
    case(brats_copy, 3, "t2").unlink()
    with pytest.raises(MissingDataError, match=r"BraTS20_Training_003 has no t2 file"):
        brain_tumors.datalist(brats_copy, "training")


def test_another_task_of_the_decathlon(msd_copy: Path) -> None:
    content = json.loads((msd_copy / "dataset.json").read_text())
    swapped = content | {
        "labels": {"0": "background", "1": "non-enhancing tumor", "2": "edema", "3": "enhancing tumour"}
    }
    (msd_copy / "dataset.json").write_text(json.dumps(swapped))
    with pytest.raises(DataError, match=r"not Task01_BrainTumour's .* Give that set's folder"):
        brain_tumors.datalist(msd_copy, "training")
    content["training"][0]["image"] = "./imagesTr/BRATS_999.nii.gz"
    (msd_copy / "dataset.json").write_text(json.dumps(content))
    assert any("BRATS_999.nii.gz does not exist" in problem for problem in brain_tumors.verify(msd_copy))


def test_what_is_not_a_data_set(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"There is no folder .* Register at https://www.med.upenn.edu"):
        brain_tumors.datalist(tmp_path / "none", "test")
    (tmp_path / "readme.txt").write_text("x")
    with pytest.raises(MissingDataError, match=r"holds no file like BraTS20_Training_001_flair.nii.gz"):
        brain_tumors.datalist(tmp_path, "test")
    assert len(brain_tumors.verify(tmp_path)) == 1


def test_output_codes(brain_tumors_dir: Path) -> None:
    assert brain_tumors.output_codes("brats") == brats.CODES
    assert brain_tumors.output_codes("msd") == (0, 2, 1, 3)
    with pytest.raises(ConfigError, match=r"output_codes must be one of \['labels', 'brats', 'msd'\], got 'x'"):
        brain_tumors.output_codes("x")


def test_samples_refuse_what_they_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"spacing must be 1, 2, 3 or 4 mm, got 5"):
        sample.write(tmp_path / "x", spacing=5)
    with pytest.raises(ConfigError, match=r"labelled must be 3 or more"):
        sample.write(tmp_path / "x", labelled=2)
    assert not (tmp_path / "x").exists()


def test_download_says_where_else(brainmri: Brainmri, tmp_path: Path) -> None:
    result = brainmri("download", "brats", "x", cwd=tmp_path)
    assert result.returncode == 1
    assert "cannot download brats. Register at https://www.med.upenn.edu/cbica/brats2020" in result.stderr
    result = brainmri("download", "brast", "x", cwd=tmp_path)
    assert result.returncode == 1
    assert "There is no data set 'brast'. Use one of: msd, brats" in result.stderr
    assert download.TASK in DecathlonDataset.resource.keys() & DecathlonDataset.md5.keys()
