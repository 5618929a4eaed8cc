"""A bundle's inference.json and its weights, loaded once, for one scan after another."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from custom.checkpoints.load import load_checkpoint, load_weights
from custom.checkpoints.record import sha256_of
from custom.datasets import freesurfer
from custom.errors import DataError
from custom.reading.volumes import in_one_place
from custom.running.workflow import StrictWorkflow, check_device


class Predictor:
    """Labels one scan, or several scans of one subject, at a time.

    Args:
        files: inference.json and mixins.
        settings: overrides of their settings (device, ckpt_path, ...).

    Raises:
        ConfigError: an unknown setting or device.
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
        self.sha256 = sha256_of(self.path)
        self.amp = bool(parsed("amp"))
        elsewhere = ("device", "ckpt_path", "output_dir", "num_workers")
        self.settings = {name: str(value) for name, value in settings.items() if name not in elsewhere}
        self.seconds: dict[str, float] = {}

    def __call__(
        self, scans: str | Path | Sequence[str | Path], mask: str | Path | None = None, probabilities: bool = False
    ) -> dict[str, Any]:
        """Segments.

        Args:
            scans: a scan, or several of one subject on one grid, whose probabilities are multiplied; intensities of the
                first one refine the labels.
            mask: a brain mask on the scan's grid.
            probabilities: give these too; they take memory.

        Returns:
            "pred": labels (X, Y, Z), uint8, on the (first) scan's grid; "scan" and "image": the scan itself and as the
            network sees it; with the brain tissue bundle's labels also "structures" (X, Y, Z) and "measures"
            (custom.transforms.label_structures); "probabilities" (C, X, Y, Z) without background, float16.

        Raises:
            DataError: a scan that can't be used, or scans on different grids.
        """
        paths = [scans] if isinstance(scans, (str, Path)) else list(scans)
        self.seconds = {}
        with torch.inference_mode():
            items = []
            for path in paths:
                given = {"image": str(path)} | ({} if mask is None else {"mask": str(mask)})
                items.append(self._timed("load and resample", self.preprocessing, given))
                _require_grid(items, paths)
                image = items[-1]["image"][None].to(self.device)
                with torch.autocast("cuda", torch.bfloat16, enabled=self.amp and self.device.type == "cuda"):
                    items[-1]["pred"] = self._timed("network", self.inferer, image, self.network)[0].float()
            item = items[0]
            if len(items) > 1:
                item["pred"] = self._product([other["pred"] for other in items])
                warnings = [line for other in items for line in other["scan"].meta["warnings"].splitlines()]
                item["scan"].meta["warnings"] = "\n".join(dict.fromkeys(warnings))
            item["wants_probabilities"] = probabilities
            item = self._timed("labels on the scan's grid", self.labelling, item)
        item["pred"] = np.asarray(item["pred"].cpu(), dtype=np.uint8)[0]
        if "structures" in item:
            item["structures"] = np.asarray(item["structures"].cpu())[0]
        return item

    def _product(self, logits: Sequence[Any]) -> Any:
        """Logits of the product of several scans' probabilities; those of a side, where there is one, are added."""
        total = sum(logits[1:], logits[0])
        classes = len(freesurfer.LABELS) if freesurfer.outputs_of(self.labels) is not None else len(total)
        total[:classes] = sum(one[:classes].log_softmax(dim=0) for one in logits)
        return total

    def _timed(self, name: str, step: Any, *args: Any) -> Any:
        start = time.perf_counter()
        result = step(*args)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        return result


def _require_grid(items: list[dict[str, Any]], paths: list[str | Path]) -> None:
    """Raises DataError where the last scan doesn't lie on the first one's grid."""
    first, last = items[0]["scan"], items[-1]["scan"]
    if first.shape != last.shape or not in_one_place(
        first.shape[1:], np.asarray(first.affine, dtype=float), np.asarray(last.affine, dtype=float)
    ):
        raise DataError(
            f"{paths[len(items) - 1]} and {paths[0]} lie on different grids: resample them to one grid, or segment "
            "them one by one."
        )
