"""`brainmri segment` on what people bring: masks, two contrasts, slabs, phantoms, large grids; and offline."""

from __future__ import annotations

import math
import re
import socket
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from custom.commands.segment import segment
from custom.commands.segment_jobs import Options, find_jobs
from custom.datasets import freesurfer
from custom.errors import ConfigError, DataError, find_cause
from custom.metrics import dice_by_name
from custom.reading.scans import read_scan
from custom.running import Predictor
from custom.running.bundles import config_files
from custom.running.confidence import Fit, confidence, evidence_of, read_fits
from custom.running.segmentation import Segmentation
from custom.running.trust import order_of_tissues
from custom.samples import mni152
from custom.transforms.brain_masks import brain_masks
from custom.transforms.measures import Measures, Outputs
from tests.conftest import SHARED

FILES = config_files("brain_mri_tissue", "inference.json")
LABELS = mni152.LABELS


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(FILES, device="cpu")


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The MNI152 T1w at 3 mm, its labels, and itself with inverted contrast, under BIDS names."""
    folder = tmp_path_factory.mktemp("scans")
    mni152.write(folder / "mni", spacing=3)
    image = nibabel.load(folder / "mni" / mni152.T1)
    voxels = image.get_fdata(dtype=np.float32)
    inverted = np.where(voxels > 0, voxels.max() - voxels, 0)
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine), folder / "sub-1_T1w.nii.gz")
    nibabel.save(nibabel.Nifti1Image(inverted, image.affine), folder / "sub-1_T2w.nii.gz")
    return folder


def dice(found: np.ndarray, scans: Path) -> dict[str, float]:
    return dice_by_name(found, np.asarray(nibabel.load(scans / "mni" / mni152.TRUTH).dataobj), LABELS)


def test_two_contrasts_together(predictor: Predictor, scans: Path, tmp_path: Path) -> None:
    t1, t2 = scans / "sub-1_T1w.nii.gz", scans / "sub-1_T2w.nii.gz"
    alone = dice(predictor(t1)["pred"], scans)
    together = dice(predictor([t1, t2])["pred"], scans)
    assert together["GM"] > alone["GM"] - 0.01
    assert together["WM"] > 0.88
    jobs = find_jobs([str(t2), str(t1)], tmp_path, Options(joint=True))
    assert [job.scans for job in jobs] == [(t1, t2)]
    assert len(find_jobs([str(t2), str(t1)], tmp_path, Options())) == 2


def test_scans_on_different_grids_are_not_joined(predictor: Predictor, scans: Path, tmp_path: Path) -> None:
    image = nibabel.load(scans / "sub-1_T2w.nii.gz")
    nibabel.save(image.slicer[2:], tmp_path / "other.nii.gz")
    with pytest.raises(DataError, match=r"other\.nii\.gz and .*T1w\.nii\.gz lie on different grids\. Resample them"):
        predictor([scans / "sub-1_T1w.nii.gz", tmp_path / "other.nii.gz"])


def test_a_mask_is_trusted(predictor: Predictor, scans: Path, tmp_path: Path) -> None:
    scan = scans / "sub-1_T1w.nii.gz"
    image = nibabel.load(scan)
    mask = (np.asarray(image.dataobj) > 0).astype(np.uint8)
    mask[: mask.shape[0] // 2] = 0
    nibabel.save(nibabel.Nifti1Image(mask, image.affine), tmp_path / "sub-1_desc-brain_mask.nii.gz")
    (job,) = find_jobs([str(scan)], tmp_path / "out", Options(from_mask=tmp_path))
    assert job.mask == tmp_path / "sub-1_desc-brain_mask.nii.gz"
    assert segment(predictor, [str(scan)], tmp_path / "out", Options(["structures", "mask"], False, tmp_path)) == 0
    codes, brain = (
        np.asarray(nibabel.load(tmp_path / "out" / name).dataobj)
        for name in ("sub-1_seg-structures_desc-T1w_dseg.nii.gz", "sub-1_desc-T1wbrain_mask.nii.gz")
    )
    assert codes[mask > 0].any()
    assert not codes[mask == 0].any()
    np.testing.assert_array_equal(brain, mask)
    (job,) = find_jobs([str(scan)], tmp_path / "again", Options(from_mask=tmp_path / "out"))  # our own name for it
    assert job.mask == tmp_path / "out/sub-1_desc-T1wbrain_mask.nii.gz"


def test_further_outputs_leave_earlier_ones_where_they_are(predictor: Predictor, scans: Path, tmp_path: Path) -> None:
    place = [str(scans / "sub-1_T1w.nii.gz")]
    assert segment(predictor, place, tmp_path, Options(["tissues"], False)) == 0
    tissues = tmp_path / "sub-1_desc-T1w_dseg.nii.gz"
    tissues.write_bytes(b"corrected by hand")
    for outputs, further in (
        (["structures"], "sub-1_seg-structures_desc-T1w_dseg.nii.gz"),
        (["tissues", "structures", "mask"], "sub-1_desc-T1wbrain_mask.nii.gz"),
    ):
        assert segment(predictor, place, tmp_path, Options(outputs, False)) == 0
        assert tissues.read_bytes() == b"corrected by hand"
        assert nibabel.load(tmp_path / further).shape == nibabel.load(place[0]).shape
    assert {path.name for path in tmp_path.glob("earlier/*/*")} <= {"sub-1_desc-T1w_dseg.json", "volumes.csv"}
    page = (Path(__file__).parents[1] / "docs" / "segment.md").read_text(encoding="utf-8")
    assert "| the same, but `--outputs` names more | The missing files are added. The others stay. |" in page


def test_masks_that_do_not_fit(predictor: Predictor, scans: Path, tmp_path: Path) -> None:
    scan = scans / "sub-1_T1w.nii.gz"
    nibabel.save(nibabel.load(scan).slicer[1:], tmp_path / "mask.nii.gz")
    with pytest.raises(RuntimeError) as error:  # MONAI wraps what transforms raise
        predictor(scan, tmp_path / "mask.nii.gz")
    assert re.search(r"mask\.nii\.gz has another grid than .*T1w\.nii\.gz\. Resample", str(find_cause(error.value)))
    with pytest.raises(DataError, match=r"holds 0 files sub-1_desc-brain_mask\.nii\.gz, but .* needs exactly one"):
        find_jobs([str(scan)], tmp_path, Options(from_mask=tmp_path))
    two = [str(scan), str(scans / "sub-1_T2w.nii.gz")]
    with pytest.raises(ConfigError, match=r"mask\.nii\.gz is one mask for 2 scans\. Give a folder"):
        find_jobs(two, tmp_path, Options(from_mask=tmp_path / "mask.nii.gz"))


def phantoms() -> dict[str, np.ndarray]:
    rng, grid = np.random.default_rng(0), np.stack(np.indices((72, 80, 72)) * 2.5)
    centre = grid - np.array([90, 100, 90]).reshape(3, 1, 1, 1)
    ball = 600.0 * (np.sqrt((centre**2).sum(axis=0)) < 80) + 50
    rods = 500.0 * (np.hypot(centre[0], centre[1]) < 85)
    for turn in range(8):
        angle = turn * np.pi / 4
        rods[np.hypot(centre[0] - 50 * np.cos(angle), centre[1] - 50 * np.sin(angle)) < 12] = 900 - 80 * turn
    torso = 300.0 * ((centre[0] / 85) ** 2 + (centre[1] / 60) ** 2 < 1)
    for side in (-35, 35):
        lung = ((centre[0] - side) / 25) ** 2 + (centre[1] / 40) ** 2 + ((centre[2] - 30) / 50) ** 2 < 1
        torso[lung] = 20
    return {
        name: np.abs(values + rng.normal(0, 15, values.shape)).astype(np.float32)
        for name, values in {"ball": ball, "rods": rods, "torso": torso, "noise": np.zeros_like(ball)}.items()
    }


@pytest.mark.parametrize("name", ["ball", "rods", "torso", "noise"])
def test_no_head_in_view_is_a_sentence(
    name: str, predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    nibabel.save(nibabel.Nifti1Image(phantoms()[name], np.diag([2.5, 2.5, 2.5, 1])), tmp_path / f"{name}.nii.gz")
    assert segment(predictor, [str(tmp_path / f"{name}.nii.gz")], tmp_path / "out") == 1
    assert f"{name}.nii.gz: no head was found. Give an MR scan that shows a brain." in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.nii.gz"))


@pytest.mark.skipif(not (SHARED / "t1_studyforrest").is_dir(), reason="studyforrest's T1w isn't on this machine")
def test_a_whole_head_its_slabs_and_both_halves_of_its_precision(predictor: Predictor, tmp_path: Path) -> None:
    path = SHARED / "t1_studyforrest" / "sub-02_T1w_1mm_defaced.nii.gz"
    image, mask = nibabel.load(path), nibabel.load(SHARED / "t1_studyforrest" / "sub-02_brainmask_approx.nii.gz")
    item = predictor(path)
    whole = item["pred"]
    brain, _ = brain_masks(item["structures"], image.affine, freesurfer.AROUND_BRAIN)
    reference = np.asarray(mask.dataobj) > 0
    assert 2 * (brain & reference).sum() / (brain.sum() + reference.sum()) > 0.94
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        again = predictor(path)["structures"]
    finally:
        torch.set_num_threads(threads)
    inside = (item["structures"] > 0) | (again > 0)
    assert (item["structures"] == again)[inside].mean() >= 0.995
    for thick, start in ((12, 124), (18, 84)):
        slab = image.slicer[:, :, start : start + thick]
        nibabel.save(slab, tmp_path / f"slab{thick}.nii.gz")
        found = predictor(tmp_path / f"slab{thick}.nii.gz")
        assert f"it is a slab of {thick} mm: volumes are those of the part in view" in found["scan"].meta["warnings"]
        Segmentation(found, LABELS)  # shows a head
        part = whole[:, :, start : start + thick]
        scores = dice_by_name(found["pred"], part, LABELS)
        assert scores["GM"] > 0.75, (thick, scores)
        assert scores["WM"] > 0.8, (thick, scores)


def test_too_thin_or_too_small(tmp_path: Path) -> None:
    for shape, mm, sentence in (
        ((100, 100, 10), 2.0, None),
        ((200, 200, 10), 1.0, "A slab of 10 mm is too thin, 12 mm are needed"),
        ((30, 30, 30), 1.0, "spans 30 x 30 x 30 mm, which no scan of a head does"),
        ((100, 100, 1), 8.0, "is a slice, not a volume"),
    ):
        voxels = np.random.default_rng(0).random(shape).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([mm, mm, mm, 1])), tmp_path / "x.nii")
        if sentence is None:
            assert read_scan(tmp_path / "x.nii")[2] == ["it is a slab of 20 mm: volumes are those of the part in view"]
        else:
            with pytest.raises(DataError, match=sentence):
                read_scan(tmp_path / "x.nii")


def test_order_of_tissues() -> None:
    labels = np.repeat(np.arange(4, dtype=np.uint8), 300).reshape(-1, 10, 10)
    for medians, contrast, warning in (
        ((0, 1, 5, 9), "T1w", ""),
        ((0, 9, 5, 1), "T2w", ""),
        ((0, 1, 9, 5), "FLAIR", ""),
        ((0, 5, 1, 9), "", "the order of the tissues' brightness (GM < CSF < WM) fits no usual contrast"),
        ((0, 1, 5, 5), "", "grey and white matter are about equally bright"),
    ):
        noise = np.random.default_rng(0).normal(0, 0.2, labels.shape)
        found = order_of_tissues(np.asarray(medians)[labels] + noise, labels, LABELS)
        assert found[0] == contrast
        assert found[1].startswith(warning)
        assert bool(found[1]) == bool(warning)


def test_confidence_is_what_the_fits_make_of_the_evidence(predictor: Predictor, scans: Path) -> None:
    measures = predictor(scans / "sub-1_T1w.nii.gz")["measures"]
    raw = confidence(measures, 1e-3, {})
    fitted = confidence(measures, 1e-3, {"Thalamus": Fit((0, 1), (0.2, 0.4)), "GM": Fit((0, 1), (0.5, 0.5))})
    assert fitted["GM"] == 0.5
    assert fitted["WM"] == raw["WM"]
    assert fitted["Left-Thalamus"] == pytest.approx(0.2 + 0.2 * raw["Left-Thalamus"], abs=2e-3)
    shipped = read_fits(predictor.path, predictor.sha256)
    assert {"scan", "CSF", "GM", "WM", *(structure.title for structure in freesurfer.STRUCTURES)} <= set(shipped)
    assert all(np.diff(fit.evidence).min() > 0 and np.diff(fit.dice).min() >= 0 for fit in shipped.values())
    assert read_fits(predictor.path, "other weights") == {}


def test_evidence_by_hand() -> None:
    """Two voxels of thalamus at .5 and .7, one of which it also expects elsewhere; 8 ml a voxel."""
    codes = freesurfer.LEFT_CODES, freesurfer.RIGHT_CODES
    around = freesurfer.output("thalamus"), freesurfer.output("cerebellar cortex")
    ventricle = freesurfer.output(freesurfer.VENTRICLES)[0]
    measures = Measures(Outputs(freesurfer.TISSUE_NUMBERS, freesurfer.GROUP_NUMBERS, *codes, ventricle, *around, 15))
    measures.voxels |= {10: 2, 2: 4, -2: 2, -3: 4}
    measures.agreement |= {10: 1.2, 2: 4.0, -2: 1.2, -3: 4.0}
    measures.probability |= {10: 2.0, 2: 4.0, -2: 2.0, -3: 4.0}
    measures.prior[0], measures.prior[freesurfer.LEFT_CODES.index(24)] = 50, 9
    measures.prior[freesurfer.LEFT_CODES.index(10)], measures.prior[freesurfer.LEFT_CODES.index(2)] = 2, 1.5
    assert measures.expected_brain(24) == 3.5
    evidence = evidence_of(measures, voxel_ml=8.0)
    assert evidence["Left-Thalamus"].own == pytest.approx(2 * 1.2 / 4)
    assert evidence["Left-Thalamus"].median == pytest.approx((0.6 + 1.0) / 2)
    assert evidence["Left-Thalamus"].log_ml == pytest.approx(math.log(16))
    assert evidence["scan"].own == pytest.approx((0.6 + 1.0) / 2)
    assert "Right-Thalamus" not in evidence
    fit = Fit((1.0, 3.0), (0.0, 1.0), weights=(1.0, 1.0, 0.5))
    expected = (0.6 + 0.8 + 0.5 * math.log(16) - 1.0) / 2
    assert confidence(measures, 8.0, {"Thalamus": fit})["Left-Thalamus"] == pytest.approx(expected, abs=1e-3)


def test_no_connection_is_opened(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"a connection was opened: {args}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    assert segment(Predictor(FILES, device="cpu"), [str(scans / "sub-1_T1w.nii.gz")], tmp_path) == 0


MEMORY = """
import re, sys
from pathlib import Path
from custom import cli
cli.segment(sys.argv[1], output_dir=sys.argv[2], outputs="tissues,structures", figure=True, device="cpu")
status = Path("/proc/self/status").read_text()  # getrusage's maximum begins with that of the parent process
print("PEAK", int(re.search("VmHWM: *([0-9]+)", status.replace("\t", " "))[1]) / 2**20)
"""


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "t1_studyforrest").is_dir(), reason="studyforrest's T1w isn't on this machine")
def test_memory_stays_small_on_a_large_grid(tmp_path: Path) -> None:
    """512x512x400 voxels of 0.5 mm, 105 million of them."""
    image = nibabel.load(SHARED / "t1_studyforrest" / "sub-02_T1w_1mm_defaced.nii.gz")
    fine = np.asarray(image.dataobj).astype(np.int16).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    whole = np.zeros((512, 512, 400), np.int16)
    whole[64:448, :, 8:392] = fine
    affine = image.affine.copy()
    affine[:3, :3] /= 2
    nibabel.save(nibabel.Nifti1Image(whole, affine), tmp_path / "large.nii")
    words = [sys.executable, "-c", MEMORY, str(tmp_path / "large.nii"), str(tmp_path / "out")]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    peak = float(result.stdout.split("PEAK")[1])
    assert peak < 2.5, peak
    assert nibabel.load(tmp_path / "out/large_seg.nii.gz").shape == whole.shape
