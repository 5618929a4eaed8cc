"""StrictWorkflow, as plain MONAI uses it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from custom.errors import ConfigError
from custom.running.bundles import config_files
from custom.running.workflow import StrictWorkflow, check_device, check_writable


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_epochs", 3),
        ("learning_rate", 1),
        ("resume", True),
        ("roi_size", [32, 32, 32]),
        ("max_epochs", "$2 + 1"),
        ("num_workers", 2),
        ("num_workers", 0),
        ("device", "cpu"),
        ("network_def#norm", "instance"),
        ("train#trainer#max_epochs", "@max_epochs"),
    ],
)
def test_what_fits_is_taken(name: str, value: object) -> None:
    workflow = StrictWorkflow(config_files("iseg", "train.json"), logging_file=False, **{name: value})
    assert workflow.parser[name] == value


@pytest.mark.parametrize(
    ("name", "value", "whole"), [("max_epochs", 1e2, 100), ("fold", 1.0, 1), ("roi_size", [32.0, 64, 32], [32, 64, 32])]
)
def test_whole_numbers_may_have_a_point(name: str, value: object, whole: object) -> None:
    taken = StrictWorkflow(config_files("iseg", "train.json"), logging_file=False, **{name: value}).parser[name]
    assert repr(taken) == repr(whole)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ({"max_epoch": 1}, "There is no option 'max_epoch'; did you mean 'max_epochs'?"),
        ({"zzz": 1}, "There is no option 'zzz'. docs/bundles.md lists the options."),
        ({"network_def#dropuot": 1}, "There is no option 'network_def#dropuot'"),
        ({"amp": "false"}, "amp must be True or False, as its default True is; got 'false'."),
        ({"amp": 1}, "amp must be True or False, as its default True is; got 1."),
        ({"learning_rate": "1e-3x"}, "learning_rate must be a number, as its default 0.001 is; got '1e-3x'."),
        ({"max_epochs": 2.5}, "max_epochs must be a whole number of 1 or more, got 2.5."),
        ({"fold": float("inf")}, "fold must be a whole number, as its default 0 is; got inf."),
        ({"roi_size": [32.5, 32, 32]}, "roi_size must be whole numbers, as its default [128, 128, 64] is; got [32.5,"),
        ({"roi_size": [32, "a", 32]}, "roi_size must be whole numbers, as its default [128, 128, 64] is; got [32, 'a'"),
        ({"networkk": 1}, "There is no option 'networkk'; did you mean 'network_def'?"),
        ({"max_epochs": True}, "max_epochs must be a number, as its default 300 is; got True."),
        ({"max_epochs": 0}, "max_epochs must be a whole number of 1 or more, got 0."),
        ({"val_interval": 2.5}, "val_interval must be a whole number of 1 or more, got 2.5."),
        ({"num_workers": -1}, "num_workers must be a whole number of 0 or more, got -1."),
        ({"num_workers": 1.5}, "num_workers must be a whole number of 0 or more, got 1.5."),
        ({"num_workers": True}, "num_workers must be a whole number of 0 or more, got True."),
        ({"num_workers": "two"}, "num_workers must be a whole number of 0 or more, got 'two'."),
        ({"run_id": "trainign"}, "There is no run 'trainign' in"),
    ],
)
def test_what_doesnt_fit_is_refused(override: dict, sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        StrictWorkflow(config_files("iseg", "train.json"), logging_file=False, **override)
    assert str(refused.value).startswith(sentence)


def test_the_nearest_run_is_suggested() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'training'\?"):
        StrictWorkflow(config_files("iseg", "train.json"), logging_file=False, run_id="trainign")


def test_devices_and_folders(tmp_path: Path) -> None:
    assert check_device("cpu").type == "cpu"
    with pytest.raises(ConfigError, match=r"There is no device 'cuda:99' here\. Use one of: cpu"):
        check_device("cuda:99")
    check_writable(tmp_path / "a/b/c")
    assert not list(tmp_path.iterdir())


def test_by_name_from_monai(tmp_path: Path) -> None:
    call = [
        sys.executable,
        "-m",
        "monai.bundle",
        "run_workflow",
        "--workflow_name",
        "custom.running.StrictWorkflow",
    ]
    call += ["--run_id", "training", "--config_file", config_files("iseg", "train.json")[0], "--max_epoch", "1"]
    result = subprocess.run(call, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
    assert result.returncode != 0
    assert result.stderr.strip().endswith("There is no option 'max_epoch'; did you mean 'max_epochs'?")
