"""What the record beside weights changes in a later run's config."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from monai.bundle import ConfigParser

from custom.running.description import differences, encoded, option_names, references, resolved


def warn(name: str, given: Any, recorded: Any) -> None:
    """Prints that an option of the user is not that of the training."""
    print(f"Warning: --{name} {given} contradicts these weights: they were trained with {recorded}.", flush=True)


def recorded_overrides(
    files: Sequence[str], run_id: str, record: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """What a record changes in config files, without the options that the user gives.

    In an evaluation, options that depend on the data set (its label codes, for instance) come from the data set.

    Args:
        files: the config files.
        run_id: the run, whose options alone count.
        record: a training's.
        given: overrides as the user gave them; a warning is printed for one that contradicts the record.
    """
    parser = ConfigParser(ConfigParser.load_config_files(list(files)))
    if "dataset_dir" in given:
        parser["dataset_dir"] = given["dataset_dir"]
    parser.parse()
    config = parser.get()
    read = references(config, run_id) & set(option_names(config)) & set(record["options"])
    changed = changes(parser, sorted(read), record["options"])
    changed = {key: value for key, value in changed.items() if not _is_copy(parser, key, value, record["options"])}
    if run_id == "evaluating":
        changed = {key: value for key, value in changed.items() if not _is_of_data(parser, key)}
        changed |= {key: value for key, value in record.get("overrides", {}).items() if key.startswith("validate#")}
        _compare_labels(parser, record["options"])
    for key, value in given.items():
        _compare(key, value, record["options"], read)
    return {key: value for key, value in changed.items() if not any(_overlap(key, other) for other in given)}


def changes(parser: ConfigParser, names: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """What the recorded options change in a config.

    A part of an option that is an expression of other options is no change, if those give it the recorded value: it
    must follow when the user gives one of them anew.
    """
    own = resolved(parser, names, without="dataset_dir")
    whole = {name: options[name] for name in names if name in differences(own[name], options[name], name)}
    trained = ConfigParser(copy.deepcopy(parser.get()))
    trained.update(whole)
    trained.parse()
    parts = [name for name in names if name not in whole]
    own = resolved(trained, parts, without="dataset_dir")
    for name in parts:
        whole |= differences(own[name], options[name], name)
    return whole


def _is_copy(parser: ConfigParser, key: str, value: Any, options: Mapping[str, Any]) -> bool:
    """Whether a nested key only names another option, as "@space", and is recorded with that option's value."""
    own = parser[key]
    name = own[1:] if "#" in key and isinstance(own, str) and own[:1] == "@" else ""
    if name in options:
        return bool(options[name] == value)
    return name in parser.get() and resolved(parser, [name], without="dataset_dir")[name] == value


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
    warn(key, value, recorded)


def _overlap(first: str, second: str) -> bool:
    """Whether two keys name the same option, or one a part of the other."""
    first, second = first.removeprefix("+"), second.removeprefix("+")
    return first == second or first.startswith(f"{second}#") or second.startswith(f"{first}#")
