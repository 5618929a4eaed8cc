"""What only a CUDA device can show."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.networks.nets import DynUNet

from custom.checkpoints.load import load_checkpoint
from custom.datasets import synthseg_labels as maps
from custom.inferers import ForegroundInferer
from custom.running import Predictor
from custom.running.bundles import config_files
from custom.samples import mni152
from custom.transforms import Structures, SynthesizeScand
from tests.conftest import SMALL_RUN, Brainmri
from tests.test_synthesize_scan import head

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def test_trains_resumes_and_evaluates_in_half_precision(iseg_dir: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    where = ("--dataset_dir", iseg_dir, "--output_dir", "run")
    for epochs in (1, 2):
        words = (*where, "--max_epochs", epochs, "--val_interval", 1, "--resume", "True", *SMALL_RUN)
        result = brainmri("train", "iseg", *words, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    state = load_checkpoint(tmp_path / "run/last.pt")
    assert state["trainer"]["epoch"] == 2
    assert "scaler" in state
    result = brainmri("evaluate", "iseg", *where, "--roi_size", "[32,32,32]", cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_segments_as_the_cpu_does(mni152_dir: Path) -> None:
    files, scan = config_files("brain_mri_tissue", "inference.json"), mni152_dir / mni152.T1
    on_cuda, on_cpu = (Predictor(files, device=device)(scan)["pred"] for device in ("cuda", "cpu"))
    assert (on_cuda == on_cpu).mean() > 0.99


def test_a_gpu_without_enough_memory_leaves_the_rest_to_the_cpu() -> None:
    """A real limit: what is left of the device holds neither one pass nor a window."""
    network = DynUNet(3, 1, 2, [3] * 3, [1, 2, 2], [2] * 2, filters=[32, 64, 64]).cuda().eval()
    image = torch.rand(1, 1, 160, 160, 160, device="cuda") + 1
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    with torch.inference_mode():
        expected = ForegroundInferer((96, 96, 96), one_pass_voxels=0)(image, network)
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**26) / total)
        try:
            with pytest.warns(UserWarning, match=r"not enough in windows\. Going on in windows on the CPU\."):
                found = ForegroundInferer((96, 96, 96))(image, network)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
    assert next(network.parameters()).is_cuda
    assert (found.argmax(1).cpu() == expected.argmax(1).cpu()).float().mean() > 0.99


def test_scans_are_drawn_where_the_map_is() -> None:
    structures = Structures(maps.labels_by_code(maps.LABELS), maps.STRUCTURES)
    item = SynthesizeScand("label", structures, (48, 48, 48), 1.5)({"label": head().cuda()})
    assert item["image"].is_cuda
    assert item["label"].is_cuda
    assert torch.isfinite(item["image"]).all()
