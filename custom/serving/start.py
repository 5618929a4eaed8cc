"""`brainmri label`: MONAI Label's environment made, then the server in its place."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from custom.errors import ConfigError
from custom.serving.environment import make
from custom.serving.label_settings import TOKEN, arguments


def start(settings: Mapping[str, Any], environment: Path) -> None:
    """Prints the server's command and becomes it.

    Args:
        settings: of custom.serving.label_settings.
        environment: the folder of MONAI Label's environment, made where it isn't there.

    Raises:
        ConfigError: an unknown setting, or an environment that can't be made.
    """
    words, token = command_line(settings)
    try:
        takes = "" if environment.is_dir() else " is made, which takes minutes"
        print(f"MONAI Label's environment: {environment}{takes}", flush=True)
        python = make(environment)
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(f"{environment} can't be made ({error}): docs/serving.md says what it needs.") from error
    command = [str(python), "-m", "custom.serving", *words]
    print(shlex.join(command), flush=True)
    os.execve(python, command, os.environ | ({TOKEN: token} if token else {}))


def command_line(settings: Mapping[str, Any]) -> tuple[list[str], str]:
    """The server's words, and the token, which other users of the machine would see among them.

    Raises:
        ConfigError: a setting that there isn't.
    """
    known = {name for action in arguments()._actions for name in [action.dest] if name != "help"}
    if unknown := sorted(set(settings) - known):
        raise ConfigError(f"There is no setting {unknown[0]!r}: brainmri label takes {sorted(known)}.")
    words = []
    for name, value in settings.items():
        if name == "token" or value is False or value == "":
            continue
        text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        words += [f"--{name}"] if value is True else [f"--{name}", text]
    return words, str(settings.get("token", ""))
