"""Folders with a dataset.json, MSD's form and nnU-Net's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from custom.datasets import msd
from custom.errors import ConfigError, DataError

SUBJECTS = {"test": ["sub-1"], "validation": ["sub-2"], "training": ["sub-3", "sub-10"], "unlabelled": ["sub-11"]}


@pytest.fixture
def own_copy(own_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(own_dir, tmp_path / "own"))


def as_nnunet(folder: Path) -> Path:
    """The same cases in nnU-Net's form, with two channels."""
    for path in [*folder.glob("images*/*.nii.gz")]:
        name = path.name.removesuffix(".nii.gz")
        shutil.copy(path, path.with_name(f"{name}_0001.nii.gz"))
        path.rename(path.with_name(f"{name}_0000.nii.gz"))
    (folder / "imagesTr/._sub-1_0000.nii.gz").write_bytes(b"macOS")
    content = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "CSF": 1, "GM": 2, "WM": 3},
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_msds_form(own_dir: Path) -> None:
    assert msd.labels(own_dir) == {0: "background", 1: "CSF", 2: "GM", 3: "WM"}
    assert msd.channels(own_dir) == ("T1w",)
    for split, subjects in SUBJECTS.items():
        cases = msd.datalist(own_dir, split)
        assert [case["subject"] for case in cases] == subjects
        assert all(len(case["image"]) == 1 and ("label" in case) == (split != "unlabelled") for case in cases)
    assert msd.verify(own_dir) == []


def test_no_unlabelled_cases(own_copy: Path) -> None:
    edit(test=[])(own_copy)
    assert msd.verify(own_copy) == []
    with pytest.raises(DataError, match="no case without a label"):
        msd.datalist(own_copy, "unlabelled")


def test_nnunets_form(own_copy: Path) -> None:
    folder = as_nnunet(own_copy)
    assert msd.labels(folder) == {0: "background", 1: "CSF", 2: "GM", 3: "WM"}
    assert msd.channels(folder) == ("T1", "T2")
    for split, subjects in SUBJECTS.items():
        cases = msd.datalist(folder, split)
        assert [case["subject"] for case in cases] == subjects
        assert [Path(path).name for path in cases[0]["image"]] == [f"{subjects[0]}_000{n}.nii.gz" for n in (0, 1)]
    assert msd.verify(folder) == []


@pytest.mark.parametrize("fold", range(5))
def test_no_person_is_in_two_splits(fold: int, own_copy: Path) -> None:
    """Two sessions of each of twelve persons."""
    for name in ("imagesTr", "labelsTr"):
        original = own_copy / name / "sub-1.nii.gz"
        for person in range(1, 13):
            for session in (1, 2):
                shutil.copy(original, own_copy / name / f"sub-{person:02d}_ses-{session}.nii.gz")
    names = [f"sub-{person:02d}_ses-{session}.nii.gz" for person in range(1, 13) for session in (1, 2)]
    content = json.loads((own_copy / "dataset.json").read_text())
    content["training"] = [{"image": f"imagesTr/{name}", "label": f"labelsTr/{name}"} for name in names]
    (own_copy / "dataset.json").write_text(json.dumps(content))
    splits = {name: msd.datalist(own_copy, name, fold) for name in ("training", "validation", "test")}
    persons = {name: {msd.person(case["subject"]) for case in cases} for name, cases in splits.items()}
    assert sum(map(len, persons.values())) == len(set.union(*persons.values())) == 12
    assert sum(map(len, splits.values())) == 24
    assert len(persons["test"]) == 3
    assert len(persons["validation"]) in (1, 2)


def edit(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / "dataset.json").read_text())
        (folder / "dataset.json").write_text(json.dumps(content | changes))

    return change


def other_grid(folder: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.ones((9, 9, 9), np.uint8), np.eye(4)), folder / "labelsTr/sub-10.nii.gz")


def other_code(folder: Path) -> None:
    image = nibabel.load(folder / "labelsTr/sub-3.nii.gz")
    voxels = np.asarray(image.dataobj).copy()
    voxels[0, 0, 0] = 9
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine), folder / "labelsTr/sub-3.nii.gz")


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no dataset.json": (remove("dataset.json"), r"There is no .*own/dataset\.json: it must hold a dataset\.json"),
    "no labels": (edit(labels=None), r"own/dataset\.json needs \"modality\" or \"channel_names\", and \"labels\""),
    "no JSON": (lambda p: (p / "dataset.json").write_text("{"), r"own/dataset\.json needs .*JSONDecodeError"),
    "file gone": (remove("imagesTr/sub-3.nii.gz"), r"imagesTr/sub-3\.nii\.gz isn't there: put the file back"),
    "codes with a gap": (edit(labels={"0": "background", "4": "ET"}), r"label codes \[0, 4\]: number them 0, 1, 2"),
    "a list of another form": (edit(training=[{"scan": "x"}]), r"lists its cases under \"training\" in no form"),
    "another grid": (other_grid, r"labelsTr/sub-10\.nii\.gz has the shape \(9, 9, 9\) but .*imagesTr/sub-10\.nii\.gz"),
}


@pytest.mark.parametrize(("spoil", "sentence"), BAD.values(), ids=BAD)
def test_bad_folders(spoil: Callable[[Path], object], sentence: str, own_copy: Path) -> None:
    spoil(own_copy)
    with pytest.raises(DataError, match=sentence):
        msd.datalist(own_copy, "training")
    (problem,) = msd.verify(own_copy)
    assert "\n" not in problem


def test_a_label_that_dataset_json_does_not_name(own_copy: Path) -> None:
    other_code(own_copy)
    (problem,) = msd.verify(own_copy)
    sentence = "holds the label codes [9], of [0, 1, 2, 3] that are known: correct the label map."
    assert problem.endswith(f"labelsTr/sub-3.nii.gz {sentence}")


def test_splits_and_folds(own_dir: Path) -> None:
    with pytest.raises(ConfigError, match=r"split must be .* got 'all'"):
        msd.datalist(own_dir, "all")
    with pytest.raises(ConfigError, match=r"fold must be 0 to 4, got 7"):
        msd.datalist(own_dir, "training", 7)
    with pytest.raises(DataError, match=r"too few persons for the validation split: three are the least"):
        msd.datalist(own_dir, "validation", 4)
