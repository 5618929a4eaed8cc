"""A segmentation leaves no tensors behind, and the server's memory does not grow with the requests."""

from __future__ import annotations

import gc
from pathlib import Path

import psutil
import pytest
import torch

from custom.samples import mni152
from custom.serving.bundles import load_bundles
from custom.serving.segmentation import SegmentationTask
from tests.label.conftest import TISSUE, Server


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """The head of the MNI152 template, at 3 mm: what the network makes of it is large."""
    mni152.write(tmp_path / "sample", spacing=3)
    (tmp_path / "studies").mkdir()
    return (tmp_path / "sample" / mni152.T1).rename(tmp_path / "studies" / "head_T1w.nii.gz")


def large_tensors() -> list[tuple[int, ...]]:
    """The shapes of living tensors of a million values, without the networks' weights."""
    gc.unfreeze()  # the server takes what lives after the first segmentation for what stays
    tensors = [each for each in gc.get_objects() if isinstance(each, torch.Tensor) and each.numel() > 1_000_000]
    return [tuple(each.shape) for each in tensors if not isinstance(each, torch.nn.Parameter)]


def test_a_segmentation_leaves_no_tensors(scan: Path, tmp_path: Path) -> None:
    """Not even those that only Python's collector of cycles would free: it runs rarely."""
    task = SegmentationTask(load_bundles(["brain_mri_tissue"], tmp_path / "runs")[TISSUE])
    gc.collect()
    before = large_tensors()
    gc.disable()
    try:
        for measured in (False, True):
            request = {"files": [str(scan)], "reference": str(scan), "device": "cpu", "uncertainty": measured}
            file, params = task(request)
            Path(file).unlink()
            assert (params["uncertainty"] or 0) > 0 if measured else params["uncertainty"] is None
            assert large_tensors() == before
    finally:
        gc.enable()


def test_memory_over_30_requests(scan: Path, tmp_path: Path) -> None:
    server = Server(tmp_path, "--studies", scan.parent, "--runs", tmp_path / "runs", "--bundles", "brain_mri_tissue")
    try:
        process, used = psutil.Process(server.process.pid), []
        for _ in range(30):
            answer = server.ask("POST", f"/infer/{TISSUE}?image=head_T1w&output=json")
            assert answer.status_code == 200, answer.text
            used.append(process.memory_info().rss / 2**20)
    finally:
        server.stop()
    assert used[-1] < used[4] + 50, used  # MB
