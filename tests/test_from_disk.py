"""Windows from memory maps: what the usual chain gives, read once, and drawn where labels are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import Compose, EnsureChannelFirstd

from custom.datasets import msd
from custom.transforms import CropFromDiskd, FromDiskd, LoadVolumesd
from custom.transforms.from_disk import window_of
from tests.own_folders import blob, write_dataset_json

KEYS = ("image", "label")


@pytest.fixture
def case(tmp_path: Path) -> dict[str, Any]:
    for number in (1, 2, 3):
        blob(tmp_path / "own", f"sub-{number}", codes=(1, 2), channels=2)
    write_dataset_json(tmp_path / "own", ("T1w", "T2w"), ("background", "a", "b"))
    return msd.labelled_cases(tmp_path / "own")[0]


def steps() -> list[Any]:
    return [LoadVolumesd(keys=KEYS), EnsureChannelFirstd(keys=KEYS)]


def test_whole_scans_are_those_of_the_transforms(case: dict[str, Any], tmp_path: Path) -> None:
    expected = Compose(steps())(dict(case))
    for _ in range(2):
        found = FromDiskd(steps(), tmp_path / "cache")(case)
        for key in KEYS:
            torch.testing.assert_close(found[key].as_tensor(), expected[key].as_tensor())
            torch.testing.assert_close(found[key].affine, expected[key].affine)
    assert found["subject"] == "sub-1"


def test_transforms_run_once_until_a_file_or_a_setting_changes(case: dict[str, Any], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    FromDiskd(steps(), cache)(case)
    files = sorted(cache.glob("*.npy"))
    assert len(files) == 4  # image, label, affine, foreground
    FromDiskd(steps(), cache)(case)
    assert sorted(cache.glob("*.npy")) == files
    Path(case["label"]).touch()
    FromDiskd(steps(), cache)(case)
    assert len(list(cache.glob("*.npy"))) == 8
    FromDiskd(steps(), cache, ignore_index=2)(case)
    assert len(list(cache.glob("*.npy"))) == 12


def test_windows_are_parts_of_the_scan_around_labels(case: dict[str, Any], tmp_path: Path) -> None:
    """Voxels (number of the voxel, as value) tell where a window came from."""
    crop = CropFromDiskd(steps(), tmp_path / "cache", (8, 8, 8), num_samples=50, pos=1, neg=0)
    crop.set_random_state(0)
    label = torch.as_tensor(Compose(steps())(dict(case))["label"])[0]
    windows = crop(case)
    assert len(windows) == 50
    for window in windows:
        assert window["image"].shape == (2, 8, 8, 8)
        assert window["label"][0, 4, 4, 4] > 0 or window["label"].any()  # the centre, unless the edge moved the window
    inside = [window for window in windows if window["label"][0, 4, 4, 4] > 0]
    assert len(inside) >= 45
    share = np.mean([float((window["label"] > 0).float().mean()) for window in windows])
    assert share > float((label > 0).float().mean())
    background = CropFromDiskd(steps(), tmp_path / "cache", (8, 8, 8), num_samples=50, pos=0, neg=1)
    background.set_random_state(0)
    assert np.mean([float((one["label"] > 0).float().mean()) for one in background(case)]) < share


def test_one_seed_gives_the_same_windows(case: dict[str, Any], tmp_path: Path) -> None:
    def draw(seed: int) -> torch.Tensor:
        crop = CropFromDiskd(steps(), tmp_path / "cache", (8, 8, 8), num_samples=4)
        crop.set_random_state(seed)
        return torch.stack([window["image"] for window in crop(case)])

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


@pytest.mark.parametrize(
    ("centre", "size", "expected"),
    [
        ((5,), (4,), [3, 4, 5, 6]),
        ((0,), (4,), [0, 1, 2, 3]),
        ((9,), (4,), [6, 7, 8, 9]),
        ((5,), (13,), [0, *range(10), 0, 0]),  # 3 voxels more than the scan: one zero before, two behind
    ],
)
def test_windows_by_hand(centre: tuple[int], size: tuple[int], expected: list[int]) -> None:
    assert window_of(np.arange(10)[None], centre, size).tolist() == [expected]


def test_only_the_windows_voxels_are_read(tmp_path: Path) -> None:
    """A map of 1.6 GB (a file with holes) gives a window without that memory."""
    np.lib.format.open_memmap(tmp_path / "big.npy", mode="w+", dtype=np.float32, shape=(4, 400, 500, 500)).flush()
    volume = np.load(tmp_path / "big.npy", mmap_mode="r")
    window = window_of(volume, (200, 250, 250), (16, 16, 16))
    assert window.shape == (4, 16, 16, 16)
    assert window.untyped_storage().nbytes() == 4 * 16**3 * 4
