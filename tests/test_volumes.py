"""volumes.csv, volumes_wide.csv, and `brainmri volumes` after corrections by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas
import pytest

from custom.commands.segment_files import results_of
from custom.commands.volumes import CORRECTED, collect
from custom.datasets import freesurfer
from custom.running.volume_tables import COLUMNS, entities_of, synthseg_columns, tidy_rows, wide_rows
from tests.conftest import Brainmri

NAMES = {code: name for code, (name, _) in freesurfer.names_and_colours().items()}
TISSUE_OF = dict(zip(freesurfer.LEFT_CODES, freesurfer.TISSUE_NUMBERS, strict=True))
TISSUE_OF |= dict(zip(freesurfer.RIGHT_CODES, freesurfer.TISSUE_NUMBERS, strict=True)) | {15: 1}
AFFINE = np.diag([-5.0, 5.0, 4.0, 1.0])  # 0.1 ml a voxel


def record_of(scan: str, **changes: Any) -> dict[str, Any]:
    """100 ml inside the skull; of each structure as many voxels of 0.1 ml as its code says."""
    structures = {name: code / 10 for code, name in NAMES.items()}
    tissues = [sum(code / 10 for code in NAMES if TISSUE_OF[code] == number) for number in (1, 2, 3)]
    volumes = dict(zip(("CSF", "GM", "WM"), (round(ml, 2) for ml in tissues), strict=True))
    volumes |= {"all": round(sum(tissues), 2), "brain": round(sum(tissues) - 2.4, 2), "intracranial": 100.0}
    return {
        "scan": scan,
        "volumes_ml": volumes,
        "structures_ml": structures,
        "asymmetry_percent": {"Thalamus": -132.2},  # 200 (1.0 - 4.9) / 5.9
        "confidence": {"scan": 0.9, "GM": 0.8} | dict.fromkeys(structures, 0.5) | {"Left-Thalamus": 0.6},
        "warnings": ["one", "two"],
        "labels": {"0": "background", "1": "CSF", "2": "GM", "3": "WM"},
    } | changes


def codes_of_record() -> np.ndarray:
    voxels = [code for code in NAMES for _ in range(code)]
    return np.pad(np.array(voxels, np.uint8), (0, 20**3 - len(voxels))).reshape(20, 20, 20)


def write_results(folder: Path, scan: str, *outputs: str) -> dict[str, Path]:
    """A record and the label files of these outputs, as `brainmri segment` writes them."""
    paths = results_of(Path(scan), Path(scan), folder)
    codes = codes_of_record()
    tissues = np.vectorize(TISSUE_OF.get)(codes).astype(np.uint8)
    paths["record"].parent.mkdir(parents=True, exist_ok=True)
    for what, voxels in {"structures": codes, "tissues": tissues}.items():
        if what in outputs:
            nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), paths[what])
    paths["record"].write_text(json.dumps(record_of(scan)))
    return paths


def change(path: Path, old: int, new: int, count: int) -> None:
    """Gives the first voxels of one label another one, as a person would with a brush."""
    image = nibabel.load(path)
    voxels = np.array(image.dataobj)
    voxels.flat[np.flatnonzero(voxels == old)[:count]] = new
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine), path)


@pytest.mark.parametrize(
    ("scan", "entities"),
    [
        ("/data/sub-01/ses-a/anat/sub-01_ses-a_acq-fast_T1w.nii.gz", ("sub-01", "ses-a")),
        ("sub-x_T1w.nii", ("sub-x", "")),
        ("/data/sub-01/T1.mgz", ("", "")),
    ],
)
def test_entities(scan: str, entities: tuple[str, str]) -> None:
    assert entities_of(scan) == entities


def test_rows_by_hand() -> None:
    table = pandas.DataFrame(tidy_rows(record_of("sub-1_T1w.nii")))
    assert tuple(table) == COLUMNS
    rows = table.set_index(["structure", "side"])
    thalamus = rows.loc["Thalamus"]
    assert thalamus["ml"].to_dict() == {"left": 1.0, "right": 4.9, "both": 5.9}
    assert thalamus.loc["both", "share_of_icv"] == 0.059
    assert thalamus.loc["both", "confidence"] == round((1.0 * 0.6 + 4.9 * 0.5) / 5.9, 3)  # 0.517
    assert thalamus.loc["both", "asymmetry_percent"] == -132.2
    assert thalamus.loc[["left", "right"], "asymmetry_percent"].isna().all()
    assert rows.loc[("Brain-Stem", "both"), "ml"] == 1.6
    assert "left" not in rows.loc["Brain-Stem"].index
    # left codes 10, 11, 12, 13, 17, 18, 26 and right codes 49, 50, 51, 52, 53, 54, 58
    assert rows.loc[("subcortical-GM", "both"), "ml"] == pytest.approx((107 + 367) / 10)
    assert rows.loc[("ventricles", "both"), "ml"] == pytest.approx((4 + 43 + 14 + 15) / 10)
    assert rows.loc[("GM", "both"), "confidence"] == 0.8
    assert set(table["warnings"]) == {"one; two"}
    assert set(table["subject"]) == {"sub-1"}
    assert (table["scan_confidence"] == 0.9).all()
    assert (table["icv_ml"] == 100).all()
    assert not table.duplicated(["structure", "side"]).any()


def test_a_network_with_labels_of_its_own_has_rows_of_these() -> None:
    record = {"scan": "a", "volumes_ml": {"lesion": 1.5, "all": 1.5}, "warnings": []}
    rows = tidy_rows(record)
    assert [(row["structure"], row["side"], row["ml"]) for row in rows] == [
        ("lesion", "both", 1.5),
        ("all", "both", 1.5),
    ]
    assert rows[0]["share_of_icv"] is None
    assert wide_rows([(Path("a_seg.json"), record)]) == []


def test_columns_of_synthseg() -> None:
    """The names and their order as in the tables that SynthSeg writes."""
    columns = list(synthseg_columns())
    assert columns[:11] == [
        "left cerebral white matter", "left cerebral cortex", "left lateral ventricle", "left cerebellum white matter",
        "left cerebellum cortex", "left thalamus", "left caudate", "left putamen", "left pallidum", "3rd ventricle",
        "4th ventricle",
    ]  # fmt: skip
    assert columns[11:18] == [
        "brain-stem", "left hippocampus", "left amygdala", "csf", "left accumbens area", "left ventral DC",
        "right cerebral white matter",
    ]  # fmt: skip
    assert len(columns) == 30
    assert sorted(synthseg_columns().values()) == sorted(NAMES.values())


def test_one_row_a_scan(tmp_path: Path) -> None:
    for scan in ("a/sub-1_T1w.nii.gz", "b/T1.mgz", "c/T1.mgz"):
        write_results(tmp_path, scan)
    collect(tmp_path, wide=True)
    table = pandas.read_csv(tmp_path / "volumes_wide.csv")
    assert table["subject"].tolist() == ["sub-1_T1w", "b/T1.mgz", "c/T1.mgz"]  # two scans are called T1
    assert list(table)[:3] == ["subject", "total intracranial", "left cerebral white matter"]
    assert table["total intracranial"].tolist() == [100_000.0] * 3  # cubic mm
    assert table["right thalamus"].tolist() == [4900.0] * 3
    (tmp_path / "c/T1_seg.json").unlink()
    collect(tmp_path)  # a table that exists is kept up to date
    assert len(pandas.read_csv(tmp_path / "volumes_wide.csv")) == 2


def test_labels_that_were_corrected_are_measured_again(brainmri: Brainmri, tmp_path: Path) -> None:
    same = write_results(tmp_path, "sub-1_T1w.nii.gz", "tissues", "structures")
    other = write_results(tmp_path, "sub-2_T1w.nii.gz", "tissues", "structures")
    before = same["record"].read_bytes()
    change(other["structures"], old=49, new=10, count=9)  # of the right thalamus to the left one
    result = brainmri("volumes", tmp_path, "--wide", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"sub-2_desc-T1w_dseg.json: {CORRECTED}." in result.stdout
    assert "sub-1" not in result.stdout
    assert "Research use only" in result.stdout
    assert same["record"].read_bytes() == before
    record = json.loads(other["record"].read_text())
    assert record["structures_ml"]["Left-Thalamus"] == 1.9
    assert record["structures_ml"]["Right-Thalamus"] == 4.0
    assert record["asymmetry_percent"]["Thalamus"] == round(200 * (1.9 - 4.0) / 5.9, 1)
    assert record["volumes_ml"] == record_of("")["volumes_ml"]  # the tissue is the same
    assert record["confidence"] == {}
    assert record["warnings"][:3] == [CORRECTED, "one", "two"]
    (kept,) = tmp_path.glob("earlier/*/sub-2_desc-T1w_dseg.json")
    assert json.loads(kept.read_text())["structures_ml"]["Left-Thalamus"] == 1.0
    rows = pandas.read_csv(tmp_path / "volumes.csv").query("structure == 'Thalamus' and side == 'left'")
    assert rows.set_index("subject")["ml"].to_dict() == {"sub-1": 1.0, "sub-2": 1.9}
    assert pandas.read_csv(tmp_path / "volumes_wide.csv")["left thalamus"].tolist() == [1000.0, 1900.0]
    shutil.rmtree(tmp_path / "earlier")
    assert CORRECTED not in brainmri("volumes", tmp_path, cwd=tmp_path).stdout  # once
    assert not (tmp_path / "earlier").exists()


def test_what_has_no_file_leaves_the_record_if_the_labels_changed(brainmri: Brainmri, tmp_path: Path) -> None:
    paths = write_results(tmp_path, "scan.nii.gz", "tissues")
    assert CORRECTED not in brainmri("volumes", ".", cwd=tmp_path).stdout
    change(paths["tissues"], old=2, new=3, count=20)
    assert CORRECTED in brainmri("volumes", ".", cwd=tmp_path).stdout
    old, new = record_of("")["volumes_ml"], json.loads(paths["record"].read_text())
    assert new["volumes_ml"]["WM"] == pytest.approx(old["WM"] + 2)
    assert new["volumes_ml"]["intracranial"] == 100
    assert "brain" not in new["volumes_ml"]
    assert new["structures_ml"] == {}


def test_label_maps_that_do_not_agree(brainmri: Brainmri, tmp_path: Path) -> None:
    paths = write_results(tmp_path, "scan.nii.gz", "tissues", "structures")
    change(paths["tissues"], old=2, new=3, count=20)
    brainmri("volumes", ".", cwd=tmp_path)
    warnings = json.loads(paths["record"].read_text())["warnings"]
    assert "its tissues and its structures do not agree: correct both label maps" in warnings


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (None, "brainmri: {folder} holds no results of brainmri segment. Name its --output_dir."),
        (np.zeros((4, 4, 4, 2), np.uint8), "scan_seg.nii.gz is no label map: it needs three axes and whole numbers"),
        (np.full((4, 4, 4), 0.5, np.float32), "scan_seg.nii.gz is no label map: it needs three axes and whole numbers"),
    ],
)
def test_one_sentence(damage: np.ndarray | None, sentence: str, brainmri: Brainmri, tmp_path: Path) -> None:
    if damage is not None:
        nibabel.save(nibabel.Nifti1Image(damage, AFFINE), write_results(tmp_path, "scan.nii.gz")["tissues"])
    files = {path.name for path in tmp_path.iterdir()}
    result = brainmri("volumes", tmp_path, cwd=tmp_path)
    assert result.returncode == 1
    assert sentence.format(folder=tmp_path) in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == files
