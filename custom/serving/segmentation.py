"""MONAI Label's infer task: one bundle on one study."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.utils.others.generic import device_list, name_to_device

import custom
from custom.checkpoints.record import sha256_of
from custom.errors import DataError
from custom.serving.bundles import ServedBundle
from custom.serving.grids import convert, on_one_grid


class SegmentationTask(InferTask):
    """Runs a bundle's inference.json on the files of a study.

    Request: "files" (a path for each channel), "reference" (the file on whose grid the result lies), and what a viewer
    may set: "device", "weights", "result_extension", "result_compress".

    Returns:
        The label map's path, a temporary file that the caller removes, and {"label_names": those present, {"CSF": 1,
        ...}, "uncertainty", "weights", "weights_sha256", "simulated", "resampled", "note", "latencies"}.
    """

    def __init__(self, bundle: ServedBundle) -> None:
        super().__init__(InferType.SEGMENTATION, dict(bundle.labels), 3, bundle.description)
        self.bundle = bundle

    def config(self) -> dict[str, Any]:
        """What a viewer offers as options, the first of each being the default."""
        names = [one.name for one in self.bundle.find_weights()]
        default = self.bundle.weights
        return {"device": device_list(), "weights": [default, *(name for name in names if name != default)]}

    def is_valid(self) -> bool:
        return True

    def get_path(self, validate: bool = True) -> str:
        return str(self.bundle.choose_weights().path)

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        start = time.monotonic()
        weights = self.bundle.choose_weights(first_of(request.get("weights")))
        folder = Path(tempfile.mkdtemp(prefix="brainmri-label-"))
        try:
            files, resampled = on_one_grid(request["files"], request["reference"], folder)
            ready = time.monotonic()
            device = name_to_device(first_of(request.get("device")))
            labels, uncertainty = self.bundle.segment(files, folder, weights, device)
            present = np.unique(np.asarray(nibabel.load(labels).dataobj))
            # viewers name segments by their position among the labels that are there
            names = {name: code for name, code in self.bundle.labels.items() if code in present}
            ending = request.get("result_extension") or ".nii.gz"
            result = convert(labels, ending, bool(request.get("result_compress")))
            kept = temporary_file(ending)
            shutil.move(result, kept)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        seconds = {"load": round(ready - start, 2), "total": round(time.monotonic() - start, 2)}
        return str(kept), {
            "label_names": names,
            "uncertainty": uncertainty,
            "weights": weights.name,
            "weights_sha256": sha256_of(weights.path),
            "simulated": weights.simulated,
            "resampled": resampled,
            "note": custom.RESEARCH_USE_ONLY,
            "latencies": seconds,
        }


def temporary_file(ending: str) -> Path:
    """An empty file that the caller removes."""
    handle, path = tempfile.mkstemp(prefix="brainmri-label-", suffix=ending)
    os.close(handle)
    return Path(path)


def first_of(value: Any) -> Any:
    """Viewers send a list's choices back whole, the chosen one first."""
    return value[0] if isinstance(value, Sequence) and not isinstance(value, str) and value else value


def check_session(bundle: ServedBundle) -> None:
    """Raises DataError where one uploaded file isn't all that a bundle needs."""
    if len(bundle.channels) > 1:
        needed = ", ".join(str(one) for one in bundle.channels)
        raise DataError(f"{bundle.name} needs {needed}: put them into the studies, one uploaded scan isn't enough.")
