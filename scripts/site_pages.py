"""For mkdocs.yml: pages that lie outside docs/ get a place in the site, and links to them are turned there.

Notebooks are shown with the outputs of tests/test_notebooks.py, if these were made from the same cells.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PLACES = {
    ROOT / "README.md": "overview.md",
    ROOT / "CONTRIBUTING.md": "contributing.md",
    ROOT / "SECURITY.md": "security.md",
    ROOT / "CHANGELOG.md": "changelog.md",
    ROOT / "CITATION.cff": "CITATION.cff",
}
PLACES |= {page: f"bundles/{page.parents[1].name}.md" for page in ROOT.glob("bundles/*/docs/README.md")}


@event_priority(100)  # before mkdocs-jupyter looks for notebooks
def on_files(files: Files, config: Any) -> Files:
    """Adds the pages to those of docs/."""
    build = ROOT / "build"
    for notebook in (DOCS / "notebooks").glob("*.ipynb"):
        name = f"notebooks/{notebook.name}"
        if (build / name).is_file() and cells_of(build / name) == cells_of(notebook):
            files.remove(files.src_uris[name])
            files.append(File(name, str(build), config["site_dir"], config["use_directory_urls"]))
    for source, place in PLACES.items():
        files.append(File.generated(config, place, abs_src_path=str(source)))
    return files


def cells_of(notebook: Path) -> list[str]:
    """The text of each cell."""
    return ["".join(cell["source"]) for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]]


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns links between files of the repository into links between pages of the site."""
    source = Path(page.file.abs_src_path)
    here = Path(page.file.src_uri).parent

    def turned(match: re.Match[str]) -> str:
        path, mark, anchor = match[1].partition("#")
        target = (source.parent / path).resolve()
        place = PLACES.get(target) or (str(target.relative_to(DOCS)) if target.is_relative_to(DOCS) else None)
        if not path or place is None or not target.is_file():
            return match[0]
        return f"]({os.path.relpath(place, here)}{mark}{anchor})"

    return re.sub(r"\]\(([^)\s]+)\)", turned, markdown)
