"""Which handlers run on which process of a run on several GPUs."""

from __future__ import annotations

import pytest
from monai.bundle import ConfigParser
from monai.handlers import StatsHandler

from custom.running.bundles import config_files, find_bundles
from custom.running.processes import on_first


@pytest.mark.parametrize(("rank", "runs"), [(None, True), ("0", True), ("1", False)])  # None: not started by torchrun
def test_only_the_first_process_prints(rank: str | None, runs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if rank is None:
        monkeypatch.delenv("RANK", raising=False)
    else:
        monkeypatch.setenv("RANK", rank)
    handlers = [StatsHandler()]
    assert on_first(handlers) == (handlers if runs else None)


@pytest.mark.parametrize("bundle", find_bundles())
def test_every_process_has_the_handlers_of_the_training(bundle: str) -> None:
    """EpochLog, which comes first, is silent on all processes but the first; the others validate, seed and restore."""
    content = ConfigParser.load_config_files(config_files(bundle, "train.json", "multi_gpu_train.json"))
    assert content["train"]["handlers"][0]["_target_"] == "custom.handlers.EpochLog"
    assert not any(handler["_target_"].endswith("ProgressBar") for handler in content["train"]["handlers"])
    assert content["train"]["trainer"]["train_handlers"] == "@train#handlers"
    assert content["validate"]["evaluator"]["val_handlers"].endswith("on_first(@validate#handlers)")
