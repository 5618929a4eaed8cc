"""The work of `brainmri segment`: which scans are segmented together, where results go, and what is left out."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from custom import locks
from custom.commands.segment_files import results_of
from custom.errors import ConfigError, DataError
from custom.reading.scans import BIDS, find_scans, stem

Place = tuple[Path, Path]  # a scan, and its path inside the place that the user named
# Of the scans of one subject, the first of these gives the grid and the contrast.
JOINED = ("T1w", "MPRAGE", "MP2RAGE", "T2w", "FLAIR", "PDw", "T1", "T2", "PD")


@dataclass(frozen=True)
class Options:
    """What `brainmri segment` writes, and from what.

    Args:
        outputs: of custom.commands.segment_files.OUTPUTS.
        figure: draw a figure of each scan.
        from_mask: a brain mask, or a folder with BIDS masks (<entities>_desc-brain_mask.nii.gz); None for none.
        joint: segment the scans of one subject together.
        wide: write volumes_wide.csv, with SynthSeg's column names, too.
        report: write report.html, a page of all scans, too.
    """

    outputs: list[str] = field(default_factory=lambda: ["tissues"])
    figure: bool = True
    from_mask: Path | None = None
    joint: bool = False
    wide: bool = False
    report: bool = False


@dataclass(frozen=True)
class Job:
    """One segmentation to make: scans of one subject, the first one's place in the results, and a mask."""

    scans: tuple[Path, ...]
    inside: Path
    mask: Path | None


def check_places(places: Sequence[Any]) -> list[str]:
    """The places as text. Raises ConfigError if there are none."""
    if not places:
        raise ConfigError("Name a scan, a folder of scans, or a .txt list: brainmri segment SCAN.nii.gz")
    return [str(place) for place in places]


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


def in_turn(jobs: Sequence[Job], output_dir: Path) -> Iterator[tuple[int, Job]]:
    """The jobs with their numbers from 1. Those that other processes work on come when these have ended.

    So several processes started on one folder share the work. A job is this process's until the next one is asked for.
    """
    waiting = list(enumerate(jobs, start=1))
    while waiting:
        busy = []
        for number, job in waiting:
            record = results_of(job.scans[0], job.inside, Path())["record"]
            lock = output_dir / f".lock-{hashlib.sha256(os.fsencode(record)).hexdigest()[:16]}"
            if not _take(lock):
                busy.append((number, job))
                continue
            try:
                yield number, job
            finally:
                locks.release(lock)
        if len(busy) == len(waiting):
            time.sleep(0.5)
        waiting = busy


def _take(lock: Path) -> bool:
    try:
        return locks.take(lock)
    except OSError:
        return True  # a full disk: writing the results will say so


def find_jobs(places: Sequence[str], output_dir: Path, options: Options) -> list[Job]:
    """The segmentations to make of some places.

    Scans whose results would have one name get the names of their folders: those of a/T1.nii.gz and b/T1.nii.gz are
    written to a and b in output_dir.

    Raises:
        MissingDataError: a place without a scan, or a mask that doesn't exist.
        DataError: two scans of one folder would give results with the same name.
        ConfigError: one mask for several scans.
    """
    scans = find_scans(*places, without=output_dir)
    groups = _joined(scans) if options.joint else [[scan] for scan in scans]
    heads = _told_apart([group[0] for group in groups], output_dir)
    jobs = []
    for group, (scan, inside) in zip(groups, heads, strict=True):
        mask = None if options.from_mask is None else _mask_of(scan, options.from_mask, len(groups))
        jobs.append(Job(tuple(path for path, _ in group), inside, mask))
    return jobs


def _told_apart(heads: Sequence[Place], output_dir: Path) -> list[Place]:
    """The scans with places that give each result a name of its own.

    Raises:
        DataError: two scans of one folder would give results with the same name.
    """
    records = [results_of(scan, inside, output_dir)["record"] for scan, inside in heads]
    times = Counter(records)
    alike = {record: [scan for (scan, _), own in zip(heads, records, strict=True) if own == record] for record in times}
    apart = [
        (
            scan,
            inside if times[record] == 1 else scan.relative_to(os.path.commonpath([p.parent for p in alike[record]])),
        )
        for (scan, inside), record in zip(heads, records, strict=True)
    ]
    names: dict[Path, Path] = {}
    for scan, inside in apart:
        other = names.setdefault(results_of(scan, inside, output_dir)["record"], scan)
        if other != scan:
            raise DataError(
                f"{other} and {scan} would give results with the same name. Rename one, or run them one by one."
            )
    return apart


def _joined(found: Sequence[Place]) -> list[list[Place]]:
    """Scans of one subject together: those of equal BIDS entities; without BIDS names, those of one folder."""
    groups: dict[Any, list[Place]] = {}
    for scan, inside in found:
        match = BIDS.fullmatch(stem(scan))
        groups.setdefault((scan.parent, match["entities"] if match else None), []).append((scan, inside))

    def rank(pair: Place) -> int:
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
        raise ConfigError(f"{place} is one mask for {jobs} scans. Give a folder of BIDS masks, or one scan.")
    return place
