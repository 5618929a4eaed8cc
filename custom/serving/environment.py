"""Makes the environment of MONAI Label: python custom/serving/environment.py FOLDER (needs no other packages)."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
PINS = HERE / "constraints-label.txt"
PACKAGE = HERE.parent  # custom


def make(folder: str | Path) -> Path:
    """Makes the environment if it does not exist with the current pins; returns the path of its Python.

    Raises:
        RuntimeError: a version of Python that MONAI Label does not support.
        subprocess.CalledProcessError: pip failed.
    """
    if not (3, 11) <= sys.version_info[:2] <= (3, 12):
        version = ".".join(map(str, sys.version_info[:2]))
        raise RuntimeError(f"MONAI Label 0.8.5 needs Python 3.11 or 3.12, but this is {version}. Use one of these.")
    folder = Path(folder).expanduser().absolute()
    python, stamp = folder / "bin" / "python", folder / "installed"
    pins = hashlib.sha256(PINS.read_bytes()).hexdigest()
    if not (python.is_file() and stamp.is_file() and stamp.read_text() == pins):
        venv.create(folder, with_pip=True, symlinks=True)
        # torch first and alone: another order can install several GB that are not needed
        for packages in pip_calls(PINS.read_text(encoding="utf-8")):
            subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        stamp.write_text(pins)
    link_package(folder)
    return python


def pip_calls(pins: str) -> list[list[str]]:
    """The arguments of pip install: torch; all packages above the line "# --no-deps"; those below it, without deps."""
    with_deps, _, alone = pins.partition("# --no-deps")
    main, rest = (re.findall(r"^[\w.\-\[\],]+==\S+$", part, flags=re.MULTILINE) for part in (with_deps, alone))
    return [main[:1], main, ["--no-deps", *rest]]


def link_package(folder: Path) -> None:
    """Links this package `custom` into the environment, so that the server runs this code."""
    link = folder / "lib" / "python{}.{}".format(*sys.version_info) / "site-packages" / "custom"
    if link.is_symlink() and link.resolve() == PACKAGE:
        return
    link.unlink(missing_ok=True)
    link.symlink_to(PACKAGE, target_is_directory=True)


if __name__ == "__main__":
    print(make(sys.argv[1] if len(sys.argv) > 1 else ".venv-label"))
