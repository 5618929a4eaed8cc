"""`brainmri segment`: scans in, labels, volumes and pictures out, one scan after another."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import custom
from custom.checkpoints.record import device_name, sha256_of, versions
from custom.commands.bids import describe
from custom.commands.segment_files import results_of, wanted_files, write_files
from custom.commands.segment_jobs import Job, Options, find_jobs, in_turn, share_of
from custom.commands.volumes import collect
from custom.errors import ConfigError, DataError, find_cause
from custom.files import NO_JSON, keep_earlier, written_whole
from custom.reading.formats import all_files
from custom.running import Predictor
from custom.running.confidence import read_fits
from custom.running.segmentation import Segmentation
from custom.running.workflow import check_writable


def segment(predictor: Predictor, places: Sequence[str], output_dir: Path, options: Options | None = None) -> int:
    """Segments every scan in some places, and goes on after one that can't be.

    A scan is skipped if its record (.json, written last) has the same checksums of scan, mask and weights, and the same
    settings. Earlier results of others are kept in earlier/. volumes.csv has rows for every record in output_dir.
    Several processes may work on one output_dir at once: they share the scans.

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
    for index, job in in_turn(jobs, output_dir):
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
    try:
        if collect(output_dir, options.wide):
            describe(output_dir, [job.scans[0] for job in jobs])
    finally:  # a full disk must not hide the list
        if failures:
            print("\n".join([f"{len(failures)} of {len(jobs)} scans failed:", *failures]), file=sys.stderr)
    return len(failures)


def _made_from(predictor: Predictor, job: Job) -> dict[str, Any]:
    """What must be equal for a result to be this scan's by these weights and settings."""
    joint = [sha256_of_scan(scan) for scan in job.scans[1:]]
    return {
        "scan_sha256": sha256_of_scan(job.scans[0]),
        **({"joint_scans_sha256": joint} if joint else {}),
        **({} if job.mask is None else {"mask_sha256": sha256_of(job.mask)}),
        "weights_sha256": predictor.sha256,
        "settings": predictor.settings,
    }


def sha256_of_scan(scan: Path) -> str:
    """The SHA-256 of a scan's file; of several files (DICOM, pairs), that of their SHA-256, a line each."""
    files = all_files(scan)
    if len(files) == 1:
        return sha256_of(files[0])
    return hashlib.sha256("\n".join(sha256_of(path) for path in files).encode()).hexdigest()


def _is_done(results: Mapping[str, Path], made_from: Mapping[str, Any], options: Options) -> bool:
    wanted = wanted_files(options.outputs, options.figure)
    return all(results[name].is_file() for name in wanted) and _is_made_from(results["record"], made_from)


def _is_made_from(record_file: Path, made_from: Mapping[str, Any]) -> bool:
    """Whether a record is of these scans, weights, settings and mask."""
    try:
        record = json.loads(record_file.read_text(encoding="utf-8"))
    except (OSError, *NO_JSON):
        return False
    optional = ("joint_scans_sha256", "mask_sha256")
    return all(record.get(name) == made_from.get(name) for name in {*made_from, *optional})


def _segment_one(
    predictor: Predictor,
    job: Job,
    made_from: dict[str, Any],
    results: dict[str, Path],
    options: Options,
    fits: Mapping[str, Any],
) -> dict[str, Any]:
    with_areas = results["areas"].is_file() and _is_made_from(results["record"], made_from)
    wants_areas = with_areas or "areas" in options.outputs  # the record keeps those of an earlier run
    item = predictor(job.scans, job.mask, "probabilities" in options.outputs, wants_areas)
    if "scan" not in item:
        raise ConfigError("brainmri segment works with the brain tissue bundle only. Use brainmri infer for others.")
    wanted = wanted_files(options.outputs, options.figure)
    try:
        segmentation = Segmentation(item, predictor.labels, fits)
        if segmentation.codes is None and {"structures", "areas", "mask", "brain"} & set(options.outputs):
            raise ConfigError(
                f"Labels {list(predictor.labels.values())} are neither tissues nor structures. "
                "Use --outputs tissues or probabilities."
            )
    except DataError as error:
        raise DataError(f"{job.scans[0]}: {error}") from error
    start = time.perf_counter()
    outdated: list[Path] = []
    if _is_made_from(results["record"], made_from):  # its files stay: a user may have edited them
        wanted = [name for name in wanted if not results[name].is_file()]
    else:
        keep_earlier(results["record"].parent, [path.name for path in results.values()])
        results["record"].unlink(missing_ok=True)  # first: it does not describe the files from here on
        outdated = [path for name, path in results.items() if name.removesuffix(" sidecar") not in wanted]
    write_files(segmentation, results, wanted, job.scans[0].name)
    for path in outdated:
        path.unlink(missing_ok=True)
    seconds = predictor.seconds | {"write": time.perf_counter() - start}
    mask = {} if job.mask is None else {"mask": str(job.mask)}
    joint = {"joint_scans": [str(scan) for scan in job.scans]} if len(job.scans) > 1 else {}
    record = {"scan": str(job.scans[0]), **joint, **mask, **made_from} | {
        "volumes_ml": segmentation.volumes,
        "structures_ml": segmentation.structures,
        **({"areas_ml": segmentation.areas, "lobes_ml": segmentation.lobes} if wants_areas else {}),
        "asymmetry_percent": segmentation.asymmetry,
        "confidence": segmentation.confidence,
        "confidence_is_calibrated": bool(fits),
        "contrast": segmentation.contrast,
        "warnings": segmentation.warnings,
        "labels": predictor.labels,
        "weights": str(predictor.path),
        "version": custom.__version__,
        "versions": versions(),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "device": device_name(predictor.device),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "command": " ".join(["brainmri", *sys.argv[1:]]),
        "note": custom.RESEARCH_USE_ONLY,
        "Description": "CSF, GM and WM",  # BIDS's names: the record is the sidecar of the tissues
        "Manual": False,
    }
    with written_whole(results["record"], keep_old=True) as partial:
        partial.write_text(json.dumps(record, indent=4) + "\n", encoding="utf-8")
    return record
