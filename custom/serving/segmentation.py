"""MONAI Label's infer task: one bundle segments one study."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.utils.others.generic import device_list, name_to_device

import custom
from custom.checkpoints.record import sha256_of
from custom.errors import DataError
from custom.files import temporary_folder
from custom.reading.volumes import open_volume
from custom.serving import progress
from custom.serving.bundles import ServedBundle
from custom.serving.grids import convert, on_one_grid
from custom.serving.terms import TERMS

TEMPORARY = Path(tempfile.gettempdir())


class SegmentationTask(InferTask):
    """Segments the files of a study with a bundle.

    Request: "files" (a path for each channel), "reference" (the file on whose grid the result lies), and what a viewer
    may set: "device", "weights", "result_extension", "result_compress", "uncertainty" (true to measure it), and, for
    studies on a PACS, "store".

    Returns:
        The path of the label map, a temporary file that the caller removes, and {"label_names": the labels that are
        present, {"CSF": 1, ...}, "uncertainty" (bits; None if it was not asked for), "confidence" (the Dice to be
        expected, by name; {} of bundles that measure none), "warnings" (a sentence each), "weights", "weights_sha256",
        "simulated", "resampled", "note", "latencies" (s)}.
    """

    def __init__(self, bundle: ServedBundle, on_pacs: bool = False) -> None:
        super().__init__(InferType.SEGMENTATION, dict(bundle.labels), 3, bundle.description)
        self.bundle, self.on_pacs = bundle, on_pacs
        self._settled: set[tuple[str, str]] = set()  # weights and devices that were used before

    def info(self) -> dict[str, Any]:
        """What a viewer may know about the model; "label_colors" {"Left-Thalamus": [0, 118, 14], ...} where known."""
        colours = {name: list(TERMS[name].colour or ()) for name in self.bundle.labels if name in TERMS}
        return dict(super().info()) | {"label_colors": {name: colour for name, colour in colours.items() if colour}}

    def config(self) -> dict[str, Any]:
        """What a viewer offers as options; the first value of each is the default."""
        names = [weights.name for weights in self.bundle.find_weights()]
        default = self.bundle.weights
        options = {"device": device_list(), "weights": [default, *(name for name in names if name != default)]}
        return options | ({"store": False} if self.on_pacs else {})

    def is_valid(self) -> bool:
        """True: a bundle without weights is not served at all."""
        return True

    def get_path(self, validate: bool = True) -> str:  # noqa: ARG002 - MONAI Label's signature
        """The file of the weights that are served."""
        return str(self.bundle.choose_weights().path)

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Segments; see the class for the request and the result."""
        start = time.monotonic()
        weights = self.bundle.choose_weights(first_of(request.get("weights")))
        image = str(request.get("image") or Path(request["reference"]).name)
        with progress.segmentation(self.bundle.name, image) as one, temporary_folder(TEMPORARY, "label") as folder:
            files, resampled = on_one_grid(request["files"], request["reference"], folder)
            ready = time.monotonic()
            device = name_to_device(first_of(request.get("device")))
            found = self.bundle.segment(files, folder, weights, device, one, bool(request.get("uncertainty")))
            used = sha256_of(weights.path), device
            return_memory(settle=used not in self._settled)
            self._settled.add(used)
            present = np.unique(np.asarray(open_volume(found.labels).dataobj))
            # viewers name segments by their position among the labels that are present
            names = {name: code for name, code in self.bundle.labels.items() if code in present}
            ending = request.get("result_extension") or ".nii.gz"
            result = convert(found.labels, ending, bool(request.get("result_compress")))
            kept = temporary_file(ending)
            shutil.move(result, kept)
        seconds = {"load": round(ready - start, 2), "total": round(time.monotonic() - start, 2)}
        return str(kept), {
            "label_names": names,
            "uncertainty": found.uncertainty,
            "confidence": dict(found.confidence),
            "warnings": list(found.warnings),
            "weights": weights.name,
            "weights_sha256": sha256_of(weights.path),
            "simulated": weights.simulated,
            "resampled": resampled,
            "note": custom.RESEARCH_USE_ONLY,
            "latencies": seconds,
        }


def return_memory(settle: bool) -> None:
    """Frees what only cycles of objects hold, and gives it to the system: glibc keeps it, in each thread's own heap.

    torch's first imports keep the frames of the call that they were made in, with its tensors.

    Args:
        settle: take what lives after this call for what stays. Later calls do not look at it, which spares each of them
            half a second: libraries and networks have 600,000 objects.
    """
    if settle:
        gc.unfreeze()
    gc.collect()
    if settle:
        gc.freeze()
    with contextlib.suppress(OSError, AttributeError):  # a system without glibc
        ctypes.CDLL(None).malloc_trim(0)


def temporary_file(ending: str) -> Path:
    """An empty file that the caller removes."""
    handle, path = tempfile.mkstemp(prefix="brainmri-label-", suffix=ending)
    os.close(handle)
    return Path(path)


def first_of(value: Any) -> Any:
    """The chosen value: viewers send a list of choices back whole, with the chosen one first."""
    return value[0] if isinstance(value, Sequence) and not isinstance(value, str) and value else value


def check_session(bundle: ServedBundle) -> None:
    """Raises DataError if a bundle needs more than one uploaded file."""
    if len(bundle.channels) > 1:
        needed = ", ".join(str(contrast) for contrast in bundle.channels)
        raise DataError(f"{bundle.name} needs {needed}, not one uploaded scan. Add these files to the studies.")
