"""A training that the same command starts, goes on with, and does not repeat once it is finished."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from custom.errors import ConfigError
from custom.files import read_json, written_whole
from custom.locks import run_locked
from custom.running.bundles import output_dir_of
from custom.running.description import OF_ONE_COMMAND, differences
from custom.running.workflow import StrictWorkflow, run

STATE = "training.json"  # in the output_dir: the whole configuration, the split, and whether the training is finished
MAY_DIFFER = OF_ONE_COMMAND - {"dataset_dir"} | {"max_epochs", "_desc_", "_meta_", "_requires_"}


def train_once(files: Sequence[str], settings: Mapping[str, Any], split: Mapping[str, Any]) -> bool:
    """Trains, goes on after the last finished epoch, or does nothing if the training is finished.

    Args:
        files: train.json and mixins.
        settings: overrides; a larger max_epochs goes on with a finished training, "resume": False starts anew.
        split: what STATE records about the split of the data.

    Returns:
        Whether anything was trained.

    Raises:
        ConfigError: the output_dir holds a training with another configuration, or another process trains there.
    """
    folder = output_dir_of(list(files), settings.get("output_dir"))
    config = configuration(files, settings)
    state = folder / STATE
    if state.is_file() and settings.get("resume") is not False:
        earlier = read_json(state)
        require_same(folder, earlier["configuration"], config)
        if earlier["finished"] and earlier["max_epochs"] >= config["max_epochs"] and (folder / "model.pt").is_file():
            print(f"The training in {folder} is finished: it is not repeated.", flush=True)
            return False
    # a mistake shows before anything is written
    StrictWorkflow(list(files), logging_file=False, workflow_type="train", **settings)
    about = {"configuration": _compared(config), "max_epochs": config["max_epochs"], "split": dict(split)}
    with run_locked(folder):
        _write(state, about | {"finished": False})
        run("training", list(files), **settings)
        _write(state, about | {"finished": True})
    return True


def configuration(files: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The whole content of config files with overrides, as text that JSON takes."""
    parser = ConfigParser(ConfigParser.load_config_files(list(files)))
    parser.update(dict(settings))
    content = json.loads(json.dumps(parser.get(), default=str))
    content["dataset_dir"] = str(Path(content["dataset_dir"]).expanduser().absolute())
    assert isinstance(content, dict)
    return content


def _compared(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in MAY_DIFFER}


def require_same(folder: Path, earlier: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raises ConfigError if a folder's earlier training had another configuration, and names the first difference."""
    now = _compared(config)
    for key in [*now, *(key for key in earlier if key not in now)]:
        if now.get(key) == earlier.get(key):
            continue
        name = next(iter(differences(now.get(key), earlier.get(key), key)))
        raise ConfigError(
            f"{folder} holds a training with another {name}: {_value(earlier, name)}, now {_value(now, name)}. "
            "Use another output_dir, or --resume False to start anew (the earlier run is kept in earlier/)."
        )


def _value(config: Any, name: str) -> str:
    for part in name.split("#"):
        if isinstance(config, Mapping):
            config = config.get(part)
        elif isinstance(config, list) and part.isdigit() and int(part) < len(config):
            config = config[int(part)]
    text = json.dumps(config)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with written_whole(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
