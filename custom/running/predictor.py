"""A bundle's inference.json and its weights, loaded once, for one scan after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, SaveImaged

from custom.checkpoints.load import load_checkpoint, load_weights
from custom.checkpoints.record import sha256_of
from custom.datasets import freesurfer
from custom.errors import ConfigError, DataError
from custom.reading.volumes import in_one_place
from custom.running.bundles import labels_of_run, read_metadata
from custom.running.declared import is_zoo_form, kind_of
from custom.running.workflow import StrictWorkflow, check_device
from custom.running.zoo_form import ZooLabelling, zoo_parser

Image = str | Path | Sequence[str | Path]  # one file, or a file for each channel in the bundle's order
ELSEWHERE = ("device", "ckpt_path", "output_dir", "num_workers")  # settings that do not change a result


class Predictor:
    """Labels scans with a segmentation bundle, one after another: the one way to predict.

    It runs the bundle's `preprocessing`, `inferer` and `labelling`; where inference.json has no `labelling`, its
    `postprocessing` without the step that saves a file. `data`, `dataset_dir` and `output_dir` are never read. It takes
    bundles in the form of MONAI's model zoo too (custom.running.zoo_form).

        predictor = Predictor(config_files("iseg", "inference.json"), device="cuda", ckpt_path="run/model.pt")
        first = predictor.predict(["a_T1.nii.gz", "a_T2.nii.gz"])
        second = predictor.predict(["b_T1.nii.gz", "b_T2.nii.gz"])

    One predictor may be used from several threads if the caller holds a lock during each call.

    Args:
        files: inference.json and mixins.
        settings: overrides of their settings (device, ckpt_path, ...).

    Attributes:
        device: where the network is.
        path, sha256: the file of weights, and its checksum.
        labels: {0: "background", 1: ...}: what the values of "pred" mean.
        settings: the overrides that can change a result, as text.
        seconds: of the last call, by step.

    Raises:
        ConfigError: an unknown setting or device, or a bundle that does not segment.
        CheckpointError: no weights, or weights of another network.
    """

    def __init__(self, files: Sequence[str], **settings: Any) -> None:
        folder = Path(files[0]).parents[1]
        metadata = read_metadata(folder)
        if kind_of(metadata) != "segmentation":
            raise ConfigError(f"{folder.name} gives no label maps. Use brainmri infer for it.")
        of_zoo = is_zoo_form(metadata)
        if of_zoo:
            parser = zoo_parser(files, settings)
        else:
            parser = StrictWorkflow(list(files), logging_file=False, workflow_type="infer", **settings).parser
        parser.parse()
        parsed = parser.get_parsed_content
        self.device = check_device(parsed("device"))
        self.path = Path(parsed("ckpt_path"))
        load_weights(parsed("network_def"), load_checkpoint(self.path), self.path)
        self.network = parsed("network").eval()
        self.preprocessing, self.inferer = parsed("preprocessing"), parsed("inferer")
        self.labelling: Callable[[dict[str, Any]], Any]
        if of_zoo:
            self.labelling = labelling = ZooLabelling(parser)
            self.labels = labelling.labels
        else:
            self.labelling = parsed("labelling") if "labelling" in parser else _without_saving(parsed("postprocessing"))
            self.labels = labels_of_run(parser)
        self.sha256 = sha256_of(self.path)
        self.amp = "evaluator#amp" in parser and bool(parsed("evaluator#amp"))
        self.amp_kwargs: dict[str, Any] = parsed("evaluator#amp_kwargs") if "evaluator#amp_kwargs" in parser else {}
        self.settings = {name: str(value) for name, value in settings.items() if name not in ELSEWHERE}
        self.seconds: dict[str, float] = {}

    def predict(
        self,
        image: Image,
        mask: str | Path | None = None,
        probabilities: bool = False,
        on_logits: Callable[[torch.Tensor], object] | None = None,
        areas: bool = False,
    ) -> dict[str, Any]:
        """Segments one image.

        Args:
            image: a file, or a list with a file for each channel, all on one grid.
            mask: a brain mask on the image's grid, for bundles that take one.
            probabilities: give these too, where the bundle can; they take memory.
            on_logits: is called with the network's output (1, C, x, y, z), on the network's grid and device, before the
                labels are made of it. Do not change it.
            areas: give the areas of the cortex too, where the bundle can: "areas" (X, Y, Z), int16, and
                "area_measures" (custom.transforms.label_areas).

        Returns:
            "pred": labels (X, Y, Z), uint8, on the grid of the first file; "affine" (4, 4) of that grid, voxels to mm,
            RAS+; "image" (C, x, y, z) as the network sees it. With the brain tissue bundle also "scan" (1, X, Y, Z),
            the scan itself; if its labels are tissues or structures, "structures" (X, Y, Z) and "measures"
            (custom.transforms.label_structures); "probabilities" (C, X, Y, Z) without background, float16.

        Raises:
            DataError: an image that cannot be used.
        """
        return self._predict([image], mask, probabilities, on_logits, areas)

    def __call__(
        self,
        scans: str | Path | Sequence[str | Path],
        mask: str | Path | None = None,
        probabilities: bool = False,
        areas: bool = False,
    ) -> dict[str, Any]:
        """Segments one scan, or several scans of one subject together, with a bundle of one channel.

        Args:
            scans: a scan, or several of one subject on one grid, whose probabilities are multiplied; intensities of the
                first one refine the labels.
            mask: a brain mask on the scan's grid.
            probabilities: give these too; they take memory.
            areas: as `predict` takes it.

        Returns:
            What `predict` returns, on the grid of the first scan.

        Raises:
            DataError: a scan that cannot be used, or scans on different grids.
        """
        return self._predict(
            [scans] if isinstance(scans, (str, Path)) else list(scans), mask, probabilities, None, areas
        )

    def _predict(
        self,
        images: Sequence[Image],
        mask: str | Path | None,
        probabilities: bool,
        on_logits: Callable[[torch.Tensor], object] | None,
        areas: bool = False,
    ) -> dict[str, Any]:
        self.seconds = {}
        with torch.inference_mode():
            items: list[dict[str, Any]] = []
            for image in images:
                files = str(image) if isinstance(image, (str, Path)) else [str(path) for path in image]
                given = {"image": files} | ({} if mask is None else {"mask": str(mask)})
                items.append(self._timed("load and resample", self.preprocessing, given))
                _require_grid(items, images)
                logits = self._logits(items[-1]["image"])
                if on_logits is not None:
                    on_logits(logits)
                items[-1]["pred"] = logits[0].float()
            item = items[0]
            if len(items) > 1:
                item["pred"] = self._product([other["pred"] for other in items])
                warnings = [line for other in items for line in other["scan"].meta["warnings"].splitlines()]
                item["scan"].meta["warnings"] = "\n".join(dict.fromkeys(warnings))
            item["wants_probabilities"] = probabilities
            item["wants_areas"] = areas
            item = dict(self._timed("labels on the scan's grid", self.labelling, item))
        item["affine"] = np.asarray(item["pred"].affine, dtype=np.float64)
        item["pred"] = np.asarray(item["pred"].cpu(), dtype=np.uint8)[0]
        if "structures" in item:
            item["structures"] = np.asarray(item["structures"].cpu())[0]
        if "areas" in item:
            item["areas"] = np.asarray(item["areas"])[0]
        return item

    def _logits(self, image: torch.Tensor) -> torch.Tensor:
        """The network's output (1, C, x, y, z) for an image (C, x, y, z)."""
        batch = image[None].to(self.device)
        on_cuda = self.amp and self.device.type == "cuda"
        with torch.autocast("cuda", enabled=on_cuda, **self.amp_kwargs):
            logits: torch.Tensor = self._timed("network", self.inferer, batch, self.network)
        return logits

    def _product(self, logits: Sequence[torch.Tensor]) -> torch.Tensor:
        """Logits of the product of several scans' probabilities; those of a side, where there is one, are added."""
        total = sum(logits[1:], logits[0])
        classes = len(freesurfer.LABELS) if freesurfer.outputs_of(self.labels) is not None else len(total)
        total[:classes] = sum(scan[:classes].log_softmax(dim=0) for scan in logits)
        return total

    def _timed(self, name: str, step: Callable[..., Any], *args: Any) -> Any:
        start = time.perf_counter()
        result = step(*args)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        return result


def _without_saving(postprocessing: Compose) -> Compose:
    """The steps of a postprocessing that change the result, not the one that writes it."""
    return Compose([step for step in postprocessing.transforms if not isinstance(step, SaveImaged)])


def _require_grid(items: Sequence[dict[str, Any]], images: Sequence[Image]) -> None:
    """Raises DataError if the last scan does not lie on the grid of the first one."""
    if len(items) == 1:
        return
    first, last = items[0]["scan"], items[-1]["scan"]
    if first.shape != last.shape or not in_one_place(
        first.shape[1:], np.asarray(first.affine, dtype=float), np.asarray(last.affine, dtype=float)
    ):
        raise DataError(
            f"{images[len(items) - 1]} and {images[0]} lie on different grids. Resample them to one grid, or segment "
            "them one by one."
        )
