"""Which handlers run on which process of a run on several GPUs."""

from __future__ import annotations

import pytest
from ignite.handlers import ProgressBar
from monai.bundle import ConfigParser
from monai.handlers import StatsHandler

from custom.running.bundles import config_files, find_bundles
from custom.running.processes import on_first, progress_on_first


@pytest.mark.parametrize(
    ("rank", "expected"),
    [
        (None, ["ProgressBar", "StatsHandler", "ProgressBar"]),  # not started by torchrun
        ("0", ["ProgressBar", "StatsHandler", "ProgressBar"]),
        ("1", ["StatsHandler"]),
    ],
)
def test_only_the_first_process_shows_progress(
    rank: str | None, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if rank is None:
        monkeypatch.delenv("RANK", raising=False)
    else:
        monkeypatch.setenv("RANK", rank)
    handlers = [ProgressBar(), StatsHandler(), ProgressBar()]
    assert [type(handler).__name__ for handler in progress_on_first(handlers)] == expected
    assert on_first(handlers) == (handlers if rank != "1" else None)


@pytest.mark.parametrize("bundle", find_bundles())
def test_every_bundle_leaves_out_only_its_progress_bar(bundle: str) -> None:
    files = config_files(bundle, "train.json", "multi_gpu_train.json")
    content = ConfigParser.load_config_files(files)
    bars = [handler["_target_"].endswith("ProgressBar") for handler in content["train"]["handlers"]]
    assert bars == [True] + [False] * (len(bars) - 1)
    assert content["train"]["trainer"]["train_handlers"].endswith("progress_on_first(@train#handlers)")
    assert content["validate"]["evaluator"]["val_handlers"].endswith("on_first(@validate#handlers)")
