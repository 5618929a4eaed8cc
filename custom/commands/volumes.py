"""volumes.csv and volumes_wide.csv of a folder of results; `brainmri volumes` measures the label files again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from custom.commands.segment_files import results_of
from custom.datasets import cortical_areas, freesurfer
from custom.errors import DataError, MissingDataError
from custom.files import set_aside, written_whole
from custom.reading.volumes import open_volume
from custom.running.segmentation import asymmetry_of, volumes_ml, warnings_of
from custom.running.volume_tables import COLUMNS, Record, read_records, tidy_rows, wide_rows

TIDY, WIDE = "volumes.csv", "volumes_wide.csv"
CORRECTED = "the labels were changed after the segmentation: volumes were measured again"


def collect(output_dir: Path, wide: bool = False) -> list[Path]:
    """Writes volumes.csv, with `wide` volumes_wide.csv too; one that exists already is always kept up to date.

    Returns:
        The tables that there are.
    """
    tables = [output_dir / TIDY]
    _write(tables[0], lambda: _as_csv(pandas.DataFrame(_tidy(output_dir), columns=COLUMNS)))
    if wide or (output_dir / WIDE).is_file():
        tables.append(output_dir / WIDE)
        _write(tables[1], lambda: _as_csv(pandas.DataFrame(wide_rows(read_records(output_dir)))))
    return [table for table in tables if table.is_file()]


def _tidy(output_dir: Path) -> list[dict[str, Any]]:
    return [row for _, record in read_records(output_dir) for row in tidy_rows(record)]


def _as_csv(table: pandas.DataFrame) -> str:
    """The table as text; "" if it has no row."""
    text = str(table.to_csv(index=False)) if len(table) else ""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")  # names of any bytes


def _write(target: Path, make: Callable[[], str]) -> None:
    """Writes a table anew until no other process has added a record meanwhile.

    A table with other rows, of other weights or of the user's own, is kept in earlier/.
    """
    written = ""
    while True:
        # read before the records, so that no row of another process counts as unknown
        before = target.read_text(encoding="utf-8").splitlines() if target.is_file() else []
        table = make()
        if table == written:
            return
        if not set(before) <= set(table.splitlines()):
            with suppress(FileNotFoundError):  # another process has set it aside
                set_aside(target.parent, [target.name])
        with written_whole(target) as partial:
            partial.write_text(table, encoding="utf-8")
        written = table


def measure_again(output_dir: Path, wide: bool = False) -> list[Path]:
    """Measures the label files of a folder of results again, as after corrections by hand, and writes the tables.

    The record of a scan whose volumes changed is written anew; the earlier one is kept in earlier/. A volume without a
    file (structures, if only tissues were written) cannot be measured. It leaves the record if the labels changed.

    Returns:
        The tables.

    Raises:
        DataError: no results of `brainmri segment` in the folder, or a label file that cannot be read.
    """
    for path, record in results_in(output_dir):
        if changed := _changed(record, label_files(path, record)):
            with written_whole(path, keep_old=True) as partial:
                partial.write_text(json.dumps(changed, indent=4) + "\n", encoding="utf-8")
            print(f"{path.relative_to(output_dir)}: {CORRECTED}.", flush=True)
    return collect(output_dir, wide)


def results_in(output_dir: Path) -> list[tuple[Path, Record]]:
    """The records in a folder of results, with their files. Raises MissingDataError if it holds none."""
    records = read_records(output_dir) if output_dir.is_dir() else []
    if not records:
        raise MissingDataError(f"{output_dir} holds no results of brainmri segment. Name its --output_dir.")
    return records


def label_files(record_file: Path, record: Record) -> dict[str, Path]:
    """The label files of a record that exist, by custom.commands.segment_files.results_of's names."""
    scan = Path(record["scan"])
    paths = results_of(scan, Path(scan.name), record_file.parent)
    return {
        what: paths[what] for what in ("tissues", "structures", "areas", "intracranial mask") if paths[what].is_file()
    }


def _changed(record: Record, files: Mapping[str, Path]) -> Record | None:
    """The record with the volumes of the label files; None if they are as recorded."""
    old_volumes, old_structures = record["volumes_ml"], record.get("structures_ml", {})
    volumes, structures, warnings = dict(old_volumes), dict(old_structures), []
    if "structures" in files:
        codes, affine = read_labels(files["structures"])
        names = {0: "background"} | {code: name for code, (name, _) in freesurfer.names_and_colours().items()}
        structures = {name: volumes_ml(codes, affine, names, digits=3)[name] for name in old_structures}
        # the brain's volume is that of the network's probabilities: it changes as its labels do
        volumes["brain"] = round(old_volumes["brain"] + _in_brain(structures) - _in_brain(old_structures), 2)
    if "tissues" in files:
        labels, affine = read_labels(files["tissues"])
        volumes |= volumes_ml(labels, affine, {int(code): name for code, name in record["labels"].items()})
        warnings += warnings_of(labels, volumes)
        if "structures" in files and not _equal(tissues_of(structures), volumes, 0.05):
            warnings.append("its tissues and its structures do not agree: correct both label maps")
    elif "structures" in files:
        volumes |= tissues_of(structures)
    if "intracranial mask" in files:
        mask, affine = read_labels(files["intracranial mask"])
        volumes["intracranial"] = volumes_ml(mask, affine, {1: "intracranial"})["intracranial"]
    old_areas = record.get("areas_ml", {})
    areas = _areas_of(files["areas"]) if old_areas and "areas" in files else {}
    same_areas = _equal(areas or old_areas, old_areas, 0.0011)
    if _equal(volumes, old_volumes, 0.011) and _equal(structures, old_structures, 0.0011) and same_areas:
        return None
    if "structures" not in files:
        structures = {}
        volumes.pop("brain", None)
    return record | {
        "volumes_ml": volumes,
        "structures_ml": structures,
        "asymmetry_percent": asymmetry_of(structures),
        **({"areas_ml": areas, "lobes_ml": cortical_areas.lobes_ml(areas) if areas else {}} if old_areas else {}),
        "confidence": {},  # it was that of the network's own labels
        "warnings": list(dict.fromkeys([CORRECTED, *record["warnings"], *warnings])),
    }


def _in_brain(structures: Mapping[str, float]) -> float:
    around, _ = freesurfer.names_and_colours()[freesurfer.AROUND_BRAIN]
    return sum(ml for name, ml in structures.items() if name != around)


def _areas_of(path: Path) -> dict[str, float]:
    """Millilitres of the areas of the cortex, by FreeSurfer's names."""
    codes, affine = read_labels(path)
    names = {code: name for code, (name, _) in cortical_areas.names_and_colours().items()}
    volumes = volumes_ml(codes, affine, names, digits=3)
    return {name: volumes[name] for name in names.values()}


def tissues_of(structures: Mapping[str, float]) -> dict[str, float]:
    """Millilitres of CSF, GM, WM and all of them, as sums of structures (by FreeSurfer's names)."""
    volumes = dict.fromkeys(freesurfer.TISSUE_NAMES, 0.0)
    for code, (name, _) in freesurfer.names_and_colours().items():
        volumes[freesurfer.TISSUES[freesurfer.CODES[code]]] += structures.get(name, 0.0)
    rounded = {name: round(ml, 2) for name, ml in volumes.items()}
    return rounded | {"all": round(sum(rounded.values()), 2)}


def read_labels(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Labels (x, y, z) and affine (4, 4). Raises DataError if the file holds no label map."""
    image = open_volume(path)
    voxels = np.asarray(image.dataobj)
    voxels = voxels[..., 0] if voxels.ndim == 4 and voxels.shape[3] == 1 else voxels
    if voxels.ndim != 3 or not np.array_equal(voxels, voxels.round()):
        raise DataError(f"{path} is no label map: it needs three axes and whole numbers. Save the labels again.")
    return voxels, np.asarray(image.affine, dtype=np.float64)


def _equal(one: Mapping[str, float], other: Mapping[str, float], ml: float) -> bool:
    """Whether all volumes of one table are in another, within what rounding changes."""
    return all(name in other and math.isclose(one[name], other[name], rel_tol=1e-6, abs_tol=ml) for name in one)
