"""How unusual each scan of a cohort is, and a page that shows all scans: table, distributions, viewer."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np

import custom
from custom.errors import ConfigError

LEAST = 5  # scans; a median of fewer says little
DEFINITION = (
    "“Unusual” is the largest distance from the median of all scans among a scan's volumes (as shares of the "
    "intracranial volume), its intracranial volume and its confidence (only if it is below the median), in robust "
    "standard deviations (1.4826 times the median absolute deviation, and at least 1% of the median), plus 1 for each "
    f"warning; with fewer than {LEAST} scans only warnings count."
)
ICV, CONFIDENCE = "intracranial volume (ml)", "confidence (expected Dice)"
TABLE = (ICV, "brain (%)", "GM (%)", "WM (%)", "CSF (%)", CONFIDENCE)  # measures that are columns of the table


@dataclass
class Scan:
    """One scan of a cohort.

    Args:
        name: as the page calls it.
        measures: {ICV: ml, "GM (%)": share of it, ..., CONFIDENCE: 0 to 1}; what could not be measured is left out.
        warnings: sentences.
        view: what custom.reports.viewer.view gives, as JSON; "" if there is nothing to look at.

    Attributes:
        unusual: see DEFINITION.
        reason: what makes it unusual, in a few words.
    """

    name: str
    measures: dict[str, float]
    warnings: list[str]
    view: str = ""
    unusual: float = field(default=0.0, init=False)
    reason: str = field(default="", init=False)


def measures_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The measures of one scan from its rows in volumes.csv (custom.running.volume_tables.tidy_rows)."""
    measures = {}
    for row in rows:
        if row["scan_confidence"] is not None:
            measures[CONFIDENCE] = row["scan_confidence"]
        if row["side"] != "both" or row["structure"] == "all":
            continue
        if row["structure"] == "intracranial":
            measures[ICV] = row["ml"]
        elif row["share_of_icv"] is not None:
            measures[f"{row['structure']} (%)"] = round(100 * row["share_of_icv"], 3)
        else:
            measures[f"{row['structure']} (ml)"] = row["ml"]
    return measures


def score(scans: Sequence[Scan]) -> list[Scan]:
    """Sets `unusual` and `reason` of all scans, and returns them, the most unusual first."""
    distances: list[dict[str, float]] = [{} for _ in scans]
    for name in dict.fromkeys(name for scan in scans for name in scan.measures):
        values = np.array([scan.measures.get(name, np.nan) for scan in scans])
        present = values[np.isfinite(values)]
        if len(present) < LEAST:
            continue
        median = float(np.median(present))
        spread = max(1.4826 * float(np.median(np.abs(present - median))), 0.01 * abs(median))
        for number, value in enumerate(values):
            if np.isfinite(value) and spread > 0 and not (name == CONFIDENCE and value >= median):
                distances[number][name] = (float(value) - median) / spread
    for scan, own in zip(scans, distances, strict=True):
        name = max(own, key=lambda key: abs(own[key]), default="")
        scan.unusual = round((abs(own[name]) if name else 0.0) + len(scan.warnings), 1)
        if name:
            scan.reason = f"{name.partition(' (')[0]} {'low' if own[name] < 0 else 'high'} ({own[name]:+.1f})"
    return sorted(scans, key=lambda scan: (-scan.unusual, scan.measures.get(CONFIDENCE, 1.0), scan.name))


def cohort_page(scans: Sequence[Scan], notes: Sequence[str] = ()) -> str:
    """The page as HTML. It needs no network and no other file.

    Args:
        scans: in any order.
        notes: sentences above the table.

    Raises:
        ConfigError: nilearn, which brings the viewer, is of a version without it.
    """
    ordered = score(scans)
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("custom.reports").joinpath("cohort.html").read_text(encoding="utf-8"))
    return template.render(
        scans=ordered,
        columns=[name for name in TABLE if any(name in scan.measures for scan in scans)],
        panels=_panels(ordered),
        notes=notes,
        definition=DEFINITION,
        research_use_only=custom.RESEARCH_USE_ONLY,
        version=custom.__version__,
        brainsprite=_brainsprite(),
    )


def _panels(scans: Sequence[Scan]) -> list[dict[str, Any]]:
    """Of each measure its distribution: dots at 0 to 300, ticks at the least, the median and the largest value."""
    panels = []
    for name in sorted({name for scan in scans for name in scan.measures}, key=_rank):
        values = {number: scan.measures[name] for number, scan in enumerate(scans) if name in scan.measures}
        low, high = min(values.values()), max(values.values())
        width = (high - low) or 1.0
        dots = [
            {"scan": number, "x": round(300 * (value - low) / width, 1), "y": 8 + 7 * number % 24, "value": value}
            for number, value in values.items()
        ]
        median = float(np.median(list(values.values())))
        panels.append(
            {"name": name, "dots": dots, "low": low, "high": high, "median": median, "at": 300 * (median - low) / width}
        )
    return panels


def _rank(name: str) -> tuple[int, str]:
    return (TABLE.index(name) if name in TABLE else len(TABLE), name)


def _brainsprite() -> str:
    """The viewer brainsprite (MIT License, https://github.com/brainsprite/brainsprite), as nilearn brings it."""
    for path in importlib.metadata.files("nilearn") or ():
        if path.name == "brainsprite.min.js":
            return path.read_text(encoding="utf-8")
    raise ConfigError("This version of nilearn has no brainsprite.min.js. Install nilearn 0.12 to 0.14.")
