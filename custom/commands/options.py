"""The options of bundles: their meanings, and values as a user types them."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from custom.errors import ConfigError
from custom.running.bundles import find_bundle

FILE = "options.json"  # beside a bundle's config files: the meaning of each option
PRETRAIN = "pretrain"  # the config file of a pretraining, which few bundles have
CONFIGS = ("train", "evaluate", "inference", PRETRAIN)


class Word(str):
    """A value as typed on the command line, which `typed` converts."""


NO_VALUE = Word("True")  # of an option without a value: --resume


@dataclass(frozen=True)
class BundleOption:
    """One option of a bundle.

    Args:
        name: its key in the config files.
        default: the default as text; "train's; inference's; pretrain: pretrain's" if they differ.
        where: the config files that have it, "all" for training and inference.
        meaning: one or two sentences.
    """

    name: str
    default: str
    where: str
    meaning: str


def bundle_options(bundle: Path, *configs: str) -> list[BundleOption]:
    """The options of some of a bundle's config files (CONFIGS), all of them by default."""
    meanings = read_meanings(bundle)
    defaults = {name: _read(bundle / "configs" / f"{name}.json") for name in CONFIGS if _exists(bundle, name)}
    options = []
    for name, about in meanings.items():
        places = [config for config in defaults if name in defaults[config]]
        if not set(places) & set(configs or CONFIGS):
            continue
        texts = {config: _as_text(defaults[config][name]) for config in places if not configs or config in configs}
        others = [text for config, text in texts.items() if config != PRETRAIN]
        if PRETRAIN in texts and texts[PRETRAIN] not in others:
            others.append(f"{PRETRAIN}: {texts[PRETRAIN]}" if others else texts[PRETRAIN])
        default = about.get("default") or "; ".join(dict.fromkeys(others))
        where = ", ".join(places)
        if {"train", "inference"} <= set(places):
            where = f"all, {PRETRAIN}" if PRETRAIN in places else "all"
        options.append(BundleOption(name, default, where, about["meaning"]))
    return options


def read_meanings(bundle: Path) -> dict[str, dict[str, str]]:
    """The content of a bundle's options.json.

    Each option has a "meaning"; one whose default is an expression also a "default" to show; "kind" ("text", "path",
    "number" or "list") says how to read a value where the default does not show it; "none" says what None means.
    """
    content: dict[str, dict[str, str]] = _read(bundle / "configs" / FILE)
    return content


def _exists(bundle: Path, config: str) -> bool:
    """Whether a bundle has a config file. All have those of training and inference; without one, reading it fails."""
    return config != PRETRAIN or (bundle / "configs" / f"{config}.json").is_file()


def _read(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def _as_text(value: Any) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)


def table(bundle: Path) -> str:
    """The options of a bundle as a Markdown table."""
    rows = [
        f"| `{option.name}` | {option.default} | {option.where} | {option.meaning} |"
        for option in bundle_options(bundle)
    ]
    return "\n".join(["| option | default | where | meaning |", "|---|---|---|---|", *rows])


def typed(files: Iterable[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Converts values from the command line by the defaults of the config files.

    A value is text if the default is text, or if options.json declares "text" or "path". True and False (in any case)
    are taken for a bool, numbers for a number, JSON or Python lists and dicts for these; lists also without quotes:
    [T1,T2] or T1,T2. If the default is null or an expression of no declared kind, a value that reads as one of these
    is converted, and other values stay text. What does not fit stays as it is: StrictWorkflow refuses it.

    Args:
        files: a bundle's config file and its mixins.
        given: option names and values; only values of the class Word are converted.

    Raises:
        ConfigError: an option that is no bool has no value.
    """
    from monai.bundle import ConfigParser

    paths = [str(path) for path in files]
    parser = ConfigParser(ConfigParser.load_config_files(paths))
    meanings = read_meanings(Path(paths[0]).parents[1])
    return {name: _typed(name.removeprefix("+"), value, parser, meanings) for name, value in given.items()}


def _typed(name: str, value: Any, parser: Any, meanings: Mapping[str, Mapping[str, str]]) -> Any:
    if not isinstance(value, Word):
        return value
    default = parser.get(name)
    if value is NO_VALUE:
        if name in parser and not isinstance(default, bool):
            raise ConfigError(f"--{name} needs a value.")
        return True
    kind = meanings.get(name, {}).get("kind", "")
    if kind == "path" or name.endswith(("_dir", "_path")):
        return as_path(value)
    is_expression = isinstance(default, str) and default[:1] in ("$", "@", "%")
    none = value == "None" and "none" in meanings.get(name, {})
    if none or kind == "text" or (isinstance(default, str) and not is_expression):
        return "$None" if none else str(value)
    if isinstance(default, list) and default and all(isinstance(item, str) for item in default):
        return _texts(value)
    return convert(value, list if kind == "list" else type(default))


def as_path(text: str) -> str:
    """A path as typed. MONAI would evaluate one that starts with $, @ or %: that becomes an absolute path."""
    return str(Path.cwd() / text) if text[:1] in ("$", "@", "%") else str(text)


def convert(text: str, kind: type) -> Any:
    """Text as a bool, number, list or dict, if it is one; `kind` is the type of the default."""
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), str(text))
    if text[:1] in ("$", "@", "%"):
        return str(text)
    for read in (ast.literal_eval, json.loads):
        try:
            value = read(text)
            break
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    else:
        return _words(text) if kind is list else str(text)
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, (bool, int, float, list, dict, type(None))) else str(text)


def _words(text: str) -> Any:
    """[T1,T2] or T1,T2 as a list of words; other text as it is."""
    bracketed = text.startswith("[") and text.endswith("]")
    if not bracketed and "," not in text:
        return str(text)
    inside = text[1:-1] if bracketed else text
    return [convert(word.strip(), str) for word in inside.split(",") if word.strip()]


def _texts(text: str) -> Any:
    """The same for a list of names, which stay text: ['a','b'], [a,b] or a,b."""
    value = convert(text, list)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    bracketed = text.startswith("[") and text.endswith("]")
    if bracketed or isinstance(value, list):
        return [word.strip() for word in text.strip("[]").split(",") if word.strip()]
    return value


def options_of_command(command: str, bundle: str) -> list[BundleOption]:
    """The bundle's options that a command takes.

    Raises:
        ConfigError: no bundle or several bundles match.
    """
    configs = {"train": ["train"], "compare": ["train"], "baseline": ["train"], "pretrain": [PRETRAIN]}
    scoring = {"evaluate": ["train", "evaluate"], "report": ["train", "evaluate"]}
    return bundle_options(find_bundle(bundle), *(configs | scoring).get(command, ["inference"]))
