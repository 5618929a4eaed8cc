"""`brainmri segment`: scans in, labels, volumes and pictures out, one scan after another."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import custom
from custom.checkpoints.record import sha256_of
from custom.commands.segment_files import results_of, wanted_files, write_files
from custom.errors import ConfigError, DataError, find_cause
from custom.files import set_aside, written_whole
from custom.reading.scans import BIDS, find_scans, stem
from custom.running import Predictor
from custom.running.confidence import read_fits
from custom.running.segmentation import Segmentation
from custom.running.workflow import check_writable

JOINED = (
    "T1w",
    "MPRAGE",
    "MP2RAGE",
    "T2w",
    "FLAIR",
    "PDw",
    "T1",
    "T2",
    "PD",
)  # the first one's grid and contrast count


@dataclass(frozen=True)
class Options:
    """What `brainmri segment` writes, and from what.

    Args:
        outputs: of custom.commands.segment_files.OUTPUTS.
        figure: draw one for each scan.
        from_mask: a brain mask, or a folder with BIDS masks (<entities>_desc-brain_mask.nii.gz); None for none.
        joint: segment the scans of one subject together.
    """

    outputs: list[str] = field(default_factory=lambda: ["tissues"])
    figure: bool = True
    from_mask: Path | None = None
    joint: bool = False


@dataclass(frozen=True)
class Job:
    """One segmentation to make: scans of one subject, the first one's place in the results, and a mask."""

    scans: tuple[Path, ...]
    inside: Path
    mask: Path | None


def share_of(scans: Sequence[Any]) -> Sequence[Any]:
    """This process's part of a list: by torchrun's rank, or by the task of a SLURM array; else all.

    Raises:
        ConfigError: a SLURM array with gaps, whose tasks can't tell their shares.
    """
    named = os.environ.get
    if "WORLD_SIZE" in os.environ:
        return scans[int(named("RANK", 0)) :: int(named("WORLD_SIZE", 1))]
    if "SLURM_ARRAY_TASK_COUNT" in os.environ:
        number, count, least, most, step = (
            int(named(f"SLURM_ARRAY_TASK_{name}", default))
            for name, default in (("ID", 0), ("COUNT", 1), ("MIN", 0), ("MAX", 0), ("STEP", 1))
        )
        if (most - least) // step + 1 != count:
            raise ConfigError(
                f"The SLURM array has {count} tasks with gaps between {least} and {most}: use 0-{count - 1}."
            )
        return scans[(number - least) // step :: count]
    return scans


def find_jobs(places: Sequence[str], output_dir: Path, options: Options) -> list[Job]:
    """The segmentations to make of some places.

    Raises:
        MissingDataError: a place without a scan, or a mask that doesn't exist.
        DataError: two results would have one name.
        ConfigError: one mask for several scans.
    """
    found = find_scans(*places, without=output_dir)
    groups = _joined(found) if options.joint else [[one] for one in found]
    jobs, names = [], dict[Path, Path]()
    for group in groups:
        scan, inside = group[0]
        other = names.setdefault(results_of(scan, inside, output_dir)["record"], scan)
        if other != scan:
            raise DataError(f"{other} and {scan} would give results of one name: rename one, or run them one by one.")
        mask = None if options.from_mask is None else _mask_of(scan, options.from_mask, len(groups))
        jobs.append(Job(tuple(path for path, _ in group), inside, mask))
    return jobs


def _joined(found: Sequence[tuple[Path, Path]]) -> list[list[tuple[Path, Path]]]:
    """Scans of one subject together: those of equal BIDS entities; without BIDS names, those of one folder."""
    groups: dict[Any, list[tuple[Path, Path]]] = {}
    for scan, inside in found:
        match = BIDS.fullmatch(stem(scan))
        groups.setdefault((scan.parent, match["entities"] if match else None), []).append((scan, inside))

    def rank(pair: tuple[Path, Path]) -> int:
        name = stem(pair[0])
        return next((n for n, contrast in enumerate(JOINED) if name.lower().endswith(contrast.lower())), len(JOINED))

    return [sorted(group, key=rank) for group in groups.values()]


def _mask_of(scan: Path, place: Path, jobs: int) -> Path:
    if place.is_dir():
        match = BIDS.fullmatch(stem(scan))
        entities = match["entities"].partition("_desc-")[0] if match else stem(scan)
        suffix = match["suffix"] if match else ""
        masks = sorted(place.rglob(f"{entities}_desc-{suffix}brain_mask.nii*"))
        masks = masks or sorted(place.rglob(f"{entities}_desc-brain_mask.nii*"))
        if len(masks) != 1:
            raise DataError(
                f"{place} holds {len(masks)} files {entities}_desc-brain_mask.nii.gz, but {scan} needs exactly one. "
                "Give the mask's file to --from_mask."
            )
        return masks[0]
    if not place.is_file():
        raise DataError(f"The mask {place} does not exist. Correct --from_mask.")
    if jobs > 1:
        raise ConfigError(f"{place} is one mask for {jobs} scans: name a folder of BIDS masks, or one scan.")
    return place


def segment(predictor: Predictor, places: Sequence[str], output_dir: Path, options: Options | None = None) -> int:
    """Segments every scan in some places, and goes on after one that can't be.

    A scan whose record (.json, written last) names the same file, weights and settings is skipped. Earlier results of
    others move to earlier/. volumes.csv has a row for every record in output_dir.

    Returns:
        How many scans failed.

    Raises:
        DataError: there is no scan, or two would have results of one name.
        ConfigError: output_dir can't be written to.
    """
    options = options or Options()
    check_writable(output_dir)
    jobs = share_of(find_jobs(places, output_dir, options))
    fits = read_fits(predictor.path, predictor.sha256)
    failures = []
    for index, job in enumerate(jobs, start=1):
        results, head = results_of(job.scans[0], job.inside, output_dir), f"[{index}/{len(jobs)}] {job.inside}"
        try:
            made_from = _made_from(predictor, job)
            if _is_done(results, made_from, options):
                print(f"{head}: done already ({results['record']})", flush=True)
                continue
            start = time.monotonic()
            record = _segment_one(predictor, job, made_from, results, options, fits)
            ml = ", ".join(f"{name} {value:.0f} ml" for name, value in record["volumes_ml"].items())
            trusted = f", expected Dice {record['confidence']['scan']:.2f}" if record["confidence"] else ""
            print(f"{head}: {ml}{trusted} ({time.monotonic() - start:.1f} s)", flush=True)
            for warning in record["warnings"]:
                print(f"    warning: {warning}.", flush=True)
        except Exception as error:  # one bad scan doesn't stop the others
            unforeseen = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            failures.append(f"{job.inside}: {find_cause(error) or unforeseen}")
            print(f"{head}: failed", flush=True)
    collect(output_dir)
    if failures:
        print("\n".join([f"{len(failures)} of {len(jobs)} scans failed:", *failures]), file=sys.stderr)
    return len(failures)


def _made_from(predictor: Predictor, job: Job) -> dict[str, Any]:
    """What must be equal for a result to be this scan's by these weights and settings."""
    files = [file for scan in job.scans for file in (sorted(scan.iterdir()) if scan.is_dir() else [scan])]
    more = {} if job.mask is None else {"mask": str(job.mask), "mask_sha256": sha256_of(job.mask)}
    return {
        "scan": str(job.scans[0]),
        **({"joint_scans": [str(scan) for scan in job.scans]} if len(job.scans) > 1 else {}),
        "scan_bytes": sum(path.stat().st_size for path in files if path.is_file()),
        "scan_changed": max(path.stat().st_mtime for path in files),
        "weights_sha256": predictor.sha256,
        "settings": predictor.settings,
        **more,
    }


def _is_done(results: Mapping[str, Path], made_from: Mapping[str, Any], options: Options) -> bool:
    wanted = wanted_files(options.outputs, options.figure)
    return all(results[name].is_file() for name in wanted) and _is_made_from(results["record"], made_from)


def _is_made_from(record_file: Path, made_from: Mapping[str, Any]) -> bool:
    """Whether a record is of these scans, weights and settings, and of no mask where there is none now."""
    try:
        record = json.loads(record_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return record.get("mask") == made_from.get("mask") and all(
        record.get(name) == value for name, value in made_from.items()
    )


def _segment_one(
    predictor: Predictor,
    job: Job,
    made_from: dict[str, Any],
    results: dict[str, Path],
    options: Options,
    fits: Mapping[str, Any],
) -> dict[str, Any]:
    item = predictor(job.scans, job.mask, probabilities="probabilities" in options.outputs)
    wanted = wanted_files(options.outputs, options.figure)
    try:
        segmentation = Segmentation(item, predictor.labels, fits)
        if segmentation.codes is None and {"structures", "mask", "brain"} & set(options.outputs):
            raise ConfigError(
                f"Labels {list(predictor.labels.values())} are neither tissues nor structures. "
                "Use --outputs tissues or probabilities."
            )
    except DataError as error:
        raise DataError(f"{job.scans[0]}: {error}") from error
    start = time.perf_counter()
    kept = set(results) - {*wanted, "record"} if _is_made_from(results["record"], made_from) else set()
    set_aside(results["record"].parent, [path.name for name, path in results.items() if name not in kept])
    write_files(segmentation, results, wanted, job.scans[0].name)
    seconds = predictor.seconds | {"write": time.perf_counter() - start}
    record = made_from | {
        "volumes_ml": segmentation.volumes,
        "structures_ml": segmentation.structures,
        "asymmetry_percent": segmentation.asymmetry,
        "confidence": segmentation.confidence,
        "confidence_is_calibrated": bool(fits),
        "contrast": segmentation.contrast,
        "warnings": segmentation.warnings,
        "labels": predictor.labels,
        "weights": str(predictor.path),
        "version": custom.__version__,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "device": str(predictor.device),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "command": " ".join(["brainmri", *sys.argv[1:]]),
        "note": custom.RESEARCH_USE_ONLY,
    }
    with written_whole(results["record"]) as partial:
        partial.write_text(json.dumps(record, indent=4) + "\n", encoding="utf-8")
    return record


def collect(output_dir: Path) -> None:
    """volumes.csv: a row for every record. It is made anew from the records, so several processes may each do it."""
    rows = []
    for path in sorted(output_dir.rglob("*seg.json")):
        inside = path.relative_to(output_dir)
        if "earlier" in inside.parts or path.name.startswith("."):
            continue
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            rows.append(_row(record))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # another program's file, or one that another process is moving
    if not rows:
        return
    import pandas

    table, target = pandas.DataFrame(rows).to_csv(index=False), output_dir / "volumes.csv"
    before = target.read_text(encoding="utf-8").splitlines() if target.is_file() else []
    if not set(before) <= set(table.splitlines()):
        set_aside(output_dir, [target.name])  # it has rows of other weights, or of the user's own
    with written_whole(target, own=True) as partial:
        partial.write_text(table, encoding="utf-8")


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    """One scan's row: tissues, structures by side, asymmetry, confidence."""
    volumes = record["volumes_ml"] | record.get("structures_ml", {})
    return {
        "scan": record["scan"],
        **{f"{name}_ml": value for name, value in volumes.items()},
        **{f"{name}_asymmetry_percent": value for name, value in record.get("asymmetry_percent", {}).items()},
        **{f"{name}_confidence": value for name, value in record.get("confidence", {}).items()},
        "warnings": "; ".join(record["warnings"]),
        **{name: record[name] for name in ("weights_sha256", "version")},
    }


def check_places(places: Sequence[Any]) -> list[str]:
    """The places as text. Raises ConfigError where there are none."""
    if not places:
        raise ConfigError("name a scan, a folder of scans, or a .txt list: brainmri segment SCAN.nii.gz")
    return [str(place) for place in places]
