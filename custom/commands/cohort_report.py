"""`brainmri report DIR`: one HTML file of a folder of segmentations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb

from custom.commands.volumes import label_files, read_labels, results_in
from custom.datasets import freesurfer
from custom.errors import BrainMRIError
from custom.files import printable, written_whole
from custom.reading.scans import BIDS, read_scan, stem
from custom.reports.cohort import Scan, cohort_page, measures_of
from custom.reports.segmentation import colour_of
from custom.reports.viewer import Colours, view
from custom.running.volume_tables import Record, tidy_rows

NAME = "report.html"
MARK = b'content="brainmri report"'  # in the head of the page


def write_report(output_dir: Path, names: bool = False) -> Path:
    """Writes report.html: a table of all scans, the most unusual first, distributions, and a viewer.

    It holds no path, date or name of a file. Scans have their BIDS names; others are "scan 1", "scan 2", ... in the
    order of volumes.csv. A page of that name which is not this command's is kept in earlier/.

    Args:
        output_dir: of `brainmri segment`.
        names: call scans by the names of their files.

    Returns:
        The path of the page.

    Raises:
        DataError: no results of `brainmri segment` in the folder.
    """
    records = results_in(output_dir)
    titles = _titles([record["scan"] for _, record in records], names)
    scans = [
        Scan(title, measures_of(tidy_rows(record)), _without_paths(record), _view(path, record))
        for (path, record), title in zip(records, titles, strict=True)
    ]
    page = cohort_page(scans, _notes([record for _, record in records]))
    target = output_dir / NAME
    is_ours = target.is_file() and MARK in target.read_bytes()[:2000]
    with written_whole(target, keep_old=not is_ours) as partial:
        partial.write_text(page, encoding="utf-8")
    return target


def _titles(scans: Sequence[str], names: bool) -> list[str]:
    """A name for each scan, each once."""
    titles: list[str] = []
    for number, scan in enumerate(scans, start=1):
        is_bids = BIDS.fullmatch(stem(scan)) is not None
        title = printable(stem(scan)) if names or is_bids else f"scan {number}"
        titles.append(f"{title} ({number})" if title in titles else title)
    return titles


def _without_paths(record: Mapping[str, Any]) -> list[str]:
    """The warnings, which may name a file or folder, without these names."""
    scan = Path(record["scan"])
    return [warning.replace(str(scan), "the scan").replace(scan.name, "the scan") for warning in record["warnings"]]


def _notes(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader must know before comparing the scans."""
    notes = []
    weights = len({record.get("weights_sha256") for record in records})
    if weights > 1:
        notes.append(f"Note: {weights} different weights made these segmentations. Do not compare their volumes.")
    if any(record.get("confidence_is_calibrated") is False for record in records):
        notes.append("Note: the confidence of some scans is not calibrated, because their weights have no calibration.")
    return notes


def _view(path: Path, record: Record) -> str:
    """The scan and its label map, structures if there are any, for the viewer; "" without a label file."""
    found = label_files(path, record)
    what = next((name for name in ("structures", "tissues") if name in found), None)
    if what is None:
        return ""
    try:
        labels, affine = read_labels(found[what])
    except BrainMRIError:
        return ""
    names: Colours = freesurfer.names_and_colours()
    if what == "tissues":
        tissues = {int(code): name for code, name in record["labels"].items() if int(code)}
        names = {code: (name, _rgb(colour_of(code))) for code, name in tissues.items()}
    return view(_scan_on(record["scan"], labels.shape), labels, affine, names)


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = (round(255 * value) for value in to_rgb(colour))
    return red, green, blue


def _scan_on(scan: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """The scan's voxels; None if it is not there any more, or is another one."""
    try:
        voxels, _, _ = read_scan(scan)
    except (BrainMRIError, OSError):
        return None
    return voxels if voxels.shape == shape else None
