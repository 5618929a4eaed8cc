"""`brainmri sample`, `verify` and `prepare`: the commands on one data set."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from custom import datasets, samples
from custom.commands.options import Word, convert
from custom.errors import ConfigError, DataError


def sample(name: str, folder: str, options: Mapping[str, Any]) -> None:
    """Writes a sample and prints what it is. Raises ConfigError for an unknown sample or option."""
    module = _known_module(samples, name)
    known = dict(list(inspect.signature(module.write).parameters.items())[1:])
    if unknown := sorted(set(options) - set(known)):
        raise ConfigError(f"The sample {name} has no option {unknown[0]!r}. Use one of: {', '.join(known)}.")
    values = {
        key: convert(value, type(known[key].default)) if isinstance(value, Word) else value
        for key, value in options.items()
    }
    print(f"{module.write(folder, **values)}: {(module.__doc__ or '').splitlines()[0]}")


def verify(name: str, folder: str) -> None:
    """Prints every problem of a data set, or of a folder of labelled scans (`name`, if `folder` is "").

    Raises:
        DataError: there are problems.
    """
    if folder:
        problems = _known_module(datasets, name).verify(folder)
    else:
        from custom.commands import plan

        if name in datasets.NAMES:
            raise ConfigError(f"Name the folder of the data set too: brainmri verify {name} DIR.")
        folder, problems = name, plan.verify(name)
    print("\n".join(problems) or f"{folder}: no problem found.")
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise DataError(f"{folder} has {count}, listed above.")


def prepare(name: str, folder: str, output_dir: str) -> None:
    """Converts a data set once. Raises ConfigError for one that needs no preparing."""
    module = _known_module(datasets, name)
    if not hasattr(module, "prepare"):
        raise ConfigError(f"{name} needs no preparing: train on it as it is.")
    print(f"{module.prepare(folder, output_dir)}: use it as --dataset_dir.")


def _known_module(package: ModuleType, name: str) -> ModuleType:
    if name not in package.NAMES:
        raise ConfigError(f"There is no data set {name!r}. Use one of: {', '.join(package.NAMES)}.")
    return importlib.import_module(f"{package.__name__}.{name}")
