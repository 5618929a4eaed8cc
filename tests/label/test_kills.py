"""A server that is killed while it saves a label map loses neither the new one nor the old one."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from custom.files import written_whole
from custom.serving.studies import Store
from tests.kills import killed_everywhere


def label(path: Path, value: int) -> Path:
    nibabel.save(nibabel.Nifti1Image(np.full((4, 4, 4), value, np.uint8), np.eye(4)), path)
    return path


def value_of(path: Path) -> int:
    return int(np.asarray(nibabel.load(path).dataobj).max())


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_saved_labels(ending: str, tmp_path: Path) -> None:
    """The older label map is .nii.gz; one of another format takes its place too."""
    studies = tmp_path / "studies"
    studies.mkdir()
    label(studies / "scan.nii.gz", 1)
    final, values = studies / "labels/final", []
    old, new = label(tmp_path / "old.nii.gz", 2), label(tmp_path / f"new{ending}", 3)

    def save(path: Path) -> None:
        Store(str(studies), True).save_label("scan", str(path), "final", {})

    def check() -> None:
        saved = [value_of(path) for path in final.glob("scan.nii*")]
        kept = [value_of(path) for path in final.glob("earlier/*/scan.nii*")]
        assert saved
        assert 2 in saved + kept
        values.append(max(saved))

    save(old)
    assert killed_everywhere(lambda: save(new), studies, check) > 4
    assert [values[0], values[-1]] == [2, 3]
    assert [path.name for path in final.glob("scan.nii*")] == [f"scan{ending}"]


def test_a_start_removes_what_a_killed_server_left(tmp_path: Path) -> None:
    final = tmp_path / "labels" / "final"
    with written_whole(final / "scan.nii.gz") as partial:
        partial.write_text("half")
        living = partial.name
    left = final / living.replace(partial.name.split(".pid")[1].split("-")[0], "4194304")  # no process has this number
    left.write_text("half")
    Store(str(tmp_path), True)
    assert not left.exists()
    assert (final / "scan.nii.gz").exists()
