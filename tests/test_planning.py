"""From a folder of labelled scans to decisions and a bundle, and the sentences for folders that cannot be trained."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from custom.commands import plan
from custom.commands.resumable import require_same
from custom.datasets import bids, own_folder
from custom.errors import BrainMRIError, ConfigError, DataError
from custom.planning.decide import TISSUES, TUMORS, decide
from custom.planning.measure import Fingerprint, measure, notes
from custom.planning.memory import Machine, step_bytes
from custom.planning.write_bundle import as_json
from custom.running.bundles import find_bundle, find_bundles, planned_bundle
from tests.own_folders import as_bids, blob, fingerprint, write_dataset_json

GPU, CPU = Machine("cuda", 80 * 10**9), Machine("cpu", 16 * 10**9)


def three(folder: Path, **more: Any) -> Path:
    """Three cases with the labels a and b, in nnU-Net's form."""
    for subject in ("sub-1", "sub-2", "sub-3"):
        blob(folder, subject, codes=(1, 2), **more)
    write_dataset_json(folder, ("T1w",), ("background", "a", "b"))
    return folder


def test_measures_by_hand(tmp_path: Path) -> None:
    known = measure(three(tmp_path / "mine", spacing=(1.0, 1.0, 2.0)))
    first = known.cases[0]
    assert (known.subjects, known.channels, known.codes) == (["sub-1", "sub-2", "sub-3"], ("T1w",), (0, 1, 2))
    assert (first.shape, first.spacing, first.box) == ((24, 24, 24), (1.0, 1.0, 2.0), (24, 24, 24))
    assert first.counts == (24**3 - 1200, 600, 600)  # cubes of 6x10x10
    assert known.shares == {"a": pytest.approx(600 / 24**3), "b": pytest.approx(600 / 24**3)}
    assert known.size_at((2.0, 1.0, 1.0)) == (12, 24, 48)
    assert first.nonzero == 1.0
    assert known.training == ["sub-3"]  # the first tests, of the others the first validates


@pytest.mark.parametrize(
    ("known", "machine", "template", "expected"),
    [
        (fingerprint(subjects=10), CPU, TISSUES, {"start": "any-scan weights"}),
        (fingerprint(subjects=40), CPU, TUMORS, {"network": "UNet", "window": "80x80x80 voxels"}),
        (fingerprint(subjects=40), GPU, TUMORS, {"network": "DynUNet", "window": "160x160x160 voxels"}),
        (fingerprint(subjects=10, channels=2), GPU, TUMORS, {"start": "new weights"}),
        (fingerprint(subjects=10, channels=2, spacing=(1, 1, 6)), CPU, TUMORS, {"network": "DynUNet"}),
        (fingerprint(subjects=10, spacing=(0.2, 0.2, 0.2)), CPU, TUMORS, {"start": "new weights"}),
        (fingerprint(channels=2, nonzero=0.2), CPU, TUMORS, {"intensities": "z-scores of what is not 0"}),
        (fingerprint(channels=2, nonzero=0.9), CPU, TUMORS, {"intensities": "z-scores of the whole scan"}),
    ],
)  # fmt: skip
def test_decisions(known: Fingerprint, machine: Machine, template: str, expected: dict[str, str]) -> None:
    decided = decide(known, machine)
    assert decided.template == template
    values = {one.name: one.value for one in decided.decisions}
    assert {name: values[name] for name in expected} == expected
    assert all(one.reason for one in decided.decisions)
    assert len(str(decided).splitlines()) == len(decided.decisions)


def test_few_subjects_are_fewer_than_20_that_train() -> None:
    """Of 31 subjects 7 test and 5 validate, so 19 train; of 32 subjects 20 do."""
    assert [decide(fingerprint(subjects=count), CPU).template for count in (31, 32)] == [TISSUES, TUMORS]


@pytest.mark.parametrize(
    ("name", "flip"),
    [("left hippocampus", 0.0), ("hippocampus_R", 0.0), ("Left-Caudate", 0.0), ("lesion", 0.5), ("cleft", 0.5)],
)
def test_no_flips_where_a_label_names_a_side(name: str, flip: float) -> None:
    known = dataclasses.replace(fingerprint(), labels={0: "background", 1: name})
    assert decide(known, CPU).settings["flip"] == flip


def test_less_memory_makes_a_smaller_window() -> None:
    known, sizes = fingerprint(subjects=40, channels=4), []
    for memory in (80, 8, 3):
        machine = Machine("cuda", memory * 10**9)
        settings = decide(known, machine).settings
        network = ConfigParser({"in_channels": 4, "out_channels": 2, "network_def": settings["network_def"]})
        needed = step_bytes(network.get_parsed_content("network_def"), (2, 4, *settings["roi_size"]))
        assert needed <= machine.budget
        sizes.append(np.prod(settings["roi_size"]))
    assert sizes[0] > sizes[1] > sizes[2]


def test_thick_slices_are_halved_later() -> None:
    """1x1x6 mm: the first kernels are flat, and the third axis is halved when the others have voxels of 4 mm."""
    network = decide(fingerprint(channels=2, spacing=(1, 1, 6)), CPU).settings["network_def"]
    assert network["kernel_size"][:3] == [[3, 3, 1], [3, 3, 1], [3, 3, 3]]
    assert network["strides"][:3] == [[1, 1, 1], [2, 2, 1], [2, 2, 1]]


def test_memory_of_a_step_is_what_autograd_keeps() -> None:
    """A convolution without bias keeps its input (8^3 voxels of 4 bytes) and its weights (27), which count 4 times.

    The output counts with its gradient.
    """
    network = torch.nn.Conv3d(1, 1, 3, padding=1, bias=False)
    assert step_bytes(network, (1, 1, 8, 8, 8)) == 4 * 512 + 4 * 4 * 27 + 8 * 512


def test_the_bundle_of_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    three(tmp_path / "mine", channels=2)
    write_dataset_json(tmp_path / "mine", ("T1w", "T2w"), ("background", "a", "b"))
    bundle = plan.plan("mine")
    printed = capsys.readouterr().out
    assert bundle == tmp_path / "mine_bundle"
    assert "2 channels, and the any-scan network takes one" in printed
    assert "Research use only, not a medical device" in printed
    metadata = json.loads((bundle / "configs/metadata.json").read_text())
    formats = metadata["network_data_format"]
    assert formats["inputs"]["image"]["channel_def"] == {"0": "T1w", "1": "T2w"}
    assert formats["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "a", "2": "b"}
    assert "Research use only" in (bundle / "docs/README.md").read_text()
    train, inference = (json.loads((bundle / f"configs/{name}.json").read_text()) for name in ("train", "inference"))
    for key in set(train) & set(inference) - {"_desc_", "imports", "run"}:
        assert train[key] == inference[key], key
    options = json.loads((bundle / "configs/options.json").read_text())
    assert set(options) <= set(train) | set(inference) | {"ckpt_path", "split", "scores_dir"}
    with pytest.raises(ConfigError, match=r"mine_bundle exists already. Train with it, edit its JSON, or remove it"):
        plan.plan("mine")
    assert not list(tmp_path.glob(".partial*"))
    assert find_bundle("mine") == find_bundle("mine_bundle") == find_bundle("./mine") == bundle
    assert planned_bundle("mine/") == bundle


def test_bundles_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a_bundle", "b_bundle"):
        (tmp_path / "many" / name / "configs").mkdir(parents=True)
        (tmp_path / "many" / name / "configs/metadata.json").write_text("{}")
    monkeypatch.setenv("BRAINMRI_BUNDLES", f"{tmp_path / 'many'}:{tmp_path / 'many/a_bundle'}")
    assert find_bundle("a_bun") == tmp_path / "many/a_bundle"
    assert find_bundles()["b_bundle"] == tmp_path / "many/b_bundle"
    with pytest.raises(ConfigError, match="no_such/bundle is no bundle"):
        find_bundle("no_such/bundle")
    monkeypatch.setenv("BRAINMRI_BUNDLES", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"BRAINMRI_BUNDLES names .*nowhere, which holds no bundle"):
        find_bundles()


def one_subject(folder: Path) -> None:
    for name in ("sub-2", "sub-3"):
        (folder / f"labelsTr/{name}.nii.gz").unlink()
        (folder / f"imagesTr/{name}_0000.nii.gz").unlink()


def two_subjects(folder: Path) -> None:
    (folder / "labelsTr/sub-3.nii.gz").unlink()
    (folder / "imagesTr/sub-3_0000.nii.gz").unlink()


def two_sessions_of_two(folder: Path) -> None:
    two_subjects(folder)
    for session in ("sub-2_ses-2",):
        blob(folder, session, codes=(1, 2))


def missing_class(folder: Path) -> None:
    blob(folder, "sub-3", codes=(1,))


def two_dimensional(folder: Path) -> None:
    blob(folder, "sub-2", shape=(24, 24, 1), codes=())


def mixed_channels(folder: Path) -> None:
    write_dataset_json(folder, ("T1w", "T2w"), ("background", "a", "b"))
    for name in ("sub-1", "sub-3"):
        blob(folder, name, codes=(1, 2), channels=2)


def no_form(folder: Path) -> None:
    (folder / "dataset.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (one_subject, r"mine has only one subject with labels \(sub-1\)\. At least three are needed"),
        (two_subjects, r"mine has only two subjects with labels \(sub-1, sub-2\)\. At least three are needed"),
        (two_sessions_of_two, r"mine has only two subjects with labels \(sub-1, sub-2\)"),
        (
            missing_class,
            r"mine has no voxel of b in the training split of fold 0 \(sub-3\)\. Add a subject that has it",
        ),
        (
            two_dimensional,
            r"sub-2_0000\.nii\.gz is a 2D image \(shape \(24, 24(, 1)?\)\), but only 3D scans are planned",
        ),
        (mixed_channels, r"sub-2_0001\.nii\.gz does not exist"),
        (no_form, r"mine has neither dataset\.json nor dataset_description\.json\. The folder needs a dataset\.json"),
    ],
)
def test_folders_that_cannot_be_trained(
    spoil: Any, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spoil(three(tmp_path / "mine"))
    with pytest.raises(DataError, match=expected):
        plan.plan("mine")
    assert not (tmp_path / "mine_bundle").exists()
    problems = plan.verify("mine")
    assert len(problems) == 1
    with pytest.raises(DataError, match=expected):
        raise DataError(problems[0])


def test_mixed_voxel_sizes_and_folds_without_a_label_are_notes(tmp_path: Path) -> None:
    folder = three(tmp_path / "mine")
    blob(folder, "sub-2", spacing=(1.0, 1.0, 1.0), codes=(1,))
    assert notes(measure(folder)) == [
        "The voxel sizes differ, from 1x1x1 to 2x2x2 mm: all scans are resampled to 2x2x2 mm.",
        "Fold 0 has no voxel of b in its validation split.",
        "Fold 1 has no voxel of b in its training split.",
    ]


def test_file_ending_in_capitals(tmp_path: Path) -> None:
    folder = three(tmp_path / "mine")
    write_dataset_json(folder, ("T1w",), ("background", "a", "b"), file_ending=".NII.GZ")
    assert [case["subject"] for case in own_folder.labelled_cases(folder)] == ["sub-1", "sub-2", "sub-3"]
    for path in [*folder.glob("*Tr/*")]:
        path.rename(path.with_name(path.name.replace(".nii.gz", ".NII.GZ")))
    assert len(own_folder.labelled_cases(folder)) == 3


BIDS = ("sub-01_ses-1", "sub-01_ses-2", "sub-02", "sub-10")


def test_bids_without_names_of_labels(tmp_path: Path) -> None:
    folder = as_bids(tmp_path / "study", BIDS, codes=(7, 41), channels=("T1w", "FLAIR"))
    assert own_folder.channels(folder) == ("FLAIR", "T1w")
    assert (own_folder.codes(folder), own_folder.labels(folder)) == (
        (0, 7, 41),
        {0: "background", 1: "label 7", 2: "label 41"},
    )
    cases = own_folder.labelled_cases(folder)
    assert [case["subject"] for case in cases] == list(BIDS)
    assert [Path(path).name for path in cases[0]["image"]] == ["sub-01_ses-1_FLAIR.nii.gz", "sub-01_ses-1_T1w.nii.gz"]
    assert {
        split: [case["subject"] for case in own_folder.datalist(folder, split)] for split in ("test", "training")
    } == {
        "test": ["sub-01_ses-1", "sub-01_ses-2"],
        "training": ["sub-10"],
    }
    known = measure(folder)
    assert known.cases[0].counts[1:] == (600, 600)  # the codes 7 and 41 became 1 and 2
    assert own_folder.verify(folder) == []


def test_bids_with_names_of_labels_above_the_files(tmp_path: Path) -> None:
    folder = as_bids(tmp_path / "study", BIDS, codes=(7, 41))
    (folder / "derivatives/manual/dseg.tsv").write_text(
        "index\tname\tcolor\n0\tbackground\t#0\n41\tWM\t#1\n7\tGM\t#2\n9\tCSF\t#3\n"
    )
    assert own_folder.labels(folder) == {0: "background", 1: "GM", 2: "CSF", 3: "WM"}
    assert own_folder.codes(folder) == (0, 7, 9, 41)
    (folder / "derivatives/manual/sub-02/anat/sub-02_dseg.tsv").write_text("index\tname\n1\tother\n")
    assert own_folder.labels(folder) == {0: "background", 1: "GM", 2: "CSF", 3: "WM"}  # of another subject


def bids_second_scan(folder: Path) -> None:
    path = folder / "sub-02/anat/sub-02_T1w.nii.gz"
    path.with_name("sub-02_run-2_T1w.nii.gz").write_bytes(path.read_bytes())


def bids_no_labels(folder: Path) -> None:
    (folder / "derivatives").rename(folder / "others")


def bids_other_grid(folder: Path) -> None:
    path = folder / "derivatives/manual/sub-02/anat/sub-02_dseg.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4), dtype=np.int16), np.eye(4)), path)


def bids_no_shared_contrast(folder: Path) -> None:
    path = folder / "sub-02/anat/sub-02_T1w.nii.gz"
    path.rename(path.with_name("sub-02_T2w.nii.gz"))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (bids_second_scan, r"sub-02_run-2_T1w\.nii\.gz are of one session\. Keep one of them"),
        (bids_no_labels, r"study has no label map derivatives/\*/sub-\*/anat/\*_dseg\.nii\.gz"),
        (bids_other_grid, r"sub-02_dseg\.nii\.gz has (the )?shape \(4, 4, 4\)"),
        (bids_no_shared_contrast, r"no contrast that every labelled session has \(.*sub-02: T2w"),
    ],
)
def test_bids_folders_that_cannot_be_used(spoil: Any, expected: str, tmp_path: Path) -> None:
    folder = as_bids(tmp_path / "study", BIDS, codes=(1,))
    spoil(folder)
    with pytest.raises(BrainMRIError, match=expected):
        bids.labelled_cases(folder)
    assert len(own_folder.verify(folder)) == 1


def test_another_configuration_is_named(tmp_path: Path) -> None:
    earlier = {"learning_rate": 0.1, "network_def": {"_target_": "UNet", "channels": [4, 8]}}
    require_same(tmp_path, earlier, earlier | {"num_workers": 2, "max_epochs": 9, "device": "cuda"})
    with pytest.raises(
        ConfigError, match=r"another learning_rate: 0\.1, now 0\.2\. Use another output_dir, or --resume"
    ):
        require_same(tmp_path, earlier, earlier | {"learning_rate": 0.2})
    network = {"_target_": "UNet", "channels": [4, 16]}
    with pytest.raises(ConfigError, match=r"another network_def#channels: \[4, 8\], now \[4, 16\]"):
        require_same(tmp_path, earlier, earlier | {"network_def": network})
    with pytest.raises(ConfigError, match=r"another learning_rate: 0\.1, now null"):
        require_same(tmp_path, earlier, {"network_def": earlier["network_def"]})


def test_json_reads_as_the_shipped_bundles_do() -> None:
    value = {"a": [1, 2], "b": {"c": None}, "d": ["x" * 60, {"e": "y" * 60}]}
    text = as_json(value)
    assert json.loads(text) == value
    assert text.splitlines()[1:3] == ['    "a": [1, 2],', '    "b": {"c": null},']
    assert max(map(len, text.splitlines())) <= 120
