"""What makes a folder of results a BIDS derivative: its description, and a sidecar beside each file.

https://bids-specification.readthedocs.io/en/stable/derivatives/introduction.html
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import custom
from custom.files import NO_JSON, written_whole
from custom.reading.scans import BIDS, stem

VERSION = "1.10.0"  # of BIDS
DESCRIPTION = "dataset_description.json"
IGNORED = ("volumes*.csv", "report.html", "run.log", "**/earlier/", "**/*_dseg.png")  # BIDS has no names for these
SIDECARS: dict[str, dict[str, Any]] = {  # by custom.commands.segment_files.results_of's names
    "structures": {"Description": "Brain structures, FreeSurfer's codes", "Manual": False},
    "areas": {"Description": "Areas of the cortex (Desikan-Killiany), FreeSurfer's codes", "Manual": False},
    "mask": {"Description": "Brain mask: GM, WM and ventricles, closed and without holes", "Type": "Brain"},
    "intracranial mask": {"Description": "Brain mask with the CSF around the brain", "Type": "Brain"},
    "brain": {"Description": "The scan, 0 outside the brain mask", "SkullStripped": True},
    "probabilities": {"Description": "Probabilities along the fourth axis", "LabelMap": ["CSF", "GM", "WM"]},
}


def sidecar_of(what: str) -> str:
    """The sidecar of a file as text."""
    return json.dumps(SIDECARS[what] | {"Note": custom.RESEARCH_USE_ONLY}, indent=4) + "\n"


def describe(output_dir: Path, scans: Iterable[Path]) -> None:
    """Writes dataset_description.json and .bidsignore, if some scan is of a BIDS data set. What exists stays."""
    source = next((root for scan in scans if (root := _root(scan)) is not None), None)
    if source is None or source.resolve() == output_dir.resolve():
        return
    about = _description(source)
    origin = {"DOI": about["DatasetDOI"]} if about.get("DatasetDOI") else {"URL": _relative(source, output_dir)}
    description = {
        "Name": f"Brain MRI Bundles: segmentations of {about.get('Name', 'a BIDS data set')}",
        "BIDSVersion": VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [
            {"Name": "brainmri segment", "Version": custom.__version__, "Description": custom.RESEARCH_USE_ONLY}
        ],
        "SourceDatasets": [origin],
    }
    _write(output_dir / DESCRIPTION, json.dumps(description, indent=4) + "\n")
    _write(output_dir / ".bidsignore", "\n".join(IGNORED) + "\n")


def _root(scan: Path) -> Path | None:
    """The BIDS data set that a scan belongs to: the nearest folder above it with a description."""
    if BIDS.fullmatch(stem(scan)) is None:
        return None
    return next((folder for folder in scan.absolute().parents if (folder / DESCRIPTION).is_file()), None)


def _description(root: Path) -> dict[str, Any]:
    try:
        content = json.loads((root / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, *NO_JSON):
        return {}
    return content if isinstance(content, dict) else {}


def _relative(source: Path, output_dir: Path) -> str:
    """The source seen from the results, so that no name of a user's folder is written."""
    return Path(os.path.relpath(source.resolve(), output_dir.resolve())).as_posix()


def _write(path: Path, text: str) -> None:
    if not path.exists():
        with written_whole(path) as partial:
            partial.write_text(text, encoding="utf-8")
