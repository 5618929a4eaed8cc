"""`brainmri survival`: its options, as a user types them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from custom.commands.meanings import SURVIVAL_OPTIONS
from custom.commands.options import Word, as_path, convert
from custom.errors import ConfigError


def survival(dataset_dir: str, options: Mapping[str, Any]) -> None:
    """Scores all models of custom.baselines.survival. Raises ConfigError for an unknown option."""
    from custom.baselines.survival import SurvivalOptions, survival

    if unknown := sorted(set(options) - set(SURVIVAL_OPTIONS)):
        raise ConfigError(
            f"brainmri survival has no option {unknown[0]!r}. Use some of: {', '.join(SURVIVAL_OPTIONS)}."
        )
    kinds = {field.name: type(field.default) for field in dataclasses.fields(SurvivalOptions)}
    values = {
        name: convert(value, int) if kinds[name] is int and isinstance(value, Word) else value
        for name, value in options.items()
    }
    for name in ("output_dir", "labels_dir"):
        if name in values:
            values[name] = as_path(values[name])
    survival(SurvivalOptions(dataset_dir=as_path(dataset_dir), **values))
