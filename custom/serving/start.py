"""`brainmri label` and `segment --studies`: make the environment of MONAI Label, then run in it."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from custom.errors import ConfigError
from custom.serving.batch_settings import batch_arguments, filters_of
from custom.serving.environment import make
from custom.serving.label_settings import TOKEN, arguments, checked_studies

ENVIRONMENT = ".venv-label"  # the folder of MONAI Label's environment


def start(settings: Mapping[str, Any], environment: Path) -> None:
    """Prints the command of the server and replaces this process by it.

    Args:
        settings: the options of custom.serving.label_settings.
        environment: the folder of MONAI Label's environment, which is made if it does not exist.

    Raises:
        ConfigError: an unknown option, studies that do not exist, or an environment that cannot be made.
    """
    options, token = command_line(settings)
    checked_studies(str(settings["studies"]))  # before the minutes that the environment takes
    _replace_process(environment, ["-m", "custom.serving", *options], {TOKEN: token} if token else {})


def start_batch(scans: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Prints the command that segments the studies of a PACS, and replaces this process by it.

    Args:
        scans: files that were named too, which is a mistake.
        settings: the options of custom.serving.batch_settings, and "environment", the folder of MONAI Label's
            environment, which is made if it does not exist.

    Raises:
        ConfigError: files besides studies, an unknown option, studies that are no URL, or an environment that cannot
            be made.
    """
    if scans:
        raise ConfigError(f"Name scans or --studies, not both: got {scans[0]!r} too.")
    environment = Path(str(settings.get("environment", ENVIRONMENT)))
    own = {name: value for name, value in settings.items() if name != "environment"}
    options, _ = command_line(own, batch_arguments())
    if not str(settings["studies"]).startswith(("http://", "https://")):
        raise ConfigError(
            f"--studies must be the URL of a DICOMweb server, got {settings['studies']!r}. For files use: brainmri "
            "segment FOLDER."
        )
    filters_of(str(settings.get("query", "")))
    _replace_process(environment, ["-m", "custom.serving.batch", *options], {})


def _replace_process(environment: Path, words: Sequence[str], variables: Mapping[str, str]) -> None:
    try:
        note = "" if environment.is_dir() else " (making it takes some minutes)"
        print(f"Environment of MONAI Label: {environment}{note}", flush=True)
        python = make(environment)
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(
            f"The environment {environment} cannot be made ({error}). See docs/serving.md for what it needs."
        ) from error
    command = [str(python), *words]
    print(shlex.join(command), flush=True)
    os.execve(python, command, os.environ | variables)


def command_line(settings: Mapping[str, Any], parser: argparse.ArgumentParser | None = None) -> tuple[list[str], str]:
    """The arguments of a program, and the token, which must not be on a command line that other users can see.

    Args:
        settings: options and values.
        parser: the program's; None for the server's.

    Raises:
        ConfigError: an unknown option.
    """
    parser = parser or arguments()
    known = {action.dest for action in parser._actions} - {"help"}
    if unknown := sorted(set(settings) - known):
        raise ConfigError(f"{parser.prog} has no option {unknown[0]!r}. Its options are: {', '.join(sorted(known))}.")
    options: list[str] = []
    switches = {action.dest for action in parser._actions if action.nargs == 0}
    for name, value in settings.items():
        if name in switches and str(value).lower() in ("true", "false"):
            value = str(value).lower() == "true"
        if name == "token" or value is False or value == "":
            continue
        text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        options += [f"--{name}"] if value is True else [f"--{name}", text]
    return options, str(settings.get("token", ""))
