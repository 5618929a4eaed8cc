"""A command on trained weights takes network, recipe, labels and options from the record beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from custom.checkpoints.find import FILE, default_weights
from custom.checkpoints.record import read_record
from custom.commands.options import typed
from custom.errors import CheckpointError
from custom.running.bundles import config_files, find_bundle, mixins, output_dir_of
from custom.running.recorded import recorded_overrides, warn


def trained_call(
    run_id: str, bundle: str, network: str | None, recipe: str | None, overrides: Mapping[str, Any]
) -> tuple[list[str], dict[str, Any]]:
    """The config files and overrides of a run with trained weights.

    The weights are ckpt_path, or those of output_dir, or the bundle's own. If a record lies beside them, network,
    recipe and options are those of the training. An option that the user gives wins; a warning is printed if it
    contradicts the record.

    Args:
        run_id: "evaluating" or "inferring".
        bundle: any unique part of a bundle's name.
        network: as the user gave it, or None.
        recipe: as the user gave it, or None.
        overrides: as the user gave them.

    Raises:
        CheckpointError: the weights were trained with another bundle, or by `brainmri pretrain`.
        ConfigError: an unknown network or recipe.
    """
    folder, evaluating = find_bundle(bundle), run_id == "evaluating"
    base, last = ("train.json", ["evaluate.json"]) if evaluating else ("inference.json", [])
    output_dir = output_dir_of(config_files(bundle, base), _text(overrides, "output_dir"))
    weights = Path(_text(overrides, "ckpt_path") or default_weights(output_dir, folder)).expanduser()
    record = read_record(weights)
    if not record and weights.name == "last.pt":  # of the run whose record lies beside model.pt
        record = read_record(weights.with_name(FILE))
    if record.get("bundle", folder.name) != folder.name:
        raise CheckpointError(
            f"{weights} was trained with the bundle {record['bundle']}, not with {folder.name}. Use that bundle."
        )
    if record.get("pretraining"):
        raise CheckpointError(
            f"{weights} holds weights of a pretraining, which give no classes. Train from them first: "
            f"brainmri train {bundle} --network vit --from_weights {weights}."
        )
    if "network" in record:
        network = _choose("network", network, record["network"])
        recipe = _choose("recipe", recipe, ",".join(record.get("recipe", [])) or None)
    if evaluating and "dataset_dir" in record and Path(record["dataset_dir"]).is_dir():
        overrides = {"dataset_dir": record["dataset_dir"]} | dict(overrides)
    chosen = mixins(bundle, network, recipe, inference=not evaluating)
    files = config_files(bundle, base, *chosen, *last)
    given = typed(files, overrides)
    if not record.get("options"):
        return files, given
    return files, recorded_overrides(files, run_id, record, given) | given


def folder_of_run(files: list[str], settings: dict[str, Any]) -> Path:
    """The folder to write to: output_dir, which is taken out of the settings, else that of the named weights."""
    output_dir = settings.pop("output_dir", None)
    if output_dir is None and settings.get("ckpt_path"):
        return Path(str(settings["ckpt_path"])).expanduser().parent
    return output_dir_of(files, output_dir)


def _text(overrides: Mapping[str, Any], name: str) -> str | None:
    return str(overrides[name]) if overrides.get(name) is not None else None


def _choose(name: str, given: str | None, recorded: str | None) -> str | None:
    """What the user gave, else what is recorded; prints a warning if they differ."""
    if given is None:
        return recorded
    if _as_set(given) != _as_set(recorded):
        warn(name, given, recorded or "the default")
    return given


def _as_set(names: str | None) -> set[str]:
    return {name.strip() for name in str(names or "").split(",") if name.strip() not in ("", "default")}
