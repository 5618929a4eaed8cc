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
    persons = {name: {msd.participant_of(case["subject"]) for case in cases} for name, cases in splits.items()}
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
    "no dataset.json": (remove("dataset.json"), r"own/dataset\.json does not exist\. The folder needs a dataset\.json"),
    "no labels": (edit(labels=None), r"own/dataset\.json needs \"modality\" or \"channel_names\", and \"labels\""),
    "no JSON": (lambda p: (p / "dataset.json").write_text("{"), r"own/dataset\.json is no JSON text \(.*line 1 column"),
    "deep": (
        lambda p: (p / "dataset.json").write_text("[" * 100_000),
        r"own/dataset\.json is no JSON text \(maximum recursion depth exceeded",
    ),
    "a comment": (lambda p: (p / "dataset.json").write_text("// mine\n{}"), r"own/dataset\.json is no JSON text"),
    "another encoding": (
        lambda p: (p / "dataset.json").write_bytes('{"name": "Läsionen, größer"}'.encode("latin-1")),
        r"own/dataset\.json is no JSON text \('utf-8' codec .*Correct it there, and save it in UTF-8\.",
    ),
    "file gone": (remove("imagesTr/sub-3.nii.gz"), r"imagesTr/sub-3\.nii\.gz does not exist\. Correct its path"),
    "codes with a gap": (edit(labels={"0": "background", "4": "ET"}), r"label codes \[0, 4\]\. Number them 0, 1, 2"),
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
    sentence = "holds the label codes [9], but only [0, 1, 2, 3] are known. Correct the label map."
    assert problem.endswith(f"labelsTr/sub-3.nii.gz {sentence}")


def rename(folder: Path, change: Callable[[str], str]) -> None:
    """Renames every image of imagesTr and imagesTs."""
    for path in folder.glob("images*/*.nii.gz"):
        path.rename(path.with_name(change(path.name)))


def as_version_1(folder: Path) -> None:
    """nnU-Net's version 1: dataset.json lists CASE.nii.gz, the files are CASE_0000.nii.gz."""
    rename(folder, lambda name: name.replace(".nii.gz", "_0000.nii.gz"))


def as_version_1_of_two_channels(folder: Path) -> None:
    as_nnunet(folder)
    cases = ("sub-1", "sub-2", "sub-3", "sub-10")
    listed = [{"image": f"imagesTr/{case}.nii.gz", "label": f"labelsTr/{case}.nii.gz"} for case in cases]
    names = {"0": "background", "1": "CSF", "2": "GM", "3": "WM"}
    content = {"modality": {"0": "T1", "1": "T2"}, "labels": names, "training": listed, "numTraining": 4}
    (folder / "dataset.json").write_text(json.dumps(content | {"test": ["imagesTs/sub-11.nii.gz"]}))


def as_entries(absolute: bool) -> Callable[[Path], None]:
    """nnU-Net's version 2 with "dataset", the files in folders of their own."""

    def change(folder: Path) -> None:
        dataset = {}
        for case in ("sub-1", "sub-2", "sub-3", "sub-10"):
            (folder / case).mkdir()
            (folder / f"imagesTr/{case}.nii.gz").rename(folder / case / "t1.nii.gz")
            (folder / f"labelsTr/{case}.nii.gz").rename(folder / case / "manual.nii.gz")
            start = f"{folder}/" if absolute else "./"
            dataset[case] = {"images": [f"{start}{case}/t1.nii.gz"], "label": f"{start}{case}/manual.nii.gz"}
        rename(folder, lambda name: name.replace(".nii.gz", "_0000.nii.gz"))
        content = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "CSF": 1, "GM": 2, "WM": 3}}
        (folder / "dataset.json").write_text(json.dumps(content | {"dataset": dataset, "file_ending": ".nii.gz"}))

    return change


def with_ending(ending: str, given: str | None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        as_nnunet(folder)
        (folder / "imagesTr/._sub-1_0000.nii.gz").unlink()
        for path in folder.glob("*T[rs]/*.nii.gz"):
            image = nibabel.load(path)
            kind = nibabel.MGHImage if ending == ".mgz" else nibabel.Nifti1Image
            voxels = np.asarray(image.dataobj).copy()
            path.unlink()
            nibabel.save(kind(voxels, image.affine), path.with_name(path.name.replace(".nii.gz", ending)))
        content = json.loads((folder / "dataset.json").read_text()) | {"file_ending": given}
        content = {key: value for key, value in content.items() if value is not None}
        (folder / "dataset.json").write_text(json.dumps(content))

    return change


def with_plain_names(folder: Path) -> None:
    """imagesTr/CASE.nii.gz without a list of the cases."""
    names = {"background": 0, "CSF": 1, "GM": 2, "WM": 3}
    content = {"channel_names": {"0": "T1"}, "labels": names, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content))


def with_encoding(encoding: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "dataset.json").write_text((folder / "dataset.json").read_text(), encoding=encoding)

    return change


def with_windows_paths(folder: Path) -> None:
    content = json.loads((folder / "dataset.json").read_text())
    for entry in content["training"]:
        entry |= {key: path.removeprefix("./").replace("/", "\\") for key, path in entry.items()}
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8-sig")


def with_lists_of_images(folder: Path) -> None:
    as_nnunet(folder)
    cases = ("sub-1", "sub-2", "sub-3", "sub-10")
    listed = [
        {"image": [f"imagesTr/{case}_000{n}.nii.gz" for n in (0, 1)], "label": f"labelsTr/{case}.nii.gz"}
        for case in cases
    ]
    edit(training=listed, test=[{"image": [f"imagesTs/sub-11_000{n}.nii.gz" for n in (0, 1)]}])(folder)


FORMS: dict[str, tuple[Callable[[Path], object], int]] = {
    "version 1": (as_version_1, 1),
    "version 1, two channels": (as_version_1_of_two_channels, 2),
    "version 2, entries": (as_entries(absolute=False), 1),
    "version 2, entries with absolute paths": (as_entries(absolute=True), 1),
    "version 2, .nii": (with_ending(".nii", ".nii"), 2),
    "version 2, an ending without its dot": (with_ending(".nii", "nii"), 2),
    "version 2, .mgz": (with_ending(".mgz", ".mgz"), 2),
    "version 2, no ending is named": (with_ending(".nii", None), 2),
    "version 2, one channel without a number": (with_plain_names, 1),
    "lists of images": (with_lists_of_images, 2),
    "UTF-8 with a byte order mark": (with_encoding("utf-8-sig"), 1),
    "UTF-16 with a byte order mark": (with_encoding("utf-16"), 1),
    "UTF-32": (with_encoding("utf-32"), 1),
    "Windows's separators": (with_windows_paths, 1),
}


@pytest.mark.parametrize(("change", "channels"), FORMS.values(), ids=FORMS)
def test_every_form_gives_the_same_cases(change: Callable[[Path], object], channels: int, own_copy: Path) -> None:
    change(own_copy)
    assert msd.verify(own_copy) == []
    assert list(msd.labels(own_copy).values()) == ["background", "CSF", "GM", "WM"]
    for split, subjects in SUBJECTS.items():
        cases = msd.datalist(own_copy, split)
        assert [case["subject"] for case in cases] == subjects
        assert all(len(case["image"]) == channels for case in cases)
        assert all(
            Path(path).is_file()
            for case in cases
            for path in (*case["image"], case.get("label", own_copy / "dataset.json"))
        )


def test_equal_names_in_different_folders(own_copy: Path) -> None:
    """sub-1/t1.nii.gz and sub-2/t1.nii.gz are two subjects."""
    as_entries(absolute=False)(own_copy)
    content = json.loads((own_copy / "dataset.json").read_text())
    content["training"] = [{"image": one["images"][0], "label": one["label"]} for one in content["dataset"].values()]
    del content["dataset"]
    (own_copy / "dataset.json").write_text(json.dumps(content))
    assert [case["subject"] for case in msd.datalist(own_copy, "training")] == ["sub-3/t1", "sub-10/t1"]
    assert [case["subject"] for case in msd.datalist(own_copy, "test")] == ["sub-1/t1"]


def in_version_2(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        as_nnunet(folder)
        edit(**changes)(folder)

    return change


def remove_channel(folder: Path) -> None:
    as_nnunet(folder)
    (folder / "imagesTr/sub-3_0000.nii.gz").unlink()


def remove_all_channels(folder: Path) -> None:
    as_nnunet(folder)
    for n in (0, 1):
        (folder / f"imagesTr/sub-3_000{n}.nii.gz").unlink()


FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "regions": (
        in_version_2(labels={"background": 0, "whole tumor": [1, 2, 3], "core": [2, 3], "enhancing": 3}),
        r"dataset\.json has regions of several codes in \"labels\" \(whole tumor, core\), which .* does not train\. "
        r"Give .*: \"labels\": \{\"background\": 0, \"label 1\": 1, \"label 2\": 2, \"enhancing\": 3\}, and remove",
    ),
    "regions and their order": (
        in_version_2(labels={"background": 0, "a": [1, 2], "b": [2]}, regions_class_order=[1, 2]),
        r"regions of several codes in \"labels\" \(a\).*remove the regions and \"regions_class_order\"\.",
    ),
    "regions and ignore": (
        in_version_2(labels={"background": 0, "a": [1, 2], "b": 2, "ignore": 3}),
        r"\"labels\": \{\"background\": 0, \"label 1\": 1, \"b\": 2, \"ignore\": 3\}",
    ),
    "half a code": (in_version_2(labels={"background": 0, "a": 1.5}), r"the label code 1\.5 is no whole number"),
    "a name as a code": (
        in_version_2(labels={"background": 0, "a": "1_0"}),
        r"the label code '1_0' is no whole number",
    ),
    "half a code in a region": (in_version_2(labels={"background": 0, "a": [1, 1.5]}), r"code 1\.5 is no whole"),
    "background is not 0": (
        in_version_2(labels={"tumor": 0, "Background": 1}),
        r"dataset\.json gives \"background\" another code than 0\. Give it the code 0",
    ),
    "one code twice": (in_version_2(labels={"background": 0, "a": 1, "b": 1}), r"gives the code 1 two names in"),
    "one name twice": (edit(labels={"0": "background", "1": "a", "2": "a"}), r"gives several codes the name 'a' in"),
    "ignore below others": (
        in_version_2(labels={"background": 0, "ignore": 1, "a": 2}),
        r"has the label codes \[0, 2\] \(without \"ignore\"\)\. Number them 0, 1, 2",
    ),
    "an image format": (in_version_2(file_ending=".png"), r"has the \"file_ending\" \.png, which .* does not read"),
    "more channels than names": (
        in_version_2(channel_names={"0": "T1"}),
        r"sub-1_0001\.nii\.gz is channel 1, but .*dataset\.json names only \['T1'\] \(from 0\)",
    ),
    "a channel is missing": (remove_channel, r"imagesTr/sub-3_0000\.nii\.gz"),
    "all channels are missing": (remove_all_channels, r"imagesTr/sub-3_0000\.nii\.gz"),
    "entries of another form": (
        in_version_2(dataset={"a": {"image": "x"}}),
        r"under \"dataset\" in no form that is known",
    ),
    "entries as a list": (in_version_2(dataset=["a"]), r"under \"dataset\" in no form that is known"),
}


@pytest.mark.parametrize(("spoil", "sentence"), FOREIGN.values(), ids=FOREIGN)
def test_what_is_refused_names_its_file(spoil: Callable[[Path], object], sentence: str, own_copy: Path) -> None:
    spoil(own_copy)
    with pytest.raises(DataError, match=sentence):
        msd.datalist(own_copy, "training")
    with pytest.raises(DataError, match=sentence):
        raise DataError(msd.verify(own_copy)[0])


def of_volumes(path: Path, count: int) -> None:
    """Makes the scan an image of several equal volumes."""
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(np.stack([image.get_fdata(dtype=np.float32)] * count, -1), image.affine), path)


@pytest.mark.parametrize(
    ("names", "others", "of_one"),
    [(("T1", "T2"), 2, 3), (("T1", "T2"), 2, 1), (("T1",), 1, 2)],
)
def test_channels_are_counted(names: tuple[str, ...], others: int, of_one: int, own_copy: Path) -> None:
    """All images have a volume for each name but that of sub-3."""
    edit(modality={str(number): name for number, name in enumerate(names)})(own_copy)
    for path in own_copy.glob("images*/*.nii.gz"):
        of_volumes(path, of_one if path.name == "sub-3.nii.gz" else others)
    with pytest.raises(DataError) as refused:
        msd.datalist(own_copy, "training")
    sentence = str(refused.value)
    assert msd.verify(own_copy) == [sentence]
    assert sentence.startswith(f"{own_copy}/imagesTr/sub-3.nii.gz ")
    assert f"{of_one} channels, but {own_copy}/dataset.json names {len(names)}: {', '.join(names)}." in sentence
    assert [case["subject"] for case in msd.datalist(own_copy, "validation")] == ["sub-2"]


def test_splits_and_folds(own_dir: Path) -> None:
    with pytest.raises(ConfigError, match=r"split must be .* got 'all'"):
        msd.datalist(own_dir, "all")
    with pytest.raises(ConfigError, match=r"fold must be 0 to 4, got 7"):
        msd.datalist(own_dir, "training", 7)
    with pytest.raises(DataError, match=r"too few participants for the validation split\. At least three are needed"):
        msd.datalist(own_dir, "validation", 4)
