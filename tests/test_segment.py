"""`brainmri segment`: scans in, labels, volumes and pictures out."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from custom.commands.segment import segment, sha256_of_scan
from custom.commands.segment_files import results_of
from custom.commands.segment_jobs import Options, find_jobs, share_of
from custom.commands.volumes import collect
from custom.datasets import freesurfer
from custom.errors import ConfigError, DataError
from custom.metrics import dice_by_name
from custom.running import Predictor
from custom.running.bundles import config_files
from custom.running.segmentation import volumes_ml, warnings_of
from custom.samples import mni152
from tests.conftest import Brainmri

LABELS = mni152.LABELS
ALL = "tissues,structures,mask,brain,probabilities"
MASKS = ("mask", "intracranial")


@pytest.fixture(scope="session")
def mni152_2mm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mni152.write(tmp_path_factory.mktemp("sample") / "mni152", spacing=2)


def turned(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """The same scan with its axes in another order and direction."""
    return image.as_reoriented(np.array([[1, -1], [2, 1], [0, -1]]))


def test_the_shipped_weights_find_tissue_and_any_orientation_gives_the_same(
    predictor: Predictor, mni152_2mm: Path, tmp_path: Path
) -> None:
    scan, truth = (nibabel.load(mni152_2mm / name) for name in (mni152.T1, mni152.TRUTH))
    found = predictor(mni152_2mm / mni152.T1)["pred"]
    dice = dice_by_name(found, np.asarray(truth.dataobj), LABELS)
    assert dice["GM"] > 0.86, dice
    assert dice["WM"] > 0.89, dice
    nibabel.save(turned(scan), tmp_path / "turned.nii.gz")
    again = predictor(tmp_path / "turned.nii.gz")
    np.testing.assert_allclose(again["scan"].affine, turned(scan).affine, atol=1e-4)
    back = np.asarray(turned(nibabel.Nifti1Image(found, scan.affine)).dataobj)
    assert np.mean(again["pred"] == back) > 0.995


def test_nothing_is_said_to_be_written_if_all_scans_fail(brainmri: Brainmri, tmp_path: Path) -> None:
    (tmp_path / "broken.nii.gz").write_bytes(b"no scan")
    result = brainmri("segment", "broken.nii.gz", "--output_dir", "out", "--device", "cpu", cwd=tmp_path)
    assert result.returncode == 1
    assert "1 of 1 scans failed:" in result.stderr
    assert "volumes.csv" not in result.stdout


def test_a_scan_a_folder_and_what_is_written(mni152_dir: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    (tmp_path / "scans/sub-1/anat").mkdir(parents=True)
    shutil.copy(mni152_dir / mni152.T1, tmp_path / "scans/sub-1/anat/sub-1_T1w.nii.gz")
    shutil.copy(mni152_dir / mni152.T1, tmp_path / "scans/head.nii.gz")
    (tmp_path / "scans/broken.nii.gz").write_bytes(b"no scan")
    result = brainmri("segment", "scans", "--output_dir", "out", "--outputs", ALL, "--device", "cpu", cwd=tmp_path)
    assert result.returncode == 1
    assert "[1/3] broken.nii.gz: failed" in result.stdout
    assert "Research use only, not a medical device." in result.stdout
    assert "1 of 3 scans failed:\nbroken.nii.gz: " in result.stderr
    assert "broken.nii.gz is a text ('no scan'...) and no scan." in result.stderr
    assert result.stderr.strip().endswith("brainmri: 1 of the scans couldn't be segmented, as listed above.")
    made = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert made == {
        "volumes.csv",
        "run.log",
        *(f"head_{end}" for end in ("seg.nii.gz", "seg.tsv", "seg.png", "seg.json", "probabilities.nii.gz")),
        *(f"head_{end}" for end in ("structures.nii.gz", "structures.tsv", "mask.nii.gz", "intracranial.nii.gz")),
        "head_skullstripped.nii.gz",
        *(f"sub-1/anat/sub-1_desc-T1w_{end}" for end in ("dseg.nii.gz", "dseg.tsv", "dseg.png", "dseg.json")),
        *(f"sub-1/anat/sub-1_seg-structures_desc-T1w_dseg.{end}" for end in ("nii.gz", "tsv")),
        *(f"sub-1/anat/sub-1_desc-T1w{mask}_mask.nii.gz" for mask in ("brain", "intracranial")),
        *(f"sub-1/anat/sub-1_desc-{name}.nii.gz" for name in ("T1w_probseg", "brain_T1w")),
        *(f"sub-1/anat/sub-1_desc-{name}.json" for name in ("T1w_probseg", "brain_T1w")),
        *(f"sub-1/anat/sub-1_desc-T1w{mask}_mask.json" for mask in ("brain", "intracranial")),
        "sub-1/anat/sub-1_seg-structures_desc-T1w_dseg.json",
    }
    source = nibabel.load(tmp_path / "scans/head.nii.gz")
    labels, probabilities = (nibabel.load(tmp_path / f"out/head_{end}.nii.gz") for end in ("seg", "probabilities"))
    assert labels.shape == source.shape
    assert probabilities.shape == (*source.shape, 3)
    np.testing.assert_allclose(labels.affine, source.affine)
    voxels, fractions = np.asarray(labels.dataobj), probabilities.get_fdata()
    assert voxels.dtype == np.uint8
    assert fractions.min() >= 0
    assert fractions.sum(axis=-1).max() < 1.001
    check_structures(tmp_path / "out", voxels)
    assert bytes(labels.header["descrip"]).startswith(b"Research use only")
    record = json.loads((tmp_path / "out/head_seg.json").read_text())
    assert record["volumes_ml"]["GM"] == pytest.approx((voxels == 2).sum() * 0.064, abs=0.01)
    assert len(record["weights_sha256"]) == 64
    assert record["command"].startswith("brainmri segment scans")
    table = pandas.read_csv(tmp_path / "out/volumes.csv")
    assert [Path(scan).name for scan in table["scan"].unique()] == ["head.nii.gz", "sub-1_T1w.nii.gz"]
    assert table.query("structure == 'GM'")["ml"].iloc[0] == record["volumes_ml"]["GM"]


def check_structures(folder: Path, tissues: np.ndarray) -> None:
    """Structures sum to tissues, sides lie where they are, masks hold what they say, the tables agree."""
    image = nibabel.load(folder / "head_structures.nii.gz")
    codes = np.asarray(image.dataobj)
    names = pandas.read_csv(folder / "head_structures.tsv", sep="\t").set_index("index")["name"].to_dict()
    assert set(np.unique(codes)) <= {0, *names}
    tissue_of = dict(zip(freesurfer.LEFT_CODES, freesurfer.TISSUE_NUMBERS, strict=True))
    tissue_of |= dict(zip(freesurfer.RIGHT_CODES, freesurfer.TISSUE_NUMBERS, strict=True)) | {15: 1}
    np.testing.assert_array_equal(np.vectorize(tissue_of.get)(codes), tissues)
    x = nibabel.affines.apply_affine(image.affine, np.argwhere(codes == 10))[:, 0]
    assert x.mean() < 0  # RAS+: the left thalamus
    brain, intracranial = (np.asarray(nibabel.load(folder / f"head_{name}.nii.gz").dataobj) for name in MASKS)
    assert brain[(codes > 0) & (codes != 24)].all()
    assert intracranial[(codes > 0) | (brain > 0)].all()
    stripped = np.asarray(nibabel.load(folder / "head_skullstripped.nii.gz").dataobj)
    assert not stripped[brain == 0].any()
    record = json.loads((folder / "head_seg.json").read_text())
    assert record["structures_ml"]["Left-Thalamus"] == pytest.approx((codes == 10).sum() * 0.064, abs=0.001)
    of_labels = ((codes > 0) & (codes != 24)).sum() * 0.064
    assert record["volumes_ml"]["brain"] == pytest.approx(of_labels, rel=0.05)  # of the network's probabilities
    assert record["contrast"] == "T1w"
    assert 0.7 < record["confidence"]["scan"] <= 1
    table = pandas.read_csv(folder / "volumes.csv")
    assert {"intracranial", "Thalamus", "ventricles", "subcortical-GM"} <= set(table["structure"])


def test_plain_monai_gives_the_same_labels(mni152_dir: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    scan = mni152_dir / mni152.T1
    result = brainmri("segment", scan, "--output_dir", "out", "--device", "cpu", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "python -m monai.bundle" not in result.stdout  # it makes no such call
    (config,) = config_files("brain_mri_tissue", "inference.json")
    call = ["-m", "monai.bundle", "run", "--config_file", config, "--dataset_dir", str(scan), "--output_dir", "out"]
    subprocess.run([sys.executable, *call, "--device", "cpu"], cwd=tmp_path, check=True, capture_output=True)
    first, second = (
        np.asarray(nibabel.load(tmp_path / "out" / name).dataobj)
        for name in ("sub-mni152_desc-T1w_dseg.nii.gz", "segmentations/sub-mni152_T1w_seg.nii.gz")
    )
    assert first.any()
    np.testing.assert_array_equal(first, second)


def test_done_scans_are_skipped_and_corrected_labels_are_kept(
    predictor: Predictor, mni152_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    scan = tmp_path / "scans" / mni152.T1
    scan.parent.mkdir()
    shutil.copy(mni152_dir / mni152.T1, scan)
    place = [str(scan)]
    result = tmp_path / "sub-mni152_desc-T1w_dseg.nii.gz"
    assert segment(predictor, place, tmp_path) == 0
    record = json.loads((tmp_path / "sub-mni152_desc-T1w_dseg.json").read_text())
    assert record["scan_sha256"] == hashlib.sha256(scan.read_bytes()).hexdigest()
    assert record["weights_sha256"] == hashlib.sha256(predictor.path.read_bytes()).hexdigest()
    assert record["device"].startswith("CPU, ") == (predictor.device.type == "cpu")
    assert set(record["versions"]) == {"custom", "monai", "torch", "python"}
    assert datetime.fromisoformat(record["date"]).tzinfo is not None
    result.write_bytes(b"corrected by hand")
    os.utime(scan, (0, 0))  # the content counts, not the time
    assert segment(predictor, place, tmp_path) == 0
    assert "done already" in capsys.readouterr().out
    assert result.read_bytes() == b"corrected by hand"
    other = Predictor(config_files("brain_mri_tissue", "inference.json"))
    other.sha256 = "other weights"
    assert segment(other, place, tmp_path) == 0
    assert nibabel.load(result).shape
    (kept,) = tmp_path.glob(f"earlier/*/{result.name}")
    assert kept.read_bytes() == b"corrected by hand"
    assert pandas.read_csv(tmp_path / "volumes.csv")["scan"].nunique() == 1


def scan_files(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return [str(folder / name) for name in names]


@pytest.mark.parametrize(
    ("files", "records"),
    [
        (["a/T1.nii.gz", "b/T1.nii.gz"], ["a/T1_seg.json", "b/T1_seg.json"]),
        (["a/x/T1.nii", "b/x/T1.nii"], ["a/x/T1_seg.json", "b/x/T1_seg.json"]),
        (["a/T1.nii", "T1.nii", "b/T2.nii"], ["a/T1_seg.json", "T1_seg.json", "T2_seg.json"]),
        (["a/T1.nii.gz", "b/T1.mgz"], ["a/T1_seg.json", "b/T1_seg.json"]),
        (["a/sub-1_T1w.nii", "b/sub-1_T1w.nii"], ["a/sub-1_desc-T1w_dseg.json", "b/sub-1_desc-T1w_dseg.json"]),
        (["a/T1.nii", "b/T2.nii"], ["T1_seg.json", "T2_seg.json"]),
    ],
)
def test_equal_names_get_the_names_of_their_folders(files: list[str], records: list[str], tmp_path: Path) -> None:
    jobs = find_jobs(scan_files(tmp_path, *files), tmp_path / "out", Options())
    assert [str(results_of(job.scans[0], job.inside, Path())["record"]) for job in jobs] == records


@pytest.mark.parametrize(
    "files", [["a/T1.nii", "a/T1.nii.gz"], ["a/x.mgz", "a/x.nrrd"], ["a/T1.nii", "b/T1.nii", "a/T1.mgz"]]
)
def test_equal_names_in_one_folder(files: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"would give results with the same name\. Rename one"):
        find_jobs(scan_files(tmp_path, *files), tmp_path / "out", Options())


def test_checksum_of_a_dicom_folder(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"2")
    (tmp_path / "a").write_bytes(b"1")
    both = "\n".join(hashlib.sha256(content).hexdigest() for content in (b"1", b"2"))
    assert sha256_of_scan(tmp_path) == hashlib.sha256(both.encode()).hexdigest()
    (tmp_path / "a").write_bytes(b"3")
    assert sha256_of_scan(tmp_path) != hashlib.sha256(both.encode()).hexdigest()


def test_names_of_results() -> None:
    out = Path("out")
    plain = results_of(Path("/x/a/scan.mgz"), Path("a/scan.mgz"), out)
    assert plain["tissues"] == out / "a/scan_seg.nii.gz"
    bids = results_of(Path("/x/sub-1_acq-fast_T2w.nii"), Path("sub-1/anat/sub-1_acq-fast_T2w.nii"), out)
    assert bids["tissues"] == out / "sub-1/anat/sub-1_acq-fast_desc-T2w_dseg.nii.gz"
    described = results_of(Path("sub-1_desc-preproc_T1w.nii"), Path("sub-1_desc-preproc_T1w.nii"), out)
    assert described["tissues"] == out / "sub-1_desc-preprocT1w_dseg.nii.gz"
    assert bids["probabilities"] == out / "sub-1/anat/sub-1_acq-fast_desc-T2w_probseg.nii.gz"


def test_volumes_by_hand() -> None:
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[0, 0, :2], labels[1, 1, :3] = 1, 2
    affine = np.array([[0, -2.0, 0, 5], [2, 0, 0, 5], [0, 0, 2.5, 5], [0, 0, 0, 1]])  # 10 cubic mm a voxel
    assert volumes_ml(labels, affine, LABELS) == {"CSF": 0.02, "GM": 0.03, "WM": 0.0, "all": 0.05}


def test_what_is_hard_to_believe() -> None:
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[2:7, 2:7, 2:7] = 2
    fine = {"CSF": 250.0, "GM": 650.0, "WM": 500.0}
    assert warnings_of(labels, fine) == []
    assert warnings_of(labels, fine | {"GM": 90.0}) == ["GM of 90 ml is implausible (350 to 1000 expected)"]
    labels[2:7, 2:7, 0] = 2
    assert warnings_of(labels, fine) == ["tissue reaches the edge of the scan: the brain may be cut off"]


@given(n=st.integers(0, 50), processes=st.integers(1, 7), step=st.integers(1, 3), first=st.integers(0, 5))
def test_shares_are_a_partition(n: int, processes: int, step: int, first: int) -> None:
    scans = list(range(n))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", str(processes))
        ranks = []
        for rank in range(processes):
            patch.setenv("RANK", str(rank))
            ranks += share_of(scans)
    with pytest.MonkeyPatch.context() as patch:
        most = first + (processes - 1) * step
        for name, value in {"COUNT": processes, "MIN": first, "MAX": most, "STEP": step}.items():
            patch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
        tasks = []
        for task in range(processes):
            patch.setenv("SLURM_ARRAY_TASK_ID", str(first + task * step))
            tasks += share_of(scans)
    assert sorted(ranks) == sorted(tasks) == scans


def test_an_array_with_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"COUNT": 2, "MIN": 3, "MAX": 5, "STEP": 1, "ID": 3}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    with pytest.raises(ConfigError, match=r"2 tasks with gaps between 3 and 5: use 0-1"):
        share_of([1, 2, 3])


def test_the_table_of_volumes_leaves_others_alone(tmp_path: Path) -> None:
    out = tmp_path / "earlier" / "out"
    out.mkdir(parents=True)
    (out / "volumes.csv").write_text("scan,age\nmine,40\n")
    (out / "other_dseg.json").write_text("{}")
    (out / ".partial-x_seg.json").write_text("{")
    record = {"scan": "a", "volumes_ml": {"GM": 1.0}, "warnings": [], "weights_sha256": "x", "version": "1"}
    (out / "a_seg.json").write_text(json.dumps(record))
    collect(out)
    assert pandas.read_csv(out / "volumes.csv")["scan"].tolist() == ["a"]
    (kept,) = out.glob("earlier/*/volumes.csv")
    assert "mine,40" in kept.read_text()
    (out / "b_seg.json").write_text(json.dumps(record | {"scan": "b"}))
    collect(out)
    assert pandas.read_csv(out / "volumes.csv")["scan"].tolist() == ["a", "b"]
    assert len(list(out.glob("earlier/*/volumes.csv"))) == 1


def test_the_table_of_volumes_has_no_earlier_results(tmp_path: Path) -> None:
    """A folder of scans named earlier counts; earlier/DATE-TIME, where results are moved, does not."""
    record = {"volumes_ml": {"GM": 1.0}, "warnings": [], "weights_sha256": "x", "version": "1"}
    for name in (
        "a_seg.json",
        "earlier/b_seg.json",
        "earlier/sub-1/c_seg.json",
        "earlier/20250101-120000/old1_seg.json",
        "earlier/20250101-120000-2/old2_seg.json",
        "earlier/sub-1/earlier/20250101-120000/old3_seg.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(record | {"scan": name}))
    collect(tmp_path)
    rows = pandas.read_csv(tmp_path / "volumes.csv")["scan"].tolist()
    assert rows == ["a_seg.json", "earlier/b_seg.json", "earlier/sub-1/c_seg.json"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "brainmri: Name a scan, a folder of scans, or a .txt list: brainmri segment SCAN.nii.gz"),
        (["nowhere.nii"], "nowhere.nii. Correct the path."),
        (["a", "clash"], "clash/x.mgz and clash/x.nii would give results with the same name"),
        (["a/x.nii", "nowhere.nii", "--ckpt_path", "no.pt"], "nowhere.nii. Correct the path."),  # before the weights
        (["clash", "--ckpt_path", "no.pt"], "clash/x.mgz and clash/x.nii would give results with the same name"),
        (["--joint", "c/x.nii"], "c/x.nii. Correct the path."),  # no value of --joint
        (["a", "--outputs", "tissue"], "There is no output 'tissue'. Use some of tissues, structures, areas, mask"),
        (["a", "--from_mask", "m.nii"], "The mask m.nii does not exist. Correct --from_mask."),
        (["a", "--devise", "cpu"], "There is no option 'devise'; did you mean 'device'?"),
        (["a", "--device", "cuda:9"], "There is no device 'cuda:9' here"),
        (["a", "--ckpt_path", "no.pt"], "There are no weights at no.pt"),
    ],
)
def test_one_sentence(words: list[str], sentence: str, brainmri: Brainmri, tmp_path: Path) -> None:
    scan_files(tmp_path, "clash/x.mgz")
    for folder in ("a", "clash"):
        (tmp_path / folder).mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(np.zeros((50, 50, 50), np.uint8), np.eye(4)), tmp_path / folder / "x.nii")
    result = brainmri("segment", *words, cwd=tmp_path)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1].replace(f"{tmp_path}/", "")
    assert last.startswith("brainmri: ")
    assert sentence in last
    assert {path.name for path in tmp_path.iterdir()} == {"a", "clash"}


def test_no_results_are_promised_where_none_are(brainmri: Brainmri, tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((50, 50, 50), np.uint8), np.eye(4)), tmp_path / "x.nii")
    result = brainmri("segment", "x.nii", cwd=tmp_path)
    assert result.returncode == 1
    assert "x.nii: failed" in result.stdout
    assert "volumes.csv" not in result.stdout
    assert {path.name for path in (tmp_path / "segmentations").iterdir()} == {"run.log"}


def test_interrupted(mni152_dir: Path, tmp_path: Path) -> None:
    call = [sys.executable, "-m", "custom.cli", "segment", str(mni152_dir / mni152.T1), "--output_dir", "out"]
    heed = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(call, **pipes, cwd=tmp_path, preexec_fn=heed)
    assert process.stdout is not None
    assert any(line.startswith("Weights: ") for line in process.stdout)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT)  # a shell says 130 for both
    assert errors.strip().splitlines()[-1] == (
        "brainmri: stopped. Finished results are kept; the same command goes on with the other scans."
    )
    assert "Traceback" not in errors


def record_and_collect(out: Path, name: str, start: Any) -> None:
    """What a process of `brainmri segment` does at its end."""
    record = {"scan": name, "volumes_ml": {"GM": 1.0}, "warnings": [], "weights_sha256": "x", "version": "1"}
    for number in range(10):
        start.wait(60)
        (out / f"{name}-{number}_seg.json").write_text(json.dumps(record | {"scan": f"{name}-{number}"}))
        collect(out)


def test_processes_lose_no_row_of_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for repeat in range(3):
        out = tmp_path / str(repeat)
        out.mkdir()
        start = context.Barrier(3)
        processes = [context.Process(target=record_and_collect, args=(out, name, start)) for name in "abc"]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            assert process.exitcode == 0
        expected = sorted(f"{name}-{number}" for name in "abc" for number in range(10))
        assert sorted(pandas.read_csv(out / "volumes.csv")["scan"]) == expected
        assert not (out / "earlier").exists()
