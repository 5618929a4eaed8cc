"""The notebooks of the documentation run from top to bottom, and show what they say."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
RUN = ROOT / "build" / "notebooks"  # scripts/site_pages.py shows these with their outputs
NOTEBOOKS = sorted(ROOT.glob("docs/notebooks/*.ipynb"))


def outputs(notebook: Any, kind: str) -> str:
    """All outputs of a MIME type as one text; "text" is whatever was printed or shown as text."""
    found = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    if kind == "text":
        return "\n".join(output.get("text", "") or output["data"].get("text/plain", "") for output in found)
    return "\n".join(output["data"][kind].strip() for output in found if kind in output.get("data", {}))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebooks_are_kept_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")] == []
    assert "not a medical device" in notebook.cells[0].source


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "texts", "pictures"),
    [
        ("segment", ["Left-Hippocampus", "intracranial", "tissues.nii.gz"], 1),
        ("train", ["no problem found", "V-Net Light", "vnet_light"], 1),
    ],
)
def test_a_notebook_runs(
    name: str, texts: list[str], pictures: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("MPLBACKEND", raising=False)  # figures are outputs of the notebook
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(ROOT / "docs" / "notebooks" / f"{name}.ipynb", as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = outputs(notebook, "text")
    assert [text for text in texts if text not in shown] == []
    assert len(outputs(notebook, "image/png").split()) == pictures
    RUN.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, RUN / f"{name}.ipynb")
