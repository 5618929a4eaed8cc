"""A command on trained weights takes network, recipe, labels and options from the record beside the weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from custom.checkpoints.find import default_weights
from custom.checkpoints.record import read_record
from custom.commands.options import typed
from custom.errors import CheckpointError
from custom.running.bundles import config_files, find_bundle, mixins, output_dir_of
from custom.running.description import differences, encoded, option_names, references, resolved


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
        CheckpointError: the weights were trained with another bundle.
        ConfigError: an unknown network or recipe.
    """
    folder, evaluating = find_bundle(bundle), run_id == "evaluating"
    base, last = ("train.json", ["evaluate.json"]) if evaluating else ("inference.json", [])
    output_dir = output_dir_of(config_files(bundle, base), _text(overrides, "output_dir"))
    weights = Path(_text(overrides, "ckpt_path") or default_weights(output_dir, folder)).expanduser()
    record = read_record(weights)
    if record.get("bundle", folder.name) != folder.name:
        raise CheckpointError(
            f"{weights} was trained with the bundle {record['bundle']}, not with {folder.name}. Use that bundle."
        )
    if "network" in record:
        network = _choose("network", network, record["network"])
        recipe = _choose("recipe", recipe, ",".join(record.get("recipe", [])) or None)
    if evaluating and "dataset_dir" in record and Path(record["dataset_dir"]).is_dir():
        overrides = {"dataset_dir": record["dataset_dir"]} | dict(overrides)
    chosen = mixins(bundle, network, recipe, overrides if evaluating else None, inference=not evaluating)
    files = config_files(bundle, base, *chosen, *last)
    given = typed(files, overrides)
    if not record.get("options"):
        return files, given
    return files, recorded_overrides(files, run_id, record, given) | given


def _text(overrides: Mapping[str, Any], name: str) -> str | None:
    return str(overrides[name]) if overrides.get(name) is not None else None


def _choose(name: str, given: str | None, recorded: str | None) -> str | None:
    """What the user gave, else what is recorded; prints a warning if they differ."""
    if given is None:
        return recorded
    if _as_set(given) != _as_set(recorded):
        _warn(name, given, recorded or "the default")
    return given


def _as_set(names: str | None) -> set[str]:
    return {name.strip() for name in str(names or "").split(",") if name.strip() not in ("", "default")}


def _warn(name: str, given: Any, recorded: Any) -> None:
    print(f"Warning: --{name} {given} contradicts these weights: they were trained with {recorded}.", flush=True)


def recorded_overrides(
    files: list[str], run_id: str, record: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """What a record changes in config files, without the options that the user gives.

    In an evaluation, options that depend on the data set (its label codes, for instance) come from the data set.

    Args:
        files: the config files.
        run_id: the run, whose options alone count.
        record: a training's.
        given: overrides as the user gave them; a warning is printed for one that contradicts the record.
    """
    parser = ConfigParser(ConfigParser.load_config_files(files))
    if "dataset_dir" in given:
        parser["dataset_dir"] = given["dataset_dir"]
    parser.parse()
    config = parser.get()
    read = references(config, run_id) & set(option_names(config)) & set(record["options"])
    own = resolved(parser, sorted(read), without="dataset_dir")
    changed: dict[str, Any] = {}
    for name in own:
        changed |= differences(own[name], record["options"][name], name)
    if run_id == "evaluating":
        changed = {key: value for key, value in changed.items() if not _is_of_data(parser, key)}
        changed |= {key: value for key, value in record.get("overrides", {}).items() if key.startswith("validate#")}
        _compare_labels(parser, record["options"])
    for key, value in given.items():
        _compare(key, value, record["options"], read)
    return {key: value for key, value in changed.items() if not any(_overlap(key, other) for other in given)}


def _is_of_data(parser: ConfigParser, key: str) -> bool:
    """Whether an option is an expression that depends on the data set."""
    return isinstance(parser[key], str) and "dataset_dir" in references(parser.get(), key)


def _compare_labels(parser: ConfigParser, options: Mapping[str, Any]) -> None:
    """Prints a warning if the data set's own labels are not those of the training."""
    if "labels" not in parser or "labels" not in options or not _is_of_data(parser, "labels"):
        return
    try:
        labels = parser.get_parsed_content("labels")
    except Exception:  # the run itself says what is wrong with the data set
        return
    if encoded(labels) != options["labels"]:
        trained = ConfigParser({"labels": options["labels"]}).get_parsed_content("labels")
        print(f"Warning: the data set has the labels {labels}, but these weights were trained with {trained}.")


def _compare(key: str, value: Any, options: Mapping[str, Any], read: Collection[str]) -> None:
    """Prints a warning if an option that the user gives contradicts a recorded one that the run reads."""
    name, *inner = key.removeprefix("+").split("#")
    recorded: Any = options.get(name)
    for part in inner:
        recorded = recorded.get(part) if isinstance(recorded, Mapping) else None
    if name not in read or recorded is None or encoded(value) == recorded or str(value) == str(recorded):
        return
    _warn(key, value, recorded)


def _overlap(first: str, second: str) -> bool:
    """Whether two keys name the same option, or one a part of the other."""
    first, second = first.removeprefix("+"), second.removeprefix("+")
    return first == second or first.startswith(f"{second}#") or second.startswith(f"{first}#")
