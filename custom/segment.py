"""`brainmri segment`: scans in, labels, volumes and pictures out, one scan after another."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch

import custom
from custom.errors import ConfigError, DataError, find_cause
from custom.files import load_checkpoint, load_weights, set_aside, written_whole
from custom.scans import BIDS, find_scans, stem
from custom.workflow import StrictWorkflow, check_device, check_writable

# ml in adults and children from two years on; outside them a result is likelier wrong than rare
PLAUSIBLE = {"CSF": (30, 700), "GM": (350, 1000), "WM": (250, 800)}


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


class Segmenter:
    """A bundle's inference.json, its weights loaded once, for one scan at a time.

    Args:
        files: the config files.
        settings: overrides of their knobs (device, ckpt_path, ...).

    Raises:
        ConfigError: an unknown knob or device.
        CheckpointError: no weights, or another network's.
    """

    def __init__(self, files: list[str], **settings: Any) -> None:
        workflow = StrictWorkflow(files, logging_file=False, workflow_type="infer", **settings)
        workflow.parser.parse()
        parsed = workflow.parser.get_parsed_content
        self.device = check_device(parsed("device"))
        self.path = Path(parsed("ckpt_path"))
        load_weights(parsed("network_def"), load_checkpoint(self.path), self.path)
        self.network = parsed("network").eval()
        self.labels: dict[int, str] = parsed("labels")
        self.preprocessing, self.inferer, self.labelling = map(parsed, ("preprocessing", "inferer", "labelling"))
        self.sha256 = hashlib.sha256(self.path.read_bytes()).hexdigest()
        self.amp = bool(parsed("amp"))
        elsewhere = ("device", "ckpt_path", "output_dir", "num_workers")
        self.settings = {name: str(value) for name, value in settings.items() if name not in elsewhere}
        self.seconds: dict[str, float] = {}

    def __call__(self, path: str | Path) -> dict[str, Any]:
        """The scan on the network's grid, "pred": labels (x, y, z) and "probabilities" (C, x, y, z) on its own."""
        with torch.inference_mode():
            item = self._timed("load and resample", self.preprocessing, {"image": str(path)})
            image = item["image"][None].to(self.device)
            with torch.autocast("cuda", enabled=self.amp and self.device.type == "cuda"):
                item["pred"] = self._timed("network", self.inferer, image, self.network)[0].float()
            item = self._timed("labels on the scan's grid", self.labelling, item)
        item["pred"] = np.asarray(item["pred"].cpu(), dtype=np.uint8)[0]
        return item

    def _timed(self, name: str, step: Any, *args: Any) -> Any:
        start = time.perf_counter()
        result = step(*args)
        self.seconds[name] = time.perf_counter() - start
        return result


def volumes_ml(labels: np.ndarray, affine: np.ndarray, names: dict[int, str]) -> dict[str, float]:
    """Millilitres of each label but 0, and "all", their sum.

    Args:
        labels: (x, y, z).
        affine: (4, 4), voxels to mm.
        names: {0: "background", 1: ...}
    """
    ml = abs(np.linalg.det(affine[:3, :3])) / 1000
    found = {name: round(float((labels == code).sum() * ml), 2) for code, name in names.items() if code}
    return found | {"all": round(sum(found.values()), 2)}


def warnings_of(labels: np.ndarray, volumes: dict[str, float]) -> list[str]:
    """What makes a segmentation hard to believe, a sentence each."""
    said = []
    for name, (low, high) in PLAUSIBLE.items():
        if name in volumes and not low <= volumes[name] <= high:
            said.append(f"{name} of {volumes[name]:.0f} ml is implausible ({low} to {high} expected)")
    edges = [np.take(labels, side, axis) > 0 for axis in range(3) for side in (0, -1)]
    if sum(edge.sum() for edge in edges) > 0.001 * (labels > 0).sum():
        said.append("tissue reaches the edge of the scan: the brain may be cut off")
    return said


def results_of(scan: Path, inside: Path, output_dir: Path) -> dict[str, Path]:
    """The names of one scan's results: BIDS derivatives' for a BIDS name, beside the same folders as the scan's."""
    name = stem(scan)
    folder = output_dir / inside.parent
    if match := BIDS.fullmatch(name):
        entities, _, described = match["entities"].partition("_desc-")  # desc comes last in BIDS
        start = f"{entities}_desc-{described}{match['suffix']}"
        return {
            "labels": folder / f"{start}_dseg.nii.gz",
            "probabilities": folder / f"{start}_probseg.nii.gz",
            "figure": folder / f"{start}_dseg.png",
            "record": folder / f"{start}_dseg.json",
        }
    return {
        "labels": folder / f"{name}_seg.nii.gz",
        "probabilities": folder / f"{name}_probabilities.nii.gz",
        "figure": folder / f"{name}_seg.png",
        "record": folder / f"{name}_seg.json",
    }


def segment(
    segmenter: Segmenter, places: Sequence[str], output_dir: Path, probabilities: bool = False, figure: bool = True
) -> int:
    """Segments every scan in some places, and goes on after one that can't be.

    A scan whose record (.json, written last) names the same file, weights and settings is skipped. Earlier results of
    others move to earlier/. volumes.csv has a row for every record in output_dir.

    Returns:
        How many scans failed.

    Raises:
        DataError: there is no scan, or two would have results of one name.
        ConfigError: output_dir can't be written to.
    """
    check_writable(output_dir)
    found = find_scans(*places, without=output_dir)
    names: dict[Path, Path] = {}
    for scan, inside in found:
        other = names.setdefault(results_of(scan, inside, output_dir)["record"], scan)
        if other != scan:
            raise DataError(f"{other} and {scan} would give results of one name: rename one, or run them one by one.")
    scans = share_of(found)
    failures = []
    for index, (scan, inside) in enumerate(scans, start=1):
        results, head = results_of(scan, inside, output_dir), f"[{index}/{len(scans)}] {inside}"
        try:
            made_from = _made_from(segmenter, scan)
            if _is_done(results, made_from, probabilities, figure):
                print(f"{head}: done already ({results['labels']})", flush=True)
                continue
            start = time.monotonic()
            record = _segment_one(segmenter, scan, made_from, results, probabilities, figure)
            ml = ", ".join(f"{name} {value:.0f} ml" for name, value in record["volumes_ml"].items())
            print(f"{head}: {ml} ({time.monotonic() - start:.1f} s)", flush=True)
            for warning in record["warnings"]:
                print(f"    warning: {warning}.", flush=True)
        except Exception as error:  # one bad scan doesn't stop the others
            unforeseen = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            failures.append(f"{inside}: {find_cause(error) or unforeseen}")
            print(f"{head}: failed", flush=True)
    _collect(output_dir)
    if failures:
        print("\n".join([f"{len(failures)} of {len(scans)} scans failed:", *failures]), file=sys.stderr)
    return len(failures)


def _made_from(segmenter: Segmenter, scan: Path) -> dict[str, Any]:
    """What must be equal for a result to be this scan's by these weights and settings."""
    files = sorted(scan.iterdir()) if scan.is_dir() else [scan]
    return {
        "scan": str(scan),
        "scan_bytes": sum(path.stat().st_size for path in files if path.is_file()),
        "scan_changed": max(path.stat().st_mtime for path in files),
        "weights_sha256": segmenter.sha256,
        "settings": segmenter.settings,
    }


def _is_done(results: dict[str, Path], made_from: dict[str, Any], probabilities: bool, figure: bool) -> bool:
    wanted = ["labels", "record"] + ["probabilities"] * probabilities + ["figure"] * figure
    if not all(results[name].is_file() for name in wanted):
        return False
    try:
        record = json.loads(results["record"].read_text(encoding="utf-8"))
    except ValueError:
        return False
    return all(record.get(name) == value for name, value in made_from.items())


def _segment_one(
    segmenter: Segmenter,
    scan: Path,
    made_from: dict[str, Any],
    results: dict[str, Path],
    probabilities: bool,
    figure: bool,
) -> dict[str, Any]:
    item = segmenter(scan)
    labels, affine = item["pred"], np.asarray(item["probabilities"].affine, dtype=np.float64)
    if not labels.any() and set(PLAUSIBLE) <= set(segmenter.labels.values()):
        raise DataError(f"{scan}: no brain was found in it; look at the scan.")
    volumes = volumes_ml(labels, affine, segmenter.labels)
    record = made_from | {
        "volumes_ml": volumes,
        "warnings": [*item["image"].meta["odd"].splitlines(), *warnings_of(labels, volumes)],
        "labels": segmenter.labels,
        "weights": str(segmenter.path),
        "version": custom.__version__,
        "command": " ".join(["brainmri", *sys.argv[1:]]),
        "note": custom.RESEARCH_USE_ONLY,
    }
    set_aside(results["labels"].parent, [path.name for path in results.values()])
    _save_nifti(labels, affine, results["labels"])
    if probabilities:
        _save_nifti(np.moveaxis(np.asarray(item["probabilities"].cpu())[1:], 0, -1), affine, results["probabilities"])
    if figure:
        _save_figure(item["image"], labels, affine, segmenter.labels, results["figure"], scan.name)
    with written_whole(results["record"]) as partial:
        partial.write_text(json.dumps(record, indent=4) + "\n", encoding="utf-8")
    return record


def _save_nifti(voxels: np.ndarray, affine: np.ndarray, path: Path) -> None:
    image = nibabel.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = custom.RESEARCH_USE_ONLY.encode()
    with written_whole(path) as partial:
        nibabel.save(image, partial)


def _save_figure(
    image: Any, labels: np.ndarray, affine: np.ndarray, names: dict[int, str], path: Path, title: str
) -> None:
    """The scan as the network saw it, and the labels brought to that grid."""
    from monai.data import MetaTensor
    from monai.transforms import ResampleToMatch

    from custom.reports import segmentation_figure
    from custom.reports.of_run import save_figure

    on_scan = MetaTensor(torch.as_tensor(labels)[None].float(), affine=torch.as_tensor(affine))
    seen = ResampleToMatch(mode="nearest", padding_mode="zeros")(on_scan, image)[0].numpy().astype(np.uint8)
    save_figure(segmentation_figure(np.asarray(image[0].cpu()), None, seen, names, title=title), path)


def _collect(output_dir: Path) -> None:
    """volumes.csv: a row for every record. It is made anew from the records, so several processes may each do it."""
    rows = []
    for path in sorted(output_dir.rglob("*seg.json")):
        inside = path.relative_to(output_dir)
        if "earlier" in inside.parts or path.name.startswith("."):
            continue
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            ml = {f"{name}_ml": value for name, value in record["volumes_ml"].items()}
            made_by = {name: record[name] for name in ("weights_sha256", "version")}
            rows.append({"scan": record["scan"], **ml, "warnings": "; ".join(record["warnings"]), **made_by})
        except (OSError, ValueError, KeyError, TypeError):
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


def check_places(places: Sequence[Any]) -> list[str]:
    """The places as text. Raises ConfigError where there are none."""
    if not places:
        raise ConfigError("name a scan, a folder of scans, or a .txt list: brainmri segment SCAN.nii.gz")
    return [str(place) for place in places]
