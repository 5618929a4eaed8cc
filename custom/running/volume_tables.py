"""The records of `brainmri segment` as tables of volumes: tidy, or one row a scan with SynthSeg's column names.

SynthSeg's names are the header of its `--vol` table: Billot et al. 2023, Medical Image Analysis 86, 102789, and
https://surfer.nmr.mgh.harvard.edu/fswiki/SynthSeg.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from custom.datasets import cortical_areas, freesurfer
from custom.files import NO_JSON
from custom.reading.scans import BIDS, stem

Record = dict[str, Any]
EARLIER = re.compile(r"(^|/)earlier/\d{8}-\d{6}")  # where custom.files.set_aside moves files
COLUMNS = (
    "scan", "subject", "session", "structure", "side", "ml", "icv_ml", "share_of_icv", "confidence",
    "asymmetry_percent", "scan_confidence", "warnings",
)  # fmt: skip
SUMS = {  # of structures; GM, WM, CSF and brain are in the records
    "subcortical-GM": ("Thalamus", "Caudate", "Putamen", "Pallidum", "Hippocampus", "Amygdala", "Accumbens-area"),
    "ventricles": ("Lateral-Ventricle", "3rd-Ventricle", "4th-Ventricle"),
}
_SYNTHSEG = (  # left or in the middle, in the order of its table; its inferior ventricles count to the lateral ones
    ("cerebral white matter", 2), ("cerebral cortex", 3), ("lateral ventricle", 4), ("cerebellum white matter", 7),
    ("cerebellum cortex", 8), ("thalamus", 10), ("caudate", 11), ("putamen", 12), ("pallidum", 13),
    ("3rd ventricle", 14), ("4th ventricle", 15), ("brain-stem", 16), ("hippocampus", 17), ("amygdala", 18),
    ("csf", 24), ("accumbens area", 26), ("ventral DC", 28),
)  # fmt: skip


def read_records(folder: Path) -> list[tuple[Path, Record]]:
    """The records of a folder of results and of all folders below it, with their files, in the order of the files."""
    records = []
    for path in sorted(folder.rglob("*seg.json")):
        if EARLIER.search(path.relative_to(folder).as_posix()) or path.name.startswith("."):
            continue
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            tidy_rows(record)
        except (OSError, *NO_JSON, KeyError, TypeError, AttributeError):
            continue  # another program's file, or one that another process is moving
        records.append((path, record))
    return records


def entities_of(scan: str) -> tuple[str, str]:
    """Subject and session of a BIDS name, such as ("sub-01", "ses-1"); "" for what the name lacks."""
    match = BIDS.fullmatch(stem(scan))
    entities = dict(part.split("-", 1) for part in match["entities"].split("_")) if match else {}
    subject, session = (entities.get(key, "") for key in ("sub", "ses"))
    return subject and f"sub-{subject}", session and f"ses-{session}"


def tidy_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of one scan: COLUMNS, a row for each tissue, structure, side and sum.

    Args:
        record: of `brainmri segment`; one without structures gives rows of its labels.

    Raises:
        KeyError, TypeError, AttributeError: no record.
    """
    subject, session = entities_of(record["scan"])
    confidence, icv = record.get("confidence", {}), record["volumes_ml"].get("intracranial")
    asymmetry = record.get("asymmetry_percent", {})
    rows = []
    for structure, side, ml, trusted in _measures(record):
        rows.append(
            {
                "scan": record["scan"],
                "subject": subject,
                "session": session,
                "structure": structure,
                "side": side,
                "ml": ml,
                "icv_ml": icv,
                "share_of_icv": round(ml / icv, 6) if icv else None,
                "confidence": trusted,
                "asymmetry_percent": asymmetry.get(structure) if side == "both" else None,
                "scan_confidence": confidence.get("scan"),
                "warnings": "; ".join(record["warnings"]),
            }
        )
    return rows


def _measures(record: Mapping[str, Any]) -> Iterable[tuple[str, str, float, float | None]]:
    """Structure, side, ml and confidence of each row."""
    confidence, structures = record.get("confidence", {}), record.get("structures_ml", {})
    for name, ml in record["volumes_ml"].items():
        yield name, "both", ml, confidence.get(name)
    if not structures:
        return
    titles = list(dict.fromkeys(name.removeprefix("Left-").removeprefix("Right-") for name in structures))
    for title in titles:
        for side in ("left", "right"):
            if (name := f"{side.title()}-{title}") in structures:
                yield title, side, structures[name], confidence.get(name)
        yield title, "both", *_sum(record, [title])
    for name, parts in SUMS.items():
        yield name, "both", *_sum(record, parts)
    yield from _areas(record)


def _areas(record: Mapping[str, Any]) -> Iterable[tuple[str, str, float, float | None]]:
    """Rows of the cortex's areas and of the lobes: left, right and both."""
    areas, confidence = record.get("areas_ml", {}), record.get("confidence", {})
    if not areas:
        return
    groups: dict[str, tuple[str, ...]] = {f"ctx-{area.name}": (area.name,) for area in cortical_areas.AREAS}
    groups |= {f"lobe-{lobe}": names for lobe, names in cortical_areas.LOBES.items()}
    for title, names in groups.items():
        for side, letters in (("left", ("lh",)), ("right", ("rh",)), ("both", ("lh", "rh"))):
            parts = [f"ctx-{letter}-{name}" for letter in letters for name in names]
            yield title, side, *_total({name: areas[name] for name in parts}, confidence)


def _sum(record: Mapping[str, Any], titles: Iterable[str]) -> tuple[float, float | None]:
    """Volume of some structures with both sides, and their confidence.

    The Dice of a union of labels that do not overlap is the mean of their Dice, weighted by their volumes.
    """
    structures = record["structures_ml"]
    names = [name for title in titles for name in (title, f"Left-{title}", f"Right-{title}") if name in structures]
    return _total({name: structures[name] for name in names}, record.get("confidence", {}))


def _total(volumes: Mapping[str, float], confidence: Mapping[str, float]) -> tuple[float, float | None]:
    """The sum of some volumes (by name), and their mean confidence, weighted by them."""
    ml = round(sum(volumes.values()), 3)
    present = [name for name, volume in volumes.items() if volume > 0]
    if not present or any(name not in confidence for name in present):
        return ml, None
    return ml, round(sum(volumes[name] * confidence[name] for name in present) / ml, 3)


def wide_rows(records: Iterable[tuple[Path, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """One row for each scan with structures: SynthSeg's column names, volumes in cubic mm.

    `subject` is the scan's name without its ending, as in SynthSeg. Where two scans have one name, it is the path.
    """
    chosen = [record for _, record in records if record.get("structures_ml")]
    times = Counter(stem(record["scan"]) for record in chosen)
    rows = []
    for record in chosen:
        name = stem(record["scan"])
        row = {"subject": name if times[name] == 1 else record["scan"]}
        row["total intracranial"] = round(1000 * record["volumes_ml"]["intracranial"], 1)
        for column, structure in synthseg_columns().items():
            row[column] = round(1000 * record["structures_ml"][structure], 1)
        rows.append(row)
    return rows


def synthseg_columns() -> dict[str, str]:
    """{a column of SynthSeg's table of volumes: FreeSurfer's name of the structure}, in SynthSeg's order."""
    names = {code: name for code, (name, _) in freesurfer.names_and_colours().items()}
    right = {structure.left: structure.right for structure in freesurfer.STRUCTURES if structure.has_sides}
    left_columns = {(f"left {name}" if code in right else name): names[code] for name, code in _SYNTHSEG}
    return left_columns | {f"right {name}": names[right[code]] for name, code in _SYNTHSEG if code in right}
