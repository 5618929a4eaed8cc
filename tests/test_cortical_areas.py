"""Areas of the cortex: the table, the network, what it sees, what is measured and written, votes, and a training."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pandas
import pytest
import torch
from monai.data import MetaTensor

from custom.baselines import area_votes
from custom.datasets import cortical_areas
from custom.losses import SubvoxelCrossEntropy
from custom.networks import AreaUNet
from custom.networks.cost import count_parameters
from custom.running import StrictWorkflow
from custom.running.bundles import find_bundles
from custom.running.cortex import area_confidence, area_warnings, areas_ml
from custom.running.volume_tables import tidy_rows
from custom.samples import mni152
from custom.transforms import AreasOfCellsd, LabelAreasd
from custom.transforms.area_shares import (
    frame_of_cortex,
    framed_shares,
    labels_of_cells,
    shares_of_labels,
    shares_of_logits,
    voxels_in_cells,
)
from custom.transforms.draw_shares import mirrored
from custom.transforms.label_areas import WANTED, AreaMeasures
from tests.conftest import ROOT, Brainmri

BUNDLE = find_bundles()["brain_mri_tissue_segmentation"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
NAMES = {code: name for code, (name, _) in cortical_areas.names_and_colours().items()}


# --- the table


@pytest.mark.parametrize(
    ("code", "name", "colour", "lobe"),
    [
        (1001, "ctx-lh-bankssts", (25, 100, 40), "temporal"),
        (2024, "ctx-rh-precentral", (60, 20, 220), "frontal"),
        (1021, "ctx-lh-pericalcarine", (120, 100, 60), "occipital"),
        (2035, "ctx-rh-insula", (255, 192, 32), "insula"),
    ],
)
def test_codes_names_colours_and_lobes_are_freesurfers(code: int, name: str, colour: tuple, lobe: str) -> None:
    assert cortical_areas.names_and_colours()[code] == (name, colour)
    assert name.split("-")[2] in cortical_areas.LOBES[lobe]


def test_there_are_34_areas_a_side_each_in_one_lobe() -> None:
    assert len(NAMES) == 68
    assert 1004 not in NAMES
    listed = [name for names in cortical_areas.LOBES.values() for name in names]
    assert sorted(listed) == sorted(area.name for area in cortical_areas.AREAS)
    assert {lobe: len(names) for lobe, names in cortical_areas.LOBES.items()} == {
        "temporal": 9, "cingulate": 4, "frontal": 11, "occipital": 4, "parietal": 5, "insula": 1,
    }  # fmt: skip


def test_a_lobe_is_the_sum_of_its_areas() -> None:
    areas = {"ctx-lh-cuneus": 1.5, "ctx-lh-lingual": 2.25, "ctx-rh-cuneus": 4.0, "ctx-lh-insula": 3.0}
    lobes = cortical_areas.lobes_ml(areas)
    assert (lobes["lh-occipital"], lobes["rh-occipital"], lobes["lh-insula"], lobes["lh-frontal"]) == (3.75, 4, 3, 0)


@pytest.mark.parametrize(("name", "code"), [("entorhinal", "3937002"), ("insula", "36169008"), ("cuneus", "40146001")])
def test_snomed(name: str, code: str) -> None:
    assert cortical_areas.snomed(name)[0] == code


# --- the network and what it sees


def test_parameters_and_shipped_weights() -> None:
    assert count_parameters(AreaUNet()) == 2_636_708
    weights = BUNDLE / "models/areas.pt"
    metadata = json.loads((BUNDLE / "configs/metadata.json").read_text())
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == metadata["areas_sha256"]
    assert weights.stat().st_size <= 6e6
    assert sum(path.stat().st_size for path in weights.parent.iterdir()) <= 26e6


@pytest.mark.parametrize("size", [(8, 8, 8), (9, 4, 17)])
def test_any_size_and_torchscript(size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network, image = AreaUNet(3, 5, (4, 8, 8)).eval(), torch.rand(1, 3, *size)
    with torch.no_grad():
        logits = network(image)
        scripted = torch.jit.script(network)(image)
    assert logits.shape == (1, 5, *size)
    torch.testing.assert_close(logits, scripted)


def test_shares_of_a_cell_by_hand() -> None:
    labels, side = torch.zeros(2, 2, 2), torch.zeros(2, 2, 2)
    labels[0] = torch.tensor([[1, 1], [1, 2]])  # three voxels of class 1, one of class 2, four of background
    side[0] = torch.tensor([[1, 1], [2, 2]])
    shares = shares_of_labels(labels, side, 3)
    assert shares.flatten().tolist() == [0.5, 0.375, 0.125, 0.25]
    logits = torch.full((4, 2, 2, 2), -100.0)
    logits[:3].scatter_(0, labels[None].long(), 100.0)
    logits[3][side == 1] = 100.0
    torch.testing.assert_close(shares_of_logits(logits), shares)


def test_voxels_of_cells_and_back() -> None:
    labels = torch.randint(0, 36, (4, 6, 8), dtype=torch.uint8)
    cells = voxels_in_cells(labels)
    assert cells.shape == (8, 2, 3, 4)
    assert cells[:, 0, 0, 0].tolist() == labels[:2, :2, :2].flatten().tolist()
    assert torch.equal(labels_of_cells(cells), labels)


def test_the_frame_holds_the_cortex_and_background_lies_beyond() -> None:
    cortex = torch.zeros(20, 4, 4)
    cortex[2:13, 1, 1] = 1  # 11 cells long: two strides
    frame = frame_of_cortex(cortex, least=(8, 8, 8))
    assert frame == [(-1, 16), (-3, 8), (-3, 8)]
    shares = torch.zeros(3, 20, 4, 4)  # background, cortex, left
    shares[1] = cortex
    shares[0] = 1 - cortex
    inside = framed_shares(shares, frame)
    assert inside.shape == (3, 16, 8, 8)
    assert (inside[0, 0] == 1).all()
    assert inside[1, 3:14, 4, 4].tolist() == [1] * 11
    assert inside[1].sum() == 11
    assert frame_of_cortex(torch.zeros(4, 4, 4)) is None


def test_a_mirrored_brain_has_its_sides_exchanged() -> None:
    shares = torch.zeros(3, 2, 1, 1)
    shares[:, 0, 0, 0] = torch.tensor([0.25, 0.75, 0.75])  # all of it on the left
    shares[:, 1, 0, 0] = torch.tensor([1.0, 0.0, 0.0])
    areas = torch.arange(16).view(8, 2, 1, 1)
    turned, moved = mirrored(shares, areas)
    assert turned[:, 1, 0, 0].tolist() == [0.25, 0.75, 0.0]
    assert moved[0, 0, 0, 0] == areas[4, 1, 0, 0]  # a cell's right half comes first
    again, back = mirrored(turned, moved)
    torch.testing.assert_close(again, shares)
    assert torch.equal(back, areas)


@pytest.mark.parametrize(
    ("labels", "expected"), [([0] * 8, 0.0), ([1] * 8, math.log(4)), ([0, 2, 3, 0, 0, 0, 0, 0], math.log(4))]
)
def test_loss_of_a_network_that_knows_nothing(labels: list[int], expected: float) -> None:
    value = SubvoxelCrossEntropy()(torch.zeros(1, 4, 1, 1, 1), torch.tensor(labels).view(1, 8, 1, 1, 1))
    assert float(value) == pytest.approx(expected)


def test_areas_of_cells_lie_in_the_reference_cortex() -> None:
    logits = torch.zeros(4, 1, 1, 1)
    logits[0], logits[2] = 9, 5  # no area is likelier, but it is cortex
    item = AreasOfCellsd("pred")({"pred": logits, "label": torch.tensor([0, 3, 2, 0, 0, 0, 0, 0]).view(8, 1, 1, 1)})
    assert item["pred"].flatten().tolist() == [0, 2, 2, 0, 0, 0, 0, 0]
    assert item["label"].flatten().tolist() == [0, 3, 2, 0, 0, 0, 0, 0]


def test_each_voxel_of_the_cortex_gets_its_likeliest_area() -> None:
    probabilities = torch.zeros(4, 2, 1, 1)
    probabilities[0] = 0.5  # is left out
    probabilities[1, 0], probabilities[3, 1] = 0.5, 0.5
    cells = np.diag([2.0, 2.0, 2.0, 1.0])
    cells[:3, 3] = 0.5
    codes = MetaTensor(torch.tensor([3, 3, 42, 2]).view(1, 4, 1, 1), affine=np.eye(4))
    item = {
        WANTED: True,
        "structures": codes,
        "area_probabilities": MetaTensor(probabilities, affine=torch.as_tensor(cells)),
    }
    labelled = LabelAreasd("structures", {3: 1000, 42: 2000}, (1, 3))(item)
    assert labelled["areas"].dtype == torch.int16
    assert labelled["areas"].flatten().tolist() == [1001, 1001, 2003, 0]
    measures = labelled["area_measures"]
    assert measures.voxels == {1001: 2, 1003: 0, 2001: 0, 2003: 1}
    assert measures.agreement[1001] == pytest.approx(1.75)  # voxel 1 lies a quarter towards the other cell
    assert measures.expected_dice(1001) == pytest.approx(1.0 * 2 * 1.75 / (2 + 1.75))
    assert LabelAreasd("structures", {3: 1000}, (1,))({"structures": codes}).keys() == {"structures"}


# --- what is measured


def measured(voxels: dict[int, int], at_edge: dict[int, int] | None = None) -> AreaMeasures:
    none = dict.fromkeys(NAMES, 0)
    floats = dict.fromkeys(NAMES, 0.0)
    full = none | voxels
    return AreaMeasures(full, floats | voxels, floats | voxels, none | (at_edge or {}))


WHOLE = dict.fromkeys(NAMES, 1000)


@pytest.mark.parametrize(
    ("measures", "expected"),
    [
        (measured(WHOLE), []),
        (measured(WHOLE, {1024: 19}), []),
        (
            measured(WHOLE, {1024: 20, 2007: 500}),
            ["ctx-lh-precentral is cut by the field of view", "ctx-rh-fusiform is cut by the field of view"],
        ),
        (
            measured({code: 1000 for code in NAMES if code > 2000}, {1001: 50}),
            ["the left hemisphere is missing: its areas are not measured"],
        ),
        (measured(WHOLE | {2006: 0, 2033: 0}), ["not found: ctx-rh-entorhinal, ctx-rh-temporalpole"]),
        (measured({}), ["there is no cortex in view: no area was found"]),
    ],
)
def test_cut_and_missing_areas_are_said(measures: AreaMeasures, expected: list[str]) -> None:
    assert area_warnings(measures, areas_ml(measures, np.eye(4)), np.eye(4)) == expected


def test_confidence_is_that_of_the_cortex_times_that_of_the_area() -> None:
    measures = measured({1035: 10})
    measures.agreement[1035] = 7.5  # of 10 voxels: 2 * 7.5 / (10 + 10)
    assert area_confidence(measures, {"Left-Cerebral-Cortex": 0.8}) == {"ctx-lh-insula": 0.6}


def test_rows_of_areas_and_lobes() -> None:
    areas = dict.fromkeys(NAMES.values(), 0.0) | {"ctx-lh-cuneus": 1.0, "ctx-lh-lingual": 3.0, "ctx-rh-cuneus": 2.0}
    confidence = {"ctx-lh-cuneus": 0.5, "ctx-lh-lingual": 0.9, "ctx-rh-cuneus": 0.7}
    record = {
        "scan": "sub-1_T1w.nii.gz", "volumes_ml": {"intracranial": 100.0}, "structures_ml": {"Brain-Stem": 20.0},
        "areas_ml": areas, "confidence": confidence, "warnings": [],
    }  # fmt: skip
    rows = {(row["structure"], row["side"]): row for row in tidy_rows(record)}
    assert rows["ctx-cuneus", "both"]["ml"] == 3.0
    assert rows["lobe-occipital", "left"]["ml"] == 4.0
    assert rows["lobe-occipital", "left"]["confidence"] == 0.8
    assert rows["lobe-occipital", "both"]["share_of_icv"] == 0.06
    assert rows["ctx-insula", "left"]["confidence"] is None


# --- votes


@pytest.fixture(scope="module")
def person() -> area_votes.Person:
    """A made-up head: on each side a block of cortex with two areas around white matter, and a structure within."""
    codes = np.zeros((60, 48, 40), dtype=int)
    for cortex, white, inner, first, start in ((1000, 2, 10, 1000, 34), (2000, 41, 49, 2000, 8)):
        codes[start : start + 18, 8:40, 8:32] = cortex + 28
        codes[start : start + 18, 8:20, 8:32] = first + 11
        codes[start + 3 : start + 15, 11:37, 11:29] = white
        codes[start + 6 : start + 12, 18:26, 16:24] = inner
    codes[26:34, 12:20, 8:14] = 16
    return area_votes.person_of(codes)


def test_a_person_has_cortex_and_areas(person: area_votes.Person) -> None:
    assert person.corner == (2, 2, 2)
    assert set(np.unique(person.codes)) == {0, 2, 3, 10, 16, 41, 42, 49}
    assert person.areas is not None
    assert set(np.unique(person.areas)) == {0, 11, 28}
    assert ((person.areas > 0) == np.isin(person.codes, (3, 42))).all()


def test_areas_are_carried_to_a_moved_head(person: area_votes.Person) -> None:
    moved = area_votes.Person(np.roll(person.codes, (2, 1, 0), (0, 1, 2)), None, (0, 0, 0))
    assert person.areas is not None
    truth = np.roll(person.areas, (2, 1, 0), (0, 1, 2))
    affine = area_votes.affine_registration(moved, person)
    np.testing.assert_allclose(affine(np.array([[12, 11, 10]])), [[10, 10, 10]], atol=1e-3)
    assert (area_votes.carried(affine, moved, person) == truth).mean() > 0.999
    deformed = area_votes.register(moved, person)
    assert deformed.loss < 0.6  # of twelve groups this head has seven: the others count as lost
    assert (area_votes.carried(deformed, moved, person) == truth).mean() > 0.98


def test_the_area_with_most_votes_wins(person: area_votes.Person) -> None:
    cortex = np.isin(person.codes, (3, 42))
    ballots = [np.where(cortex, number, 0).astype(np.uint8) for number in (5, 7, 7)]
    assert (area_votes.votes(person, ballots)[cortex] == 7).all()
    assert (area_votes.votes(person, ballots, [3.0, 1.0, 1.0])[cortex] == 5).all()


def test_dice_of_areas_by_hand() -> None:
    found, true = np.array([1001, 1001, 1002, 0, 2001]), np.array([1001, 1002, 1002, 1002, 0])
    assert area_votes.dice_of_areas(found, true, least=1) == {1001: pytest.approx(2 / 3), 1002: pytest.approx(0.5)}
    assert list(area_votes.dice_of_areas(found, true, least=2)) == [1002]


# --- commands


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("areas")
    sample = mni152.write(folder / "mni152", spacing=3)
    shutil.copy(sample / mni152.T1, folder / "sub-1_T1w.nii.gz")
    scan = nibabel.load(folder / "sub-1_T1w.nii.gz")
    right = nibabel.as_closest_canonical(scan).slicer[scan.shape[0] // 2 + 1 :]  # x grows to the right
    nibabel.save(right, folder / "right.nii.gz")
    return folder


def test_segment_writes_areas_of_the_cortex(head: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    command = ["segment", str(head / "sub-1_T1w.nii.gz"), "--output_dir", "out", "--device", "cpu", "--figure", "False"]
    result = brainmri(*command, "--outputs", "structures,areas", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    names = [f"sub-1_seg-{what}_desc-T1w_dseg.nii.gz" for what in ("areas", "structures")]
    areas, structures = (nibabel.load(tmp_path / "out" / name) for name in names)
    voxels = np.asarray(areas.dataobj)
    assert voxels.dtype == np.int16
    assert ((voxels > 0) == np.isin(np.asarray(structures.dataobj), (3, 42))).all()
    np.testing.assert_allclose(areas.affine, structures.affine)
    assert len(set(np.unique(voxels)) - {0}) >= 66
    lines = (tmp_path / "out/sub-1_seg-areas_desc-T1w_dseg.tsv").read_text().splitlines()
    assert lines[1] == "1001\tctx-lh-bankssts\t#196428"
    assert len(lines) == 69
    table = pandas.read_csv(tmp_path / "out/volumes.csv").set_index(["structure", "side"])["ml"]
    lobes = sum(table[f"lobe-{lobe}", "left"] for lobe in cortical_areas.LOBES)
    assert lobes == pytest.approx(table["Cerebral-Cortex", "left"], abs=0.05)
    ml = abs(np.linalg.det(areas.affine[:3, :3])) / 1000
    assert table["ctx-insula", "right"] == pytest.approx((voxels == 2035).sum() * ml, abs=0.001)
    assert 5 < table["ctx-insula", "right"] < 16
    # another output later keeps the areas' volumes
    assert brainmri(*command, "--outputs", "mask", cwd=tmp_path).returncode == 0
    assert "ctx-insula" in set(pandas.read_csv(tmp_path / "out/volumes.csv")["structure"])
    # and labels that a person corrects are measured again
    corrected = np.where(voxels == 2035, 2030, voxels)
    nibabel.save(nibabel.Nifti1Image(corrected, areas.affine), tmp_path / "out" / names[0])
    assert brainmri("volumes", "out", cwd=tmp_path).returncode == 0
    again = pandas.read_csv(tmp_path / "out/volumes.csv").set_index(["structure", "side"])["ml"]
    assert (again["ctx-insula", "right"], again["lobe-insula", "right"]) == (0, 0)
    gained = table["ctx-superiortemporal", "right"] + table["ctx-insula", "right"]
    assert again["ctx-superiortemporal", "right"] == pytest.approx(gained, abs=0.002)


def test_half_a_head_says_which_half_is_missing(head: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    command = ["segment", str(head / "right.nii.gz"), "--output_dir", "out", "--device", "cpu", "--figure", "False"]
    result = brainmri(*command, "--outputs", "areas", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "the left hemisphere is missing: its areas are not measured." in result.stdout
    assert "ctx-rh-superiorfrontal is cut by the field of view." in result.stdout


@pytest.mark.slow
def test_a_training_draws_once_and_goes_on(synthseg_labels_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    for path in sorted(synthseg_labels_dir.glob("*.nii.gz")):
        image = nibabel.load(path)
        codes = np.asarray(image.dataobj).astype(np.int16)
        left = np.arange(codes.shape[0])[:, None, None] < codes.shape[0] // 2
        front = np.arange(codes.shape[1])[None, :, None] > codes.shape[1] // 2
        area = np.where(left, 1000, 2000) + np.where(front, 28, 11)
        codes = np.where(codes == 3, area, codes).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(codes, image.affine), tmp_path / "maps" / path.name)
    settings = {
        "dataset_dir": str(tmp_path / "maps"), "output_dir": str(tmp_path / "run"), "device": "cpu",
        "roi_size": [64, 64, 64], "spacing": 3.0, "draws": 1, "validation_draws": 1, "steps_per_epoch": 2,
        "val_interval": 1, "cut": 0.0,
    }  # fmt: skip

    def train(**more: object) -> None:
        workflow = StrictWorkflow(
            str(BUNDLE / "configs/train_areas.json"), workflow_type="train", run_id="training", logging_file=False,
            **settings, **more,
        )  # fmt: skip
        workflow.initialize()
        workflow.run()

    train(max_epochs=1)
    drawn = {path: path.stat().st_mtime_ns for path in (tmp_path / "run/drawn").iterdir()}
    assert len(drawn) in (5, 6)  # one or two maps train, as the sampler drew them; four validate
    train(max_epochs=2, resume=True)
    assert {path: path.stat().st_mtime_ns for path in drawn} == drawn
    state = torch.load(tmp_path / "run/last.pt", weights_only=True)
    assert state["trainer"]["epoch"] == 2
    AreaUNet().load_state_dict(torch.load(tmp_path / "run/model.pt", weights_only=True))


def test_maps_are_parcellated_once(person: area_votes.Person, tmp_path: Path) -> None:
    areas = np.asarray(person.areas)
    codes = np.where(areas > 0, areas + np.where(person.codes == 3, 1000, 2000), person.codes).astype(np.int16)
    for folder, name, voxels in (("people", "a_aparc+aseg", codes), ("maps", "sub-1_dseg", person.codes)):
        (tmp_path / folder).mkdir()
        nibabel.save(nibabel.Nifti1Image(voxels.astype(np.int16), np.eye(4)), tmp_path / folder / f"{name}.nii.gz")
    command = [sys.executable, str(ROOT / "scripts/parcellate_maps.py"), "maps", "people", "out"]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert "sub-1_aparc+aseg.nii.gz: sources agree with the votes at 1.0" in first.stdout
    made = np.asarray(nibabel.load(tmp_path / "out/sub-1_aparc+aseg.nii.gz").dataobj)
    assert (made == codes).mean() > 0.99
    assert (tmp_path / "out/sub-1.png").is_file()
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert again.stdout == ""
