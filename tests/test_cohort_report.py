"""`brainmri report DIR`: scores by hand, and what the page says and leaves out. tests/label has it in a browser."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from custom.commands.cohort_report import write_report
from custom.errors import MissingDataError
from custom.reports.cohort import CONFIDENCE, ICV, Scan, score
from custom.reports.viewer import _mosaic, view
from tests.conftest import Brainmri
from tests.test_volumes import AFFINE, record_of, write_results


def test_scores_by_hand() -> None:
    """Medians 1500 and 0.9; median absolute deviations 100 and 0.02, times 1.4826."""
    volumes = {"a": 1400.0, "b": 1500.0, "c": 1600.0, "d": 1300.0, "e": 2100.0}
    trusted = {"a": 0.9, "b": 0.92, "c": 0.88, "d": 0.9, "e": 0.99}
    scans = [Scan(name, {ICV: volumes[name], CONFIDENCE: trusted[name]}, []) for name in volumes]
    scans[1].warnings = ["one", "two"]
    ordered = score(scans)
    assert {scan.name: scan.unusual for scan in ordered} == {
        "e": round(600 / 148.26, 1),  # 4.0; the high confidence is not unusual
        "b": 2.0,
        "d": round(200 / 148.26, 1),
        "a": round(100 / 148.26, 1),
        "c": round(0.02 / (1.4826 * 0.02), 1),  # 0.7, as is its volume
    }
    assert [scan.name for scan in ordered] == ["e", "b", "d", "c", "a"]  # of equal scores, less confidence first
    assert ordered[0].reason == "intracranial volume high (+4.0)"


def test_few_scans_have_warnings_alone() -> None:
    scans = [Scan(str(number), {ICV: 1000.0 * number}, ["x"] * (number == 2)) for number in range(1, 5)]
    assert [(scan.name, scan.unusual) for scan in score(scans)][:2] == [("2", 1.0), ("1", 0.0)]


def test_equal_scans_are_not_unusual() -> None:
    """The spread is at least 1% of the median."""
    scans = [Scan(str(number), {ICV: 1000.0 + (number == 3)}, []) for number in range(9)]
    assert max(scan.unusual for scan in score(scans)) == 0.1


def test_a_mosaic_by_hand() -> None:
    """Four slices of two by three voxels, two in a row, z upwards."""
    volume = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    mosaic = _mosaic(volume)
    assert mosaic.shape == (6, 4)
    np.testing.assert_array_equal(mosaic[:3, :2], volume[0, :, ::-1].T)
    np.testing.assert_array_equal(mosaic[:3, 2:], volume[1, :, ::-1].T)
    np.testing.assert_array_equal(mosaic[3:, 2:], volume[3, :, ::-1].T)


def test_a_view_shows_no_face(tmp_path: Path) -> None:
    """Beyond 6 mm around the labels the picture is black, though the scan is bright everywhere."""
    labels = np.zeros((60, 60, 60), np.uint8)
    labels[20:40, 20:40, 20:40] = 2
    scan = np.random.default_rng(0).uniform(100, 200, labels.shape)
    shown = json.loads(view(scan, labels, np.diag([2.0, 2, 2, 1]), {2: ("GM", (200, 0, 0)), 41: ("WM", (200, 0, 0))}))
    assert shown["size"] == [26, 26, 26]
    assert shown["names"] == {"#c80000": "GM", "#c80001": "WM"}  # each colour once
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown["scan"].partition(",")[2]))).convert("L"))
    assert picture.mean() > 20
    corner = picture[:3, :3]  # 6 mm from the labels in all three directions
    assert corner.max() < 10
    assert view(scan, np.zeros_like(labels), np.eye(4), {}) == ""


def test_the_page_has_bids_names_and_no_paths(brainmri: Brainmri, tmp_path: Path) -> None:
    for scan in ("secret/sub-1_T1w.nii.gz", "secret/Doe_John_1970.nii.gz", "other/sub-1_T1w.nii.gz"):
        paths = write_results(tmp_path / "out", scan, "tissues", "structures")
        record = record_of(f"/home/me/{scan}", date="2025-01-02", command="brainmri segment secret", warnings=[
            f"/home/me/{scan} is a <b>slab</b>",
        ])  # fmt: skip
        paths["record"].write_text(json.dumps(record))
    (tmp_path / "out/report.html").write_text("of the user")
    result = brainmri("report", "out", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    for name in ("sub-1_T1w</button>", "sub-1_T1w (3)</button>", "scan 2</button>", "Research use only", "Hippocampus"):
        assert name in page
    for private in ("Doe", "1970", "secret", "/home", "2025-01-02", "<b>slab"):
        assert private not in page
    assert "the scan is a &lt;b&gt;slab" in page
    assert page.count('type="application/json"') == 3
    assert "src=" not in page.replace("img-src", "").replace("script-src", "").replace(".src=", "")  # works offline
    (kept,) = (tmp_path / "out").glob("earlier/*/report.html")
    assert kept.read_text() == "of the user"
    write_report(tmp_path / "out", names=True)
    assert "Doe_John_1970</button>" in (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert len(list((tmp_path / "out").glob("earlier/*/report.html"))) == 1  # its own page is replaced


def test_a_scan_that_is_there_is_drawn_and_a_damaged_label_file_is_not(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).random((20, 20, 20), np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), tmp_path / "a.nii")
    first = write_results(tmp_path / "out", "a.nii", "tissues")
    first["record"].write_text(json.dumps(record_of(str(tmp_path / "a.nii"))))
    broken = write_results(tmp_path / "out", "b.nii", "tissues")
    broken["tissues"].write_bytes(b"broken")
    page = write_report(tmp_path / "out").read_text(encoding="utf-8")
    assert page.count('type="application/json"') == 1
    assert "GM" in page


def test_a_folder_without_results(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="holds no results of brainmri segment"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []
