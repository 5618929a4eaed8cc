"""A real MONAI Label server with this project's app, Orthanc and Chromium where they are installed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import nibabel
import numpy as np
import pytest
import requests
import torch
from monai.bundle import ConfigParser
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

import custom
from custom.checkpoints.record import write_record
from custom.running.bundles import find_bundles
from custom.samples import brats as brats_sample
from custom.samples import iseg as iseg_sample
from custom.samples import mni152 as mni152_sample
from tests.label.dicom_series import send

sys.path.insert(0, str(Path(custom.__file__).parent / "serving" / "shims"))  # as the server does
TISSUE, INFANT, TUMOR, SLICES = (
    f"{name}_segmentation" for name in ("brain_mri_tissue", "iseg_mri_tissue", "brats_mri_tumor", "brats_mri_slice")
)


def pytest_configure(config: pytest.Config) -> None:
    """MONAI Label and its old dependencies warn often: here a warning is shown, and is no error."""
    config.addinivalue_line("filterwarnings", "default")


class Server:
    """`python -m custom.serving` in a process of its own.

    Args:
        folder: where it runs, and keeps its log.
        words: its command line.
        environment: variables.
    """

    def __init__(self, folder: Path, *words: object, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "server.log"
        command = [sys.executable, "-m", "custom.serving", "--port", str(self.port), *map(str, words)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, env=os.environ | environment
            )
        try:
            wait_for(self._answers, 120, self.log)
        except AssertionError:
            self.process.kill()
            raise

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(self.log.read_text()[-3000:])
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{self.url}/auth/", timeout=5).status_code in (200, 403)
        return False

    def ask(self, method: str, path: str, **arguments: Any) -> requests.Response:
        return requests.request(method, self.url + path, timeout=300, **arguments)

    def infer(self, model: str, image: str, target: Path, **params: Any) -> nibabel.Nifti1Image:
        """The label map, read from the file that came back."""
        data = {"params": json.dumps(params)}
        answer = self.ask("POST", f"/infer/{model}?image={image}&output=image", data=data)
        assert answer.status_code == 200, answer.text
        target.write_bytes(answer.content)
        return nibabel.load(target)

    def finished(self, task: str, seconds: float = 300) -> dict[str, Any]:
        """What became of "/train/", "/scoring/" or "/batch/infer", waited for."""

        def status() -> Any:
            found = self.ask("GET", task).json()
            return found if found["status"] in ("DONE", "ERROR") else None

        return wait_for(status, seconds, self.log)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)


def skip_or_fail(reason: str) -> NoReturn:
    """Skips a test whose tools are missing; in CI (CI=true) the test fails, so that it cannot disappear unseen."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for(done: Any, seconds: float, about: Any) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := done():
            return found
        time.sleep(0.3)
    raise AssertionError(f"not within {seconds} s: {about}")


@pytest.fixture(scope="session")
def iseg_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The iSeg sample at 4 mm (50x59x48). Read only."""
    return iseg_sample.write(tmp_path_factory.mktemp("sample") / "iseg", spacing=4)


@pytest.fixture(scope="session")
def runs(iseg_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What trainings left: the iSeg bundle's after two epochs on its sample; start weights for the tumor bundles."""
    folder = tmp_path_factory.mktemp("trained")
    words = ["--dataset_dir", iseg_dir, "--max_epochs", 2, "--val_interval", 1, "--samples_per_volume", 1]
    command = [sys.executable, "-m", "custom.cli", "train", "iseg", *map(str, words), "--roi_size", "[32,32,32]"]
    trained = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", check=False)
    assert trained.returncode == 0, trained.stderr
    for name in (TUMOR, SLICES):
        torch.manual_seed(0)
        parser = ConfigParser()
        parser.read_config(find_bundles()[name] / "configs" / "inference.json")
        place = folder / "runs" / name
        place.mkdir(parents=True)
        torch.save(parser.get_parsed_content("network_def").state_dict(), place / "model.pt")
        write_record(place / "model.pt", iseg_dir)
    return folder / "runs"


@pytest.fixture(scope="session")
def pairs(iseg_dir: Path) -> dict[str, nibabel.Nifti1Image]:
    """{"sub-01_T1w": image, ...} of six infants of the sample."""
    found = {}
    for number in range(1, 7):
        for contrast in ("T1", "T2"):
            image = nibabel.load(iseg_dir / f"subject-{number}-{contrast}.hdr")
            voxels = np.asarray(image.dataobj)[..., 0].astype(np.float32)
            found[f"sub-{number:02d}_{contrast}w"] = nibabel.Nifti1Image(voxels, image.affine)
    return found


@pytest.fixture(scope="session")
def truths(iseg_dir: Path) -> dict[str, np.ndarray]:
    """{"sub-01_T1w": its labels 0 to 3, ...}"""
    found = {}
    for number in range(1, 7):
        codes = np.asarray(nibabel.load(iseg_dir / f"subject-{number}-label.hdr").dataobj)[..., 0]
        found[f"sub-{number:02d}_T1w"] = np.select([codes == code for code in (10, 150, 250)], [1, 2, 3]).astype(
            np.uint8
        )
    return found


@pytest.fixture(scope="session")
def tumor_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """FLAIR, T1, T1ce and T2 of two patients of BraTS's sample at 4 mm, and their label maps."""
    folder = brats_sample.write(tmp_path_factory.mktemp("sample") / "brats", spacing=4, labelled=3)
    return sorted(folder.rglob("*.nii.gz"))


@pytest.fixture(scope="session")
def studies(
    pairs: dict[str, nibabel.Nifti1Image], tumor_files: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Six infants, and the tumor sample's patients, as a user's folder."""
    folder = tmp_path_factory.mktemp("studies")
    for name, image in pairs.items():
        nibabel.save(image, folder / f"{name}.nii.gz")
    for path in tumor_files:
        shutil.copy(path, folder / path.name)
    return folder


@pytest.fixture(scope="session")
def server(studies: Path, runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """All four bundles on files."""
    words = ("--studies", studies, "--runs", runs, "--bundles", "iseg,brain_mri_tissue,brats_mri_tumor,brats_mri_slice")
    one = Server(tmp_path_factory.mktemp("server"), *words)
    yield one
    one.stop()


class Orthanc:
    """Debian's Orthanc with a configuration and data of its own, on loopback."""

    def __init__(self, folder: Path) -> None:
        self.port, self.dicom_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.dicomweb = f"{self.url}/dicom-web"
        (plugin,) = Path("/usr").glob("*/orthanc/plugins/libOrthancDicomWeb.so")
        settings = {
            "Name": "tests",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "HttpPort": self.port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomServerEnabled": True,
            "DicomAet": "ORTHANC",
            "DicomPort": self.dicom_port,
            "DicomAlwaysAllowStore": True,
            "UnknownSopClassAccepted": True,
            "Plugins": [str(plugin)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))
        with (folder / "orthanc.log").open("w") as log:
            command = [orthanc_program(), str(folder / "orthanc.json")]
            self.process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        wait_for(self._answers, 60, folder / "orthanc.log")

    def _answers(self) -> bool:
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{self.url}/system", timeout=5).status_code == 200
        return False

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)


def orthanc_program() -> str | None:
    return shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    if orthanc_program() is None or not list(Path("/usr").glob("*/orthanc/plugins/libOrthancDicomWeb.so")):
        skip_or_fail("Orthanc is not installed. Install it: apt-get install orthanc orthanc-dicomweb")
    one = Orthanc(tmp_path_factory.mktemp("orthanc"))
    yield one
    one.stop()


@pytest.fixture(scope="session")
def mni152(tmp_path_factory: pytest.TempPathFactory) -> nibabel.Nifti1Image:
    """The template's T1w at 2 mm, a brain that looks like one, in whole numbers up to 1000."""
    image = nibabel.load(
        mni152_sample.write(tmp_path_factory.mktemp("sample") / "mni152", spacing=2) / mni152_sample.T1
    )
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    return nibabel.Nifti1Image(np.round(voxels / voxels.max() * 1000), image.affine)


@pytest.fixture(scope="session")
def series(orthanc: Orthanc, pairs: dict[str, nibabel.Nifti1Image], mni152: nibabel.Nifti1Image) -> dict[str, str]:
    """{"sub-01_T1w": SeriesInstanceUID, ...} of some patients on the PACS."""
    found = {}
    for number in (1, 2, 3):
        described = {"T1w": "T1 MPRAGE sag", "T2w": "t2_tse_tra"}
        found |= send(
            orthanc.url,
            {f"sub-{number:02d}_{name}": (pairs[f"sub-{number:02d}_{name}"], text) for name, text in described.items()},
            patient=f"sub-{number:02d}",
        )
    only_t1 = {"alone": (pairs["sub-04_T1w"], "AX T1")}
    twice = {
        "one": (pairs["sub-05_T1w"], "T1"),
        "T2": (pairs["sub-05_T2w"], "T2"),
        "other": (pairs["sub-05_T2w"], "T2 b"),
    }
    sagittal = {"sagittal": (pairs["sub-06_T1w"], "T1 sag")}
    return (
        found
        | send(orthanc.url, only_t1, "alone")
        | send(orthanc.url, twice, "twice")
        | send(orthanc.url, sagittal, "sagittal", sagittal=True)
        | send(orthanc.url, {"MNI152": (mni152, "T1w MNI152")}, "MNI152")
    )


@pytest.fixture(scope="session")
def pacs(
    orthanc: Orthanc, series: dict[str, str], runs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Two bundles on the PACS."""
    own = shutil.copytree(runs, tmp_path_factory.mktemp("pacs") / "runs", ignore=shutil.ignore_patterns("label"))
    words = ("--studies", orthanc.dicomweb, "--runs", own, "--bundles", "iseg,brain_mri_tissue", "--allow_simulated")
    one = Server(own.parent, *words)
    yield one
    one.stop()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        skip_or_fail("Chromium is not installed. Install it: apt-get install chromium chromium-driver")
    options = Options()
    options.binary_location = chromium
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1500,950"):
        options.add_argument(word)
    for word in ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"):
        options.add_argument(word)  # WebGL without a graphics card
    options.add_argument(f"--user-data-dir={tmp_path / 'chromium'}")
    one = webdriver.Chrome(options=options, service=Service(driver))
    yield one
    one.quit()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pictures", default="", help="a folder for OHIF's screenshots, as docs/serving.md has them")
