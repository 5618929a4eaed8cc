"""A run's options as plain data: what a record beside weights keeps, and what a later run takes from it."""

from __future__ import annotations

import ast
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

# What belongs to a machine or to one command, not to the weights.
OF_ONE_COMMAND = frozenset({
    "bundle_root", "dataset_dir", "freesurfer_dir", "output_dir", "cache_dir", "ckpt_path", "device", "num_workers",
    "resume", "from_weights", "split", "scores_dir", "data", "temperature", "decode", "submission", "output_codes",
})  # fmt: skip
# Sections of the config files that are no options.
SECTIONS = frozenset({
    "imports", "train", "validate", "network", "average", "training", "evaluating", "inferring", "run", "record",
    "dataset", "dataloader", "inferer", "labelling", "postprocessing", "saving", "handlers", "evaluator",
})  # fmt: skip
LONGEST = 4000  # characters of one option in a record
_REFERENCE = re.compile(r"[@%]([A-Za-z_]\w*(?:(?:#|::)\w+)*)")
_MARKS = ("$", "@", "%")


def option_names(config: Mapping[str, Any]) -> list[str]:
    """The top-level keys of a config that are options of the weights."""
    return [name for name in config if not name.startswith("_") and name not in OF_ONE_COMMAND | SECTIONS]


def resolved(parser: ConfigParser, names: Iterable[str], without: str = "") -> dict[str, Any]:
    """Options as plain data for JSON; an expression that gives no plain data stays text.

    Args:
        parser: of a run, parsed.
        names: top-level keys.
        without: expressions that depend on this key are not evaluated: they stay text.
    """
    config = parser.get()

    def walk(key: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: walk(f"{key}#{name}", content) for name, content in value.items()}
        if isinstance(value, list):
            return [walk(f"{key}#{n}", content) for n, content in enumerate(value)]
        if not isinstance(value, str):
            return encoded(value)
        names_an_option = "#" in key and value[:1] == "@" and value[1:] in config and value[1:] not in SECTIONS
        depends = bool(without) and without in references(config, key)
        if not value.startswith(_MARKS) or names_an_option or depends:
            return value  # an option that is named here is recorded itself, and may be given anew
        try:
            content = encoded(parser.get_parsed_content(key))
        except Exception:  # an option that this run does not use may not have a value
            return value
        return value if content is None or len(repr(content)) > LONGEST else content

    return {name: walk(name, config[name]) for name in names}


def encoded(value: Any) -> Any:
    """A value as JSON and as MONAI's config reads it back: "$(0, 1)" for a tuple. None for None and for an object."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return f"${value!r}" if value.startswith(_MARKS) else value
    if isinstance(value, list):
        return [encoded(item) for item in value] if _is_plain(value) else None
    return f"${value!r}" if _is_plain(value) else None


def _is_plain(value: Any) -> bool:
    """Whether a value is made of numbers, text, lists, tuples and dicts only, so that its text gives it back."""
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError, TypeError):
        return False


def references(config: Mapping[str, Any], key: str) -> set[str]:
    """The top-level keys that a key refers to, itself too, in one step or several.

    Args:
        config: with macros (%) or without.
        key: as "validate#evaluator".
    """
    seen: set[str] = set()
    waiting = [key.replace("::", "#")]
    while waiting:
        here = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        waiting += [name.replace("::", "#") for name in _named_in(_content(config, here))]
    return {name.split("#")[0] for name in seen}


def _content(config: Any, key: str) -> Any:
    for part in key.split("#"):
        if isinstance(config, Mapping) and part in config:
            config = config[part]
        elif isinstance(config, list) and part.isdigit() and int(part) < len(config):
            config = config[int(part)]
        else:
            return None
    return config


def _named_in(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [name for content in value.values() for name in _named_in(content)]
    if isinstance(value, list):
        return [name for content in value for name in _named_in(content)]
    return _REFERENCE.findall(value) if isinstance(value, str) and value.startswith(_MARKS) else []


def chosen_mixins(files: Sequence[str]) -> tuple[str | None, list[str]]:
    """The network and the recipes among config files, by their names; a network from elsewhere by its path."""
    of_folder: dict[str, list[str]] = {"networks": [], "recipes": []}
    configs = Path(files[0]).parent
    for path in map(Path, files):
        if not path.is_relative_to(configs):
            of_folder["networks"].append(str(path))
        else:
            of_folder.get(path.parent.name, []).append(path.stem)
    networks = of_folder["networks"]
    return networks[-1] if networks else None, of_folder["recipes"]


def describe_training(parser: ConfigParser, files: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Lets the Checkpoint handler of a training write the run's options beside the weights.

    Args:
        parser: of train.json and mixins, with the settings.
        files: these config files.
        settings: overrides of their options.
    """
    handlers = parser.get("train", {}).get("handlers") if isinstance(parser.get("train", {}), dict) else None
    for handler in handlers if isinstance(handlers, list) else []:
        if isinstance(handler, dict) and str(handler.get("_target_", "")).endswith("handlers.Checkpoint"):
            handler["describe"] = _description(parser, list(files), dict(settings))


def _description(parser: ConfigParser, files: list[str], settings: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    network, recipes = chosen_mixins(files)

    def describe() -> dict[str, Any]:
        return {
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "config_files": files,
            "network": network,
            "recipe": recipes,
            "overrides": {name: encoded(value) for name, value in settings.items()},
            "options": resolved(parser, option_names(parser.get())),
        }

    return describe


def differences(own: Any, recorded: Any, key: str) -> dict[str, Any]:
    """Overrides that turn one option into another one: {"network_def#n_filters": 4}.

    Lists of components are compared one by one, so that one changed component does not replace the others.

    Args:
        own: the option as a config has it.
        recorded: the option as it should be.
        key: its name.
    """
    if own == recorded:
        return {}
    if _are_components(own) and _are_components(recorded) and len(own) == len(recorded):
        pairs = enumerate(zip(own, recorded, strict=True))
        return {name: value for n, pair in pairs for name, value in differences(*pair, f"{key}#{n}").items()}
    if not (isinstance(own, Mapping) and isinstance(recorded, Mapping)) or own.keys() != recorded.keys():
        return {key: recorded}
    if own.get("_target_") != recorded.get("_target_"):
        return {key: recorded}
    changed: dict[str, Any] = {}
    for name, content in recorded.items():
        changed |= differences(own[name], content, f"{key}#{name}")
    return changed


def _are_components(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, Mapping) for item in value)
