"""Label maps as other programs write them: `verify` and training agree about every file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.handlers import from_engine
from monai.transforms import Compose, EnsureChannelFirstd, FgBgToIndicesd

from custom.datasets import msd
from custom.errors import DataError
from custom.handlers import SegmentationScores
from custom.losses import MergedClasses, MultiClassDiceCELoss, MultiClassDiceLoss
from custom.metrics import LabelDice
from custom.planning.decide import decide
from custom.planning.memory import Machine
from custom.planning.write_bundle import write_bundle
from custom.reading.labels import LabelCodes, whole_codes
from custom.reports import of_run
from custom.running.bundles import channels_of_run, config_files, labels_of_run
from custom.transforms import (
    EncodeLabelsd,
    LabelIndicesd,
    LabelsToRegionsd,
    LoadVolumesd,
    MaskIgnoredd,
    RandCropWithEnoughd,
)
from tests.own_folders import fingerprint

SHAPE = (4, 5, 6)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
NAMES = {"0": "background", "1": "CSF", "2": "GM"}
LABEL = np.zeros(SHAPE, dtype=np.uint8)
LABEL[1:3, 1:4, 1:5] = 1
LABEL[2, 2, 2:4] = 2


def write(folder: Path, label: Any, labels: dict[str, Any] | None = None) -> Path:
    """Three subjects; `label` (voxels or an image) is the label map of the training subject, sub-3."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    scan = np.random.default_rng(0).normal(100, 5, SHAPE).astype(np.float32)
    for n in (1, 2, 3):
        nibabel.save(nibabel.Nifti1Image(scan, AFFINE), folder / f"imagesTr/sub-{n}.nii.gz")
        given = label if n == 3 else LABEL
        image = given if isinstance(given, nibabel.Nifti1Image) else nibabel.Nifti1Image(given, AFFINE)
        nibabel.save(image, folder / f"labelsTr/sub-{n}.nii.gz")
    content = {
        "modality": {"0": "T1w"},
        "labels": NAMES if labels is None else labels,
        "training": [{"image": f"imagesTr/sub-{n}.nii.gz", "label": f"labelsTr/sub-{n}.nii.gz"} for n in (1, 2, 3)],
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def load(folder: Path) -> np.ndarray:
    """The training subject's label map, as the bundles load it."""
    (item,) = msd.datalist(folder, "training")
    codes = tuple(msd.labels(folder))
    item = EnsureChannelFirstd(["image", "label"])(LoadVolumesd(["image", "label"])(item))
    encode = EncodeLabelsd("label", codes, ignore_code=msd.ignore_code(folder))
    return np.asarray(encode(item)["label"])


def with_slope(slope: float) -> nibabel.Nifti1Image:
    image = nibabel.Nifti1Image(np.round(LABEL / slope).astype(np.int16), AFFINE)
    image.header.set_slope_inter(slope, 0)
    return image


def changed(*edits: tuple[Any, float], dtype: Any = np.float32) -> np.ndarray:
    voxels = LABEL.astype(dtype)
    for place, value in edits:
        voxels[place] = value
    return voxels


IGNORE = {"background": 0, "CSF": 1, "GM": 2, "ignore": 3}
FINE: dict[str, tuple[Any, dict[str, Any] | None, np.ndarray]] = {
    "plain": (LABEL, None, LABEL),
    "two axes of 1": (LABEL[..., None, None], None, LABEL),
    "an axis of 1, float64": (LABEL[..., None].astype(np.float64), None, LABEL),
    "a little above": (LABEL * np.float32(1.0004), None, LABEL),
    "a little below": (LABEL - 0.0009 * (LABEL > 0), None, LABEL),
    "a little negative": (changed(((0, 0, 0), -0.0005)), None, LABEL),
    "a scale factor": (with_slope(2 / 3001), None, LABEL),
    "empty": (np.zeros_like(LABEL), None, np.zeros_like(LABEL)),
    "empty, float, an axis of 1": (np.zeros((*SHAPE, 1), np.float32), None, np.zeros_like(LABEL)),
    "ignore": (changed((0, 3), dtype=np.uint8), IGNORE, changed((0, 3), dtype=np.uint8)),
    "ignore, MSD's form": (changed((0, 3)), NAMES | {"3": "Ignore"}, changed((0, 3), dtype=np.uint8)),
    "ignore, 255": (changed((0, 255)), {"background": 0, "CSF": 1, "GM": 2, "ignore": 255}, changed((0, 3))),
    "ignore, -1": (changed((0, -1)), {"background": 0, "CSF": 1, "GM": 2, "ignore": -1}, changed((0, 3))),
    "ignore, 0.9996 of it": (changed((0, 2.9996)), IGNORE, changed((0, 3))),
    "labels as lists of one code": (LABEL, {"background": 0, "CSF": [1], "GM": [2]}, LABEL),
}


@pytest.mark.parametrize(("label", "labels", "expected"), FINE.values(), ids=FINE)
def test_good_label_maps(label: Any, labels: dict[str, Any] | None, expected: np.ndarray, tmp_path: Path) -> None:
    folder = write(tmp_path / "d", label, labels)
    assert msd.verify(folder) == []
    loaded = load(folder)
    assert loaded.dtype == np.uint8
    np.testing.assert_array_equal(loaded, expected[None])


COLOUR = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
BAD: dict[str, tuple[Any, dict[str, Any] | None, str]] = {
    "two volumes": (np.stack([LABEL, LABEL], -1), None, r"has the shape 4x5x6x2, but a label map is one 3D volume"),
    "probabilities": (LABEL * np.float32(0.4), None, r"holds the value 0\.4, which is no whole number"),
    "0.002 away": (changed(((1, 1, 1), 1.002)), None, r"holds the value 1\.002, which is no whole number"),
    "an unknown code": (
        changed((0, 7), dtype=np.uint8),
        None,
        r"holds the label codes \[7\], but only \[0, 1, 2\] are",
    ),
    "a negative code": (changed((0, -2)), None, r"holds the label codes \[-2\], but only \[0, 1, 2\] are known"),
    "many unknown codes": (
        np.arange(120).reshape(SHAPE).astype(np.uint8),
        None,
        r"holds the label codes \[3, 4, 5, 6, 7, 8, 9, 10, 11, 12\] and 107 more, but only \[0, 1, 2\]",
    ),
    "ignore has another code": (
        changed((0, 4)),
        IGNORE,
        r"holds the label codes \[4\], but only \[0, 1, 2, 3\] are known",
    ),
    "all ignored": (np.full(SHAPE, 3, np.uint8), IGNORE, r'holds only the code 3 of "ignore"'),
    "NaN": (changed((0, np.nan)), None, r"has 30 voxels that are NaN or infinite\. Export the label map"),
    "infinite": (changed(((0, 0), np.inf)), None, r"has 6 voxels that are NaN or infinite"),
    "complex": (LABEL.astype(np.complex64), None, r"holds values of the type complex64"),
    "colour": (nibabel.Nifti1Image(COLOUR, AFFINE), None, r"holds values of the type \["),
    "huge": (changed((0, 3e10)), None, r"holds the value 3e\+10, which is no label code"),
}


@pytest.mark.parametrize(("label", "labels", "sentence"), BAD.values(), ids=BAD)
def test_bad_label_maps_are_refused_alike(
    label: Any, labels: dict[str, Any] | None, sentence: str, tmp_path: Path
) -> None:
    folder = write(tmp_path / "d", label, labels)
    (problem,) = msd.verify(folder)
    with pytest.raises(DataError, match=rf"labelsTr/sub-3\.nii\.gz {sentence}"):
        raise DataError(problem)
    with pytest.raises(DataError, match=rf"labelsTr/sub-3\.nii\.gz {sentence}"):
        load(folder)


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".mhd"])
def test_formats_of_itk(ending: str, tmp_path: Path) -> None:
    """The same voxels and the same place as NIfTI."""
    folder = write(tmp_path / "d", LABEL)
    turned = np.array([[1.8, -0.6, 0, -80], [0.6, 1.8, 0, -96], [0, 0, 3, 7], [0, 0, 0, 1]])
    for path in folder.glob("*Tr/*.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(np.array(nibabel.load(path).dataobj), turned), path)
        pixel = SimpleITK.sitkUInt8 if "labels" in str(path) else SimpleITK.sitkFloat32
        name = path.name.replace(".nii.gz", f"_0000{ending}" if "images" in str(path) else ending)
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(path), pixel), str(path.with_name(name)))
        path.unlink()
    content = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "CSF": 1, "GM": 2}, "file_ending": ending}
    (folder / "dataset.json").write_text(json.dumps(content))
    assert msd.verify(folder) == []
    np.testing.assert_array_equal(load(folder), LABEL[None])
    (item,) = msd.datalist(folder, "training")
    loaded = LoadVolumesd(["image", "label"])(item)
    np.testing.assert_allclose(loaded["image"].affine, turned, atol=1e-4)
    assert loaded["image"].shape == SHAPE
    assert len(np.unique(loaded["image"])) > 100


def test_a_map_that_scans_are_drawn_from_must_not_be_empty(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", np.zeros_like(LABEL))
    item = {"label": str(folder / "labelsTr/sub-3.nii.gz")}
    with pytest.raises(DataError, match=r"sub-3\.nii\.gz holds nothing but zeros\. Export the label map again"):
        LoadVolumesd("label", may_be_empty=False)(item)
    with pytest.raises(DataError, match="holds nothing but zeros"):
        whole_codes(np.zeros(3), LabelCodes((0, 1), may_be_empty=False))


def test_ignored_voxels_change_no_loss() -> None:
    """Whatever the network says at ignored voxels, the loss is that of the others."""
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 4, 4, 4)
    labels = torch.randint(0, 3, (1, 1, 4, 4, 4))
    labels[..., 2:] = 3
    other = logits.clone()
    other[..., 2:] = 9 * torch.randn(1, 3, 4, 4, 2)
    for loss in (
        MultiClassDiceLoss(squared_pred=True, batch=True, ignore_index=3),
        MultiClassDiceCELoss(ignore_index=3),
        MergedClasses(MultiClassDiceCELoss(ignore_index=3), [[0], [1], [2]]),
    ):
        first, second = loss(logits, labels), loss(other, labels)
        assert torch.equal(first, second)
        torch.testing.assert_close(first, loss(logits[..., :2], labels[..., :2]))


@pytest.mark.parametrize("ignore_index", [None, 3])
def test_no_crop_is_centred_on_ignored_voxels(ignore_index: int | None) -> None:
    label = torch.tensor([0, 1, 2, 3, 3, 0]).reshape(1, 6, 1, 1)
    indices = LabelIndicesd("label", ignore_index)({"label": label})
    found = [np.asarray(indices[f"label_{kind}_indices"]).tolist() for kind in ("fg", "bg")]
    assert found == ([[1, 2, 3, 4], [0, 5]] if ignore_index is None else [[1, 2], [0, 5]])
    if ignore_index is None:
        monai = FgBgToIndicesd("label")({"label": label})
        assert found == [np.asarray(monai[f"label_{kind}_indices"]).tolist() for kind in ("fg", "bg")]


def test_crops_where_all_or_no_voxel_counts() -> None:
    image = torch.tensor([5.0, 5, 0, 0]).reshape(1, 4, 1, 1)
    for values, expected in (([0, 0, 0, 0], [[], [0, 1]]), ([3, 3, 3, 3], [[], [0, 1, 2, 3]])):
        label = torch.tensor(values).reshape(1, 4, 1, 1)
        indices = LabelIndicesd("label", 3, "image")({"label": label, "image": image})
        assert [np.asarray(indices[f"label_{kind}_indices"]).tolist() for kind in ("fg", "bg")] == expected


def test_enough_foreground_is_counted_without_ignored_voxels() -> None:
    label = torch.tensor([3, 3, 3, 0, 1, 1]).reshape(1, 6, 1, 1)
    for ignore_index, starts in ((None, {0, 1, 2, 3, 4}), (3, {3, 4})):
        crop = RandCropWithEnoughd("label", "label", (2, 1, 1), 0.5, 200, ignore_index=ignore_index, num_samples=60)
        crop.set_random_state(0)
        seen = {tuple(sample["label"].flatten().tolist()) for sample in crop({"label": label})}
        assert seen == {tuple(label.flatten()[start : start + 2].tolist()) for start in starts}


def test_ignored_voxels_count_in_no_measure(tmp_path: Path) -> None:
    """Six voxels of reference, two of them ignored: of the other four, A is 1 of 2 predicted and 1 of 1 true."""
    label, pred = torch.tensor([1, 0, 0, 0, 2, 2]), torch.tensor([1, 1, 0, 0, 1, 0])
    item = {"label": label.reshape(1, 6, 1, 1), "pred": pred.reshape(1, 6, 1, 1), "subject": "s"}
    regions = {"background": (0,), "A": (1,)}
    chain = Compose([MaskIgnoredd("pred", ignore_index=2), LabelsToRegionsd(["pred", "label"], regions)])
    output = {key: MetaTensor(value) for key, value in chain(item).items() if key != "subject"}
    scores = SegmentationScores(tmp_path, {0: "background", 1: "A"}, ["dice", "sensitivity", "specificity"])
    scores._score(SimpleNamespace(state=SimpleNamespace(batch=[item], output=[output])))  # type: ignore[arg-type]
    (row,) = scores.rows
    assert row["dice"] == pytest.approx(2 / 3)
    assert row["sensitivity"] == 1
    assert row["specificity"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("labels", "mean", "of_a"),
    [
        ([[0, 0, 0]], float("nan"), float("nan")),
        ([[0, 0, 0], [0, 0, 0]], float("nan"), float("nan")),
        ([[0, 0, 0], [0, 1, 1]], 2 / 3, 2 / 3),  # predicted: 1 of 2 true voxels
    ],
)
def test_dice_of_empty_reference_labels_is_nan(labels: list[list[int]], mean: float, of_a: float) -> None:
    def one_hot(values: list[int]) -> torch.Tensor:
        return torch.stack([torch.tensor(values) == code for code in (0, 1)]).float().reshape(2, 3, 1, 1)

    engine = Engine(lambda engine, batch: batch)
    metric = LabelDice({0: "background", 1: "A"}, output_transform=from_engine(["pred", "label"]))
    metric.attach(engine, "dice_mean")
    engine.run([[{"pred": one_hot([0, 1, 0]), "label": one_hot(values)}] for values in labels])
    assert engine.state.metrics["dice_mean"] == pytest.approx(mean, nan_ok=True)
    assert engine.state.metrics["dice_A"] == pytest.approx(of_a, nan_ok=True)


RUNS = {
    "two labels": (["lesion"], ["FLAIR"]),
    "three labels": (["necrosis", "edema"], ["T1", "T2", "PD"]),
    "six labels": (["a", "b", "c", "d", "e"], ["T1", "FLAIR"]),
}


@pytest.mark.parametrize(("names", "channels"), RUNS.values(), ids=RUNS)
def test_reports_have_the_runs_own_names(
    names: list[str], channels: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = {"background": 0} | {name: code for code, name in enumerate(names, start=1)}
    measured = fingerprint(channels=2, counts=(5,) * len(labels))
    known = replace(measured, channels=tuple(channels), labels=dict(enumerate(labels)))
    bundle = write_bundle(known, decide(known, Machine("cpu", 2**34)), tmp_path / "own_bundle")
    files = config_files(str(bundle), "train.json", "evaluate.json")
    workflow: Any = SimpleNamespace(parser=parser_of(files, tmp_path))
    label = torch.zeros(len(labels), 8, 8, 8)
    label[0] = 1
    for code in range(1, len(labels)):
        label[0, code], label[code, code] = 0, 1
    subject = {"image": torch.rand(len(channels), 8, 8, 8), "label": MetaTensor(label), "pred": MetaTensor(label)}
    monkeypatch.setattr(of_run, "evaluated_subject", lambda workflow: subject)
    monkeypatch.setattr(of_run, "subject_of", lambda workflow: "sub-1")
    assert channels_of_run(workflow.parser) == tuple(channels)
    assert labels_of_run(workflow.parser) == {code: name for name, code in labels.items()}
    figure = of_run.subject_figure(workflow)
    written = {text.get_text() for legend in figure.legends for text in legend.get_texts()}
    assert set(names) <= written
    assert not written & {"NCR", "ED", "ET"}


def parser_of(files: list[str], dataset_dir: Path) -> ConfigParser:
    parser = ConfigParser(ConfigParser.load_config_files(files))
    parser.read_meta(str(Path(files[0]).with_name("metadata.json")))
    parser["dataset_dir"] = str(dataset_dir)
    return parser


def test_reports_of_the_bundle_itself_have_its_names() -> None:
    parser = parser_of(config_files("brats_mri_tumor", "train.json"), Path("data"))
    assert labels_of_run(parser) == {0: "background", 1: "NCR", 2: "ED", 3: "ET"}
    assert channels_of_run(parser) == ("FLAIR", "T1", "T1ce", "T2")
