"""Long segmentations and trainings say how far they are, can be cancelled, and then leave nothing behind."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import SegResNet

from custom.serving import progress
from custom.serving.progress import CancelledError, windows_of
from custom.serving.tasks import with_progress
from tests.label.conftest import INFANT, Server, wait_for
from tests.zoo_bundles import SEG_RES_NET, tumor_bundle

SLOW = "slow_segmentation"


@pytest.mark.parametrize(
    ("shape", "roi", "overlap", "batch"),
    [((50, 59, 48), (32, 32, 32), 0.25, 1), ((20, 40, 33), (32, 32, 32), 0.5, 3), ((64, 64, 64), (-1, 32, 64), 0.0, 2)],
)
def test_the_number_of_windows(shape: tuple[int, ...], roi: tuple[int, ...], overlap: float, batch: int) -> None:
    inferer, calls = SlidingWindowInferer(roi, sw_batch_size=batch, overlap=overlap), []

    def network(window: torch.Tensor) -> torch.Tensor:
        calls.append(window.shape)
        return window

    inferer(torch.zeros(1, 1, *shape), network)
    assert windows_of(inferer, shape) == len(calls)


def test_only_what_matches_is_cancelled() -> None:
    with progress.segmentation("a", "scan") as first, progress.segmentation("b", "scan") as second:
        assert [one["model"] for one in progress.described()] == ["a", "b"]
        assert progress.cancel(model="c") == []
        assert [one["id"] for one in progress.cancel(image="scan", model="b")] == [second.id]
        first.check()
        with pytest.raises(CancelledError, match="The segmentation of scan by b was cancelled"):
            second.check()
        with pytest.raises(CancelledError), progress.turn(second):
            pass
        with progress.turn(first):
            assert first.status == "RUNNING"
    assert progress.described() == []


def test_the_last_report_of_a_task() -> None:
    lines = ['progress: {"epoch": 1, "of": 4}', '[x] [INFO] tasks: progress: {"epoch": 2, "of": 4}', "loss 0.1"]
    assert with_progress({"id": "1", "details": lines})["progress"] == {"epoch": 2, "of": 4}
    assert "progress" not in with_progress({"id": "1", "details": ["progress: {"]})


@pytest.fixture(scope="module")
def busy_words(
    pairs: dict[str, nibabel.Nifti1Image], runs: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, ...]:
    """A folder with studies, runs and tmp, and the words of a server whose segmentation takes minutes."""
    folder = tmp_path_factory.mktemp("busy")
    for name in ("studies", "tmp"):
        (folder / name).mkdir()
    shutil.copytree(runs / INFANT, folder / "runs" / INFANT)
    for name in ("sub-01_T1w", "sub-01_T2w", "sub-02_T1w", "sub-02_T2w"):
        nibabel.save(pairs[name], folder / "studies" / f"{name}.nii.gz")
    for contrast in ("T1", "T1ce", "T2", "FLAIR"):
        noise = np.random.default_rng(0).normal(size=(96, 96, 96)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(noise, np.eye(4)), folder / "studies" / f"large_{contrast}.nii.gz")
    bundle = tumor_bundle(folder / SLOW)
    path = bundle / "configs" / "inference.json"
    config = json.loads(path.read_text())
    config["inferer"] |= {"overlap": 0.9, "sw_batch_size": 1}
    path.write_text(json.dumps(config))
    torch.save(SegResNet(**SEG_RES_NET).state_dict(), bundle / "models" / "model.pt")
    return (folder, "--studies", folder / "studies", "--runs", folder / "runs", "--bundles", f"iseg,{bundle}")


@pytest.fixture(scope="module")
def busy(busy_words: tuple[Any, ...]) -> Iterator[tuple[Server, Path]]:
    """That server and its folder."""
    folder, *words = busy_words
    one = Server(folder, *words, TMPDIR=str(folder / "tmp"))
    yield one, folder
    one.stop()


def left_in(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if "brainmri" in path.name or ".partial-" in path.name]


def test_a_segmentation_is_cancelled(busy: tuple[Server, Path]) -> None:
    server, folder = busy
    answers: list[Any] = []

    def ask(model: str, image: str) -> threading.Thread:
        path = f"/infer/{model}?image={image}&output=json"
        thread = threading.Thread(target=lambda: answers.append(server.ask("POST", path)))
        thread.start()
        return thread

    def running() -> Any:
        return next((one for one in server.ask("GET", "/infer/").json() if one["windows"] > 2), None)

    assert server.ask("GET", "/infer/").json() == []
    slow = ask(SLOW, "large_T1")
    one = wait_for(running, 120, server.log)
    assert (one["model"], one["image"], one["status"], one["of"]) == (SLOW, "large_T1", "RUNNING", 13**3)
    waiting = ask(INFANT, "sub-01_T1w")
    wait_for(lambda: len(server.ask("GET", "/infer/").json()) == 2, 60, server.log)
    refused = server.ask("DELETE", "/infer/?image=unknown")
    assert (refused.status_code, "No such segmentation" in refused.json()["detail"]) == (404, True)
    (cancelled,) = server.ask("DELETE", f"/infer/?id={one['id']}").json()
    assert cancelled["image"] == "large_T1"
    slow.join(timeout=60)
    assert answers[0].status_code == 409
    assert answers[0].json()["detail"] == f"The segmentation of large_T1 by {SLOW} was cancelled."
    waiting.join(timeout=120)
    assert answers[1].status_code == 200, answers[1].text  # the next one takes its turn
    assert server.ask("GET", "/infer/").json() == []
    assert left_in(folder / "tmp") == []


def test_a_server_that_stops_cancels_what_runs(busy_words: tuple[Any, ...], tmp_path: Path) -> None:
    _, *words = busy_words
    server = Server(tmp_path, *words, TMPDIR=str(tmp_path))
    thread = threading.Thread(target=lambda: server.ask("POST", f"/infer/{SLOW}?image=large_T1&output=json"))
    thread.start()
    wait_for(lambda: [one for one in server.ask("GET", "/infer/").json() if one["windows"]], 120, server.log)
    server.stop()  # fails after 30 s
    thread.join(timeout=30)
    assert left_in(tmp_path) == []


def test_a_training_is_stopped(busy: tuple[Server, Path], truths: dict[str, np.ndarray], tmp_path: Path) -> None:
    server, folder = busy
    for name in ("sub-01_T1w", "sub-02_T1w"):
        affine = nibabel.load(folder / "studies" / f"{name}.nii.gz").affine
        nibabel.save(nibabel.Nifti1Image(truths[name], affine), tmp_path / f"{name}.nii.gz")
        with (tmp_path / f"{name}.nii.gz").open("rb") as file:
            data = {"params": json.dumps({"model": INFANT})}
            path = f"/datastore/label?image={name}"
            assert server.ask("PUT", path, files={"label": ("l.nii.gz", file)}, data=data).status_code == 200
    started = server.ask("POST", f"/train/{INFANT}", json={"max_epochs": 1000, "roi_size": [16, 16, 16]})
    assert started.status_code == 200, started.text

    def epochs() -> Any:
        task = server.ask("GET", "/train/").json()
        assert task["status"] in ("SUBMITTED", "RUNNING"), task
        return task.get("progress")

    assert wait_for(epochs, 180, server.log)["of"] == 1000
    assert left_in(folder / "tmp")
    corrected = folder / "runs" / INFANT / "corrected"
    assert left_in(corrected)
    assert server.ask("DELETE", "/train/").json()["status"] == "STOPPED"
    assert server.ask("GET", "/train/").json()["status"] == "STOPPED"
    assert left_in(folder / "tmp") == []
    assert list(corrected.iterdir()) == []
