"""What others install: the wheel and the source archive, a read-only installation, hashes and licences."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest

import custom
from scripts.licences import PAGE, required

ROOT = Path(__file__).parents[1]
NOBODY = 65534


def pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([\w.\-]+)==([\w.+]+)", path.read_text(encoding="utf-8").lower(), flags=re.MULTILINE))


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("packaging")
    unwanted = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "quickstart", "runs", "data", "__pycache__")
    source = shutil.copytree(ROOT, folder / "source", ignore=unwanted)
    call = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), str(source)]
    done = subprocess.run(call, capture_output=True, encoding="utf-8", check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "dist"


@pytest.mark.slow
def test_twine_accepts_what_is_built(dist: Path) -> None:
    files = sorted(dist.iterdir())
    assert [file.suffix for file in files] == [".whl", ".gz"]
    call = [sys.executable, "-m", "twine", "check", "--strict", *map(str, files)]
    done = subprocess.run(call, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user can enter; pytest's own folders are for their owner only."""
    folder = Path(tempfile.mkdtemp(prefix="brainmri-packaging-"))
    folder.chmod(0o755)
    yield folder
    subprocess.run(["chmod", "-R", "u+w", folder], check=True)
    shutil.rmtree(folder)


@pytest.mark.slow
def test_segment_in_a_read_only_installation_without_home_and_network(
    dist: Path, open_folder: Path, mni152_dir: Path
) -> None:
    """As another user, who may write to the output's folder only. Root ignores permissions, so it becomes nobody."""
    site, work, scan = open_folder / "site", open_folder / "work", open_folder / "scan.nii.gz"
    (wheel,) = dist.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True, timeout=300)
    shutil.copyfile(mni152_dir / "sub-mni152_T1w.nii.gz", scan)
    work.mkdir()
    words = [sys.executable, "-P", "-B", "-m", "custom.cli", "segment", str(scan), "--output_dir", str(work / "out")]
    if os.getuid() == 0:
        words = ["unshare", "--net", "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *words]
        os.chown(work, NOBODY, NOBODY)
    subprocess.run(["chmod", "-R", "a+rX,a-w", site, scan], check=True)
    gone = {"HOME": "/nowhere", "PYTHONPATH": str(site), "TMPDIR": str(work), "MPLCONFIGDIR": ""}
    before = sorted(site.rglob("*"))
    done = subprocess.run(
        words, cwd=open_folder, env=os.environ | gone, capture_output=True, encoding="utf-8", check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((work / "out" / "scan_seg.json").read_text())
    assert 350 < record["volumes_ml"]["GM"] < 1000
    assert set(np.unique(nibabel.load(work / "out" / "scan_seg.nii.gz").dataobj)) == {0, 1, 2, 3}
    assert f"Weights: {site}/custom/bundles/brain_mri_tissue_segmentation/models/model.pt" in done.stdout
    assert sorted(site.rglob("*")) == before


def test_the_hashes_are_of_the_versions_of_the_constraints() -> None:
    hashed, pinned = pins(ROOT / "requirements-hashes.txt"), pins(ROOT / "constraints.txt")
    assert {name: hashed[name] for name in hashed.keys() & pinned} == {
        name: pinned[name] for name in hashed.keys() & pinned
    }
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    names = {re.split(r"[\[>=<]", line)[0].lower() for line in needed}
    assert names <= hashed.keys()
    blocks = re.split(r"^(?=[a-z])", (ROOT / "requirements-hashes.txt").read_text(), flags=re.MULTILINE)[1:]
    assert [block for block in blocks if "--hash=sha256:" not in block] == []


def test_the_page_of_licences_names_every_package() -> None:
    rows = re.findall(r"^\| ([\w.\-]+) \| \d[^|]* \| (.+) \|$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(required()) <= {name for name, _ in rows}
    assert [name for name, licence in rows if "see its files" in licence] == []


def test_the_citation_has_this_version() -> None:
    citation = dict(re.findall(r"^(version|date-released): (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE))
    released = dict(re.findall(r"^## \[([\d.]+)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE))
    assert citation == {"version": custom.__version__, "date-released": released[custom.__version__]}


def test_the_containers_install_what_the_wheel_needs() -> None:
    """Both copy the files that pip builds the wheel from."""
    copied = {"constraints.txt", "pyproject.toml", "setup.py", "README.md", "LICENSE", "custom", "bundles"}
    folder = ROOT / "scripts" / "containers"
    docker, apptainer = ((folder / name).read_text() for name in ("Dockerfile", "apptainer.def"))
    assert set(re.findall(r"^!(\S+)$", (folder / "Dockerfile.dockerignore").read_text(), re.M)) == copied
    assert {word for line in re.findall(r"^COPY (.+) \S+$", docker, re.M) for word in line.split()} == copied
    assert set(re.findall(r"^    (\S+) /source/", apptainer, re.M)) == copied
    assert all((ROOT / name).exists() for name in copied)
