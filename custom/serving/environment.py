"""An environment of its own for MONAI Label: python custom/serving/environment.py FOLDER (plain Python does)."""

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
    """Makes the environment, or takes it where it is there with these pins; returns its Python.

    Raises:
        RuntimeError: a Python that MONAI Label can't run with.
        subprocess.CalledProcessError: pip failed.
    """
    if not (3, 11) <= sys.version_info[:2] <= (3, 12):
        version = ".".join(map(str, sys.version_info[:2]))
        raise RuntimeError(f"MONAI Label 0.8.5 needs Python 3.11 or 3.12, this is {version}: run it with one of these.")
    folder = Path(folder).expanduser().absolute()
    python, stamp = folder / "bin" / "python", folder / "installed"
    pins = hashlib.sha256(PINS.read_bytes()).hexdigest()
    if not (python.is_file() and stamp.is_file() and stamp.read_text() == pins):
        venv.create(folder, with_pip=True, symlinks=True)
        # torch comes first and by itself: any other order can pull in several GB that aren't needed
        for packages in pip_calls(PINS.read_text(encoding="utf-8")):
            subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        stamp.write_text(pins)
    link_package(folder)
    return python


def pip_calls(pins: str) -> list[list[str]]:
    """torch; then everything else but what lies under "# --no-deps"; then that, without what it asks for."""
    with_deps, _, alone = pins.partition("# --no-deps")
    found, rest = (re.findall(r"^[\w.\-\[\],]+==\S+$", part, flags=re.MULTILINE) for part in (with_deps, alone))
    return [found[:1], found, ["--no-deps", *rest]]


def link_package(folder: Path) -> None:
    """Lets the environment import this very `custom`, with its bundles, and nothing else that lies beside it."""
    link = folder / "lib" / "python{}.{}".format(*sys.version_info) / "site-packages" / "custom"
    if link.is_symlink() and link.resolve() == PACKAGE:
        return
    link.unlink(missing_ok=True)
    link.symlink_to(PACKAGE, target_is_directory=True)


if __name__ == "__main__":
    print(make(sys.argv[1] if len(sys.argv) > 1 else ".venv-label"))
