"""MRBrainS, IXI, and the editions of BraTS: their samples, splits, problems, and the recipe that trains on MRBrainS."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pandas
import pytest
import torch

from custom.datasets import brats, ixi, mrbrains
from custom.errors import ConfigError, DataError
from custom.samples import brats as brats_sample
from custom.samples import ixi as ixi_sample
from custom.samples import mrbrains as mrbrains_sample
from custom.transforms import EncodeLabelsd
from tests.conftest import Brainmri


@pytest.fixture(scope="module")
def mrbrains_2018(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven labelled subjects and two others at 4 mm. Read only."""
    return mrbrains_sample.write(tmp_path_factory.mktemp("sample") / "mrbrains", spacing=4)


@pytest.fixture(scope="module")
def ixi_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five subjects at 4 mm, the last without PD. Read only."""
    return ixi_sample.write(tmp_path_factory.mktemp("sample") / "ixi", subjects=5)


def names(items: list[dict]) -> list[str]:
    return [item["subject"] for item in items]


def test_mrbrains_2018(mrbrains_2018: Path) -> None:
    assert mrbrains.verify(mrbrains_2018) == []
    assert names(mrbrains.datalist(mrbrains_2018, "test")) == ["training/1", "training/070"]
    assert names(mrbrains.datalist(mrbrains_2018, "validation", 1)) == ["training/5"]
    assert names(mrbrains.datalist(mrbrains_2018, "unlabelled")) == ["test/2", "test/3"]
    (item,) = mrbrains.datalist(mrbrains_2018, "validation", 0)
    parts = [
        Path(path).relative_to(mrbrains_2018 / "training/4").as_posix() for path in [*item["image"], item["label"]]
    ]
    assert parts == ["pre/reg_T1.nii.gz", "pre/reg_IR.nii.gz", "pre/FLAIR.nii.gz", "segm.nii.gz"]
    codes = np.unique(nibabel.load(item["label"]).dataobj)
    assert {0, 1, 2, 3, 5, 6, 7, 8} == set(codes)


def test_mrbrains_2013_beside_files_that_are_not_read(mrbrains_2018: Path, tmp_path: Path) -> None:
    """The layout of 2013, of the sample's volumes: other files and the codes for tests stay out."""
    roles = mrbrains_sample.FILES
    for number, old in (("1", "1"), ("2", "4"), ("10", "5")):
        (tmp_path / "TrainingData" / number).mkdir(parents=True)
        for role, name in roles["2013"].items():
            image = nibabel.load(mrbrains_2018 / "training" / old / roles["2018"][role])
            nibabel.save(image, tmp_path / "TrainingData" / number / name)
        for name in ("T1_1mm.nii", "LabelsForTesting.nii"):
            (tmp_path / "TrainingData" / number / name).write_bytes(b"not read")
    assert mrbrains.verify(tmp_path) == []
    assert names(mrbrains.datalist(tmp_path, "test")) == ["TrainingData/1"]
    assert names(mrbrains.datalist(tmp_path, "validation")) == ["TrainingData/2"]
    assert names(mrbrains.datalist(tmp_path, "training")) == ["TrainingData/10"]
    shutil.copytree(mrbrains_2018 / "training", tmp_path / "training")
    with pytest.raises(DataError, match=r"holds MRBrainS 2013 and 2018, .* Give the folder of one of them"):
        mrbrains.datalist(tmp_path, "test")


def test_mrbrains_problems_name_the_file(mrbrains_2018: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(mrbrains_2018, tmp_path / "set"))
    (folder / "training/4/pre/reg_IR.nii.gz").unlink()
    label = folder / "training/7/segm.nii.gz"
    image = nibabel.load(label)
    nibabel.save(nibabel.Nifti1Image(np.full(image.shape, 11, np.uint8), image.affine), label)
    missing, code = mrbrains.verify(folder)
    assert missing.startswith(
        "The subject training/4 has no T1-IR file (only FLAIR.nii.gz, reg_T1.nii.gz, segm.nii.gz)"
    )
    assert "training/7/segm.nii.gz holds the label codes [11], but only [0, 1, 2," in code
    with pytest.raises(DataError, match=r"training/4 has no T1-IR file"):
        mrbrains.datalist(folder, "validation")


def test_ten_codes_become_three_tissues() -> None:
    label = torch.arange(11).reshape(1, 11, 1, 1)
    found = EncodeLabelsd("label", mrbrains.CODES)({"label": label})["label"]
    assert found.flatten().tolist() == [0, 2, 2, 3, 3, 1, 1, 4, 4, 4, 4]
    grouped = EncodeLabelsd("label", (0, (5, 7)), ignore_code=9)({"label": torch.tensor([[0, 7, 5, 9]])})["label"]
    assert grouped.tolist() == [[0, 1, 1, 2]]
    with pytest.raises(DataError, match=r"holds the label codes \[11\]"):
        EncodeLabelsd("label", mrbrains.CODES)({"label": torch.tensor([[11]])})


def test_training_and_evaluation_on_mrbrains(mrbrains_2018: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    """Three channels, and cerebellum and brain stem in no score: a label map of theirs alone changes nothing."""
    small = ("--recipe", "mrbrains", "--dataset_dir", mrbrains_2018, "--output_dir", "run", "--roi_size", "[32,32,32]")
    trained = brainmri("train", "iseg", *small, "--max_epochs", 1, "--val_interval", 1, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    record = json.loads((tmp_path / "run/model.json").read_text())
    assert list(record["channels"]) == ["T1", "T1-IR", "FLAIR"]
    scored = brainmri("evaluate", "iseg", *small, cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
    table = pandas.read_csv(tmp_path / "run/evaluation/scores.csv")
    assert table["subject"].unique().tolist() == ["training/1", "training/070"]
    assert table["label"].unique().tolist() == ["CSF", "GM", "WM"]
    item = mrbrains.datalist(mrbrains_2018, "unlabelled")[0]
    words = ("--recipe", "mrbrains", "--output_dir", "run", "--data", json.dumps([{"image": item["image"]}]))
    inferred = brainmri("infer", "iseg", *words, cwd=tmp_path)
    assert inferred.returncode == 0, inferred.stderr
    (path,) = (tmp_path / "run/segmentations").glob("*.nii.gz")
    assert nibabel.load(path).shape == nibabel.load(item["image"][0]).shape


def test_ixi(ixi_dir: Path) -> None:
    assert ixi.verify(ixi_dir) == []
    assert ixi.LABELS == {}
    everything = ixi.datalist(ixi_dir, "unlabelled")
    assert len(everything) == 14  # the fifth subject has no PD
    assert everything[0] == {
        "subject": "IXI001",
        "contrast": "T1",
        "image": str(ixi_dir / "IXI-T1/IXI001-HH-0101-T1.nii.gz"),
    }
    assert names(ixi.datalist(ixi_dir, "test")) == ["IXI001"] * 3
    assert names(ixi.datalist(ixi_dir, "validation", 0, ("PD",))) == ["IXI002"]
    splits = [set(names(ixi.datalist(ixi_dir, split))) for split in ("training", "validation", "test")]
    assert sum(map(len, splits)) == len(set.union(*splits)) == 5
    t1, t2 = (nibabel.load(path["image"]) for path in everything[:2])
    assert t1.shape == tuple(np.array(t2.shape)[[1, 2, 0]])
    with pytest.raises(ConfigError, match=r"contrasts must be some of \['T1', 'T2', 'PD'\], got 'DTI'"):
        ixi.datalist(ixi_dir, "test", contrasts=("T1", "DTI"))


def test_ixi_problems_name_the_file(ixi_dir: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ixi_dir, tmp_path / "set"))
    shutil.copy(folder / "IXI-T2/IXI001-HH-0101-T2.nii.gz", folder / "IXI001-HH-0101-T2.nii.gz")
    cut = folder / "IXI-PD/IXI002-IOP-0102-PD.nii.gz"
    cut.write_bytes(cut.read_bytes()[:2000])
    twice, short = ixi.verify(folder)
    assert "are the same subject's T2. Keep one." in twice
    assert "IXI002-IOP-0102-PD.nii.gz" in short
    (tmp_path / "other").mkdir()
    (tmp_path / "other/T1.nii").touch()
    with pytest.raises(DataError, match="holds no file like IXI002-Guys-0828-T1"):
        ixi.datalist(tmp_path / "other", "test")


@pytest.mark.parametrize(
    ("edition", "first", "grades", "table"),
    [
        (2018, "Brats18_Sample_1_1", ["HGG", "HGG", "LGG"], "survival_data.csv"),
        (2019, "BraTS19_Sample_1_1", ["HGG", "HGG", "LGG"], "survival_data.csv"),
        (2020, "BraTS20_Training_001", [None, None, None], "survival_info.csv"),
    ],
)
def test_editions_of_brats(edition: int, first: str, grades: list, table: str, tmp_path: Path) -> None:
    folder = brats_sample.write(tmp_path / "set", spacing=4, labelled=3, edition=edition)
    items = [item for split in ("test", "validation", "training") for item in brats.datalist(folder, split)]
    assert items[0]["subject"] == first
    assert [item.get("grade") for item in items] == grades
    assert "grade" not in brats.datalist(folder, "unlabelled")[0]
    assert brats.verify(folder) == []
    rows = pandas.read_csv(folder / table)
    assert rows.iloc[:, 0].tolist() == names(items)
    ml = [np.count_nonzero(nibabel.load(item["label"]).dataobj) * 0.064 for item in items]
    assert rows.iloc[:, 2].rank().tolist() == pandas.Series(ml).rank(ascending=False).tolist()
    assert sorted(rows["Chance_days"]) == sorted(rows.iloc[:, 2])


@pytest.mark.parametrize(
    ("write", "options", "message"),
    [
        (brats_sample.write, {"edition": 2017}, r"edition must be one of \[2018, 2019, 2020\], got 2017"),
        (mrbrains_sample.write, {"edition": 2017}, "edition must be 2013 or 2018, got 2017"),
        (mrbrains_sample.write, {"spacing": 5}, "spacing must be 1, 2, 3 or 4 mm, got 5"),
        (ixi_sample.write, {"subjects": 2}, "subjects must be a whole number of 3 or more, got 2"),
    ],
)
def test_samples_that_cannot_be_written(write, options: dict, message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=message):
        write(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()
