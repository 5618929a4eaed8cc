"""What all tests share: a small sample, a trained run of it, and the command line."""

from __future__ import annotations

import json
import multiprocessing.process
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
os.environ["MPLBACKEND"] = "Agg"

import nibabel
import numpy as np
import pandas
import torch
from PIL import Image

if not torch.cuda.is_available():  # before triton is imported, by custom.losses
    os.environ["TRITON_INTERPRET"] = "1"

import custom.cli
from custom.running import Predictor
from custom.running.bundles import config_files
from custom.samples import brats as brats_sample
from custom.samples import brats_slices as slices_sample
from custom.samples import hcp as hcp_sample
from custom.samples import iseg as iseg_sample
from custom.samples import mni152 as mni152_sample
from custom.samples import msd as msd_sample
from custom.samples import synthseg_labels as maps_sample
from custom.samples import tumor_images as images_sample
from tests.skips import pytest_make_collect_report, pytest_runtest_makereport  # noqa: F401  # hooks of pytest

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
Brainmri = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="session")
def iseg_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The iSeg sample at 4 mm (49x58x47). Read only: copy it before changing anything."""
    return iseg_sample.write(tmp_path_factory.mktemp("sample") / "iseg", spacing=4)


@pytest.fixture(scope="session")
def synthseg_labels_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six label maps of one template. Read only."""
    return maps_sample.write(tmp_path_factory.mktemp("sample") / "maps", detail=4)


@pytest.fixture(scope="session")
def mni152_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template's T1w and its labels at 4 mm. Read only."""
    return mni152_sample.write(tmp_path_factory.mktemp("sample") / "mni152", spacing=4)


@pytest.fixture(scope="session")
def brain_tumors_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three labelled patients and two others at 4 mm (50x59x48) in BraTS's layout. Read only."""
    return brats_sample.write(tmp_path_factory.mktemp("sample") / "brats", spacing=4, labelled=3)


@pytest.fixture(scope="session")
def msd_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same patients in the Decathlon's layout. Read only."""
    return msd_sample.write(tmp_path_factory.mktemp("sample") / "msd", spacing=4, labelled=3)


@pytest.fixture(scope="session")
def brats_slices_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The labelled patients' slices, 48 of 64x64 each, as HDF5 files. Read only."""
    return slices_sample.write(tmp_path_factory.mktemp("sample") / "slices", spacing=4, labelled=3)


@pytest.fixture(scope="session")
def hcp_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty subjects at 4 mm in HCP's layout. Read only."""
    return hcp_sample.write(tmp_path_factory.mktemp("sample") / "hcp")


@pytest.fixture(scope="session")
def tumor_images_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five simulated patients of each of four classes, 84 images, in Kaggle's layout. Read only."""
    return images_sample.write(tmp_path_factory.mktemp("sample") / "images", images=80)


@pytest.fixture(scope="session")
def cheng_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """657 real slices of three tumors, 128x128, as PNG (without loss) in Kaggle's layout, all in Training. Read only.

    The set names no patients; slices of one follow each other. `block` counts 15 slices that do, and of three blocks
    the third is left out, so that between groups.csv's groups, of two blocks each, lie 45 slices of the original.
    """
    source = SHARED / "cheng2d" / "cheng_t1ce_128px.npz"
    if not source.is_file():
        pytest.skip(f"J. Cheng's slices aren't here ({source}).")
    with np.load(source) as archive:
        content = {key: archive[key] for key in ("image", "label", "block", "index")}
    folder = tmp_path_factory.mktemp("cheng") / "cheng"
    rows = []
    for pixels, label, block, index in zip(*content.values(), strict=True):
        image = f"Training/{('meningioma', 'glioma', 'pituitary')[label]}/{index:04d}.png"
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / image)
        rows.append({"image": image, "group": f"blocks {block // 3 * 3 + 1} and {block // 3 * 3 + 2}"})
    pandas.DataFrame(rows).to_csv(folder / "groups.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def own_dir(mni152_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four labelled scans and one without labels as a user would lay them out for MSD's dataset.json. Read only."""
    folder = tmp_path_factory.mktemp("own")
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir()
    scan = nibabel.load(mni152_dir / mni152_sample.T1)
    rng, names = np.random.default_rng(0), [f"sub-{number}.nii.gz" for number in (1, 2, 3, 10)]
    for name in (*(f"imagesTr/{name}" for name in names), "imagesTs/sub-11.nii.gz"):
        noisy = scan.get_fdata(dtype=np.float32) + rng.normal(0, 5, scan.shape).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(noisy, scan.affine), folder / name)
    for name in names:
        shutil.copy(mni152_dir / mni152_sample.TRUTH, folder / "labelsTr" / name)
    content = {
        "modality": {"0": "T1w"},
        "labels": {str(code): name for code, name in mni152_sample.LABELS.items()},
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in reversed(names)],
        "test": ["./imagesTs/sub-11.nii.gz"],
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def iseg_copy(iseg_dir: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(iseg_dir, tmp_path / "iseg"))


@pytest.fixture(scope="session")
def start_brainmri() -> Callable[..., multiprocessing.process.BaseProcess]:
    """Starts `brainmri ...` in another process and folder; what it prints goes to two files.

    The processes are forks of one that has imported what takes seconds, and has run nothing.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["custom.cli", "custom.running.workflow", "custom.networks", "monai.handlers"])

    def start(words: Iterable[object], cwd: Path, *outputs: Path) -> multiprocessing.process.BaseProcess:
        process = server.Process(target=run_command, args=([*map(str, words)], cwd, *outputs))
        process.start()
        return process

    return start


@pytest.fixture(scope="session")
def brainmri(start_brainmri: Callable[..., multiprocessing.process.BaseProcess]) -> Brainmri:
    """Runs `brainmri ...` in another process and folder, and returns what it printed."""

    def call(*words: object, cwd: Path, timeout: int = 900) -> subprocess.CompletedProcess:
        with tempfile.TemporaryDirectory() as folder:
            said = [Path(folder) / name for name in ("stdout", "stderr")]
            process = start_brainmri(words, cwd, *said)
            process.join(timeout)
            if process.exitcode is None:
                process.kill()
                raise subprocess.TimeoutExpired(["brainmri", *map(str, words)], timeout)
            return subprocess.CompletedProcess(words, process.exitcode, *(path.read_text("utf-8") for path in said))

    return call


def run_command(words: list[str], cwd: Path, *outputs: Path) -> None:
    """What `brainmri` does, in this process."""
    for number, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)  # what children and C libraries print comes too
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", buffering=1) for number in (1, 2))
    os.chdir(cwd)
    sys.argv = ["brainmri", *words]
    custom.cli.main()


@pytest.fixture(scope="session")
def predictor() -> Predictor:
    """The shipped network, as brainmri segment uses it."""
    return Predictor(config_files("brain_mri_tissue", "inference.json"))


HOLDER = """
import sys
from pathlib import Path
from custom.locks import run_locked
with run_locked(Path(sys.argv[1])):
    print("taken", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds tmp_path until it reads a line."""
    call = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(call, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "taken\n"
        yield process
        process.kill()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("This user cannot mount a tmpfs.")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


SMALL_RUN = ("--roi_size", "[32,32,32]", "--samples_per_volume", "1")


@pytest.fixture(scope="session")
def trained(iseg_dir: Path, brainmri: Brainmri, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output_dir of a run of two epochs. Read only."""
    folder = tmp_path_factory.mktemp("trained")
    words = ("--dataset_dir", iseg_dir, "--output_dir", folder / "run", "--max_epochs", 2, "--val_interval", 1)
    result = brainmri("train", "iseg", *words, *SMALL_RUN, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder / "run"
