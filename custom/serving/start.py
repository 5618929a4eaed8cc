"""`brainmri label`: makes the environment of MONAI Label, then starts the server in it."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from custom.errors import ConfigError
from custom.serving.environment import make
from custom.serving.label_settings import TOKEN, arguments, checked_studies


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
    try:
        note = "" if environment.is_dir() else " (making it takes some minutes)"
        print(f"Environment of MONAI Label: {environment}{note}", flush=True)
        python = make(environment)
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(
            f"The environment {environment} cannot be made ({error}). See docs/serving.md for what it needs."
        ) from error
    command = [str(python), "-m", "custom.serving", *options]
    print(shlex.join(command), flush=True)
    os.execve(python, command, os.environ | ({TOKEN: token} if token else {}))


def command_line(settings: Mapping[str, Any]) -> tuple[list[str], str]:
    """The arguments of the server, and the token, which must not be on a command line that other users can see.

    Raises:
        ConfigError: an unknown option.
    """
    known = {action.dest for action in arguments()._actions} - {"help"}
    if unknown := sorted(set(settings) - known):
        raise ConfigError(f"brainmri label has no option {unknown[0]!r}. Its options are: {', '.join(sorted(known))}.")
    options: list[str] = []
    for name, value in settings.items():
        if name == "token" or value is False or value == "":
            continue
        text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        options += [f"--{name}"] if value is True else [f"--{name}", text]
    return options, str(settings.get("token", ""))
