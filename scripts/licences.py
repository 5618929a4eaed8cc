"""Writes the table of docs/licences.md: the licences of everything that this project needs to run.

python scripts/licences.py

It reads the metadata of the packages in the current environment, from the requirements in pyproject.toml on.
"""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "licences.md"
START, END = "<!-- packages: written by scripts/licences.py -->", "<!-- end of packages -->"
LONGEST = 120  # characters: longer texts in the field License are the licence itself


def required() -> list[str]:
    """The names of all packages that the project needs without extras, in lower case, sorted.

    Raises:
        importlib.metadata.PackageNotFoundError: one of them is not installed.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    waiting = [Requirement(line) for line in project["dependencies"]]
    found: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        name = normalized(requirement.name)
        if (name, frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, frozenset(requirement.extras)))
        found.add(name)
        needs = map(Requirement, importlib.metadata.requires(requirement.name) or [])
        waiting += [each for each in needs if _applies(each, requirement.extras)]
    return sorted(found)


def normalized(name: str) -> str:
    """A package's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _applies(requirement: Requirement, extras: Iterable[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def licence_of(name: str) -> str:
    """The licence that a package's metadata names: an SPDX expression, else its own word for it, else a classifier."""
    metadata = importlib.metadata.metadata(name)
    text = metadata.get("License-Expression") or metadata.get("License") or ""
    if not text or len(text) > LONGEST or text == "UNKNOWN":
        classes = [value for value in metadata.get_all("Classifier") or [] if value.startswith("License ::")]
        text = ", ".join(value.rpartition(" :: ")[2] for value in classes)
    return " ".join(text.split()) or "see its files"


def table() -> str:
    """The packages with their versions and licences, as Markdown."""
    rows = [f"| {name} | {importlib.metadata.version(name)} | {licence_of(name)} |" for name in required()]
    return "\n".join(["| package | version | licence |", "|---|---|---|", *rows])


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{START}\n{table()}\n{END}{after}", encoding="utf-8")
