"""MONAI Label's train task: new weights from corrected labels, beside the ones that were there."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.others.generic import device_list, name_to_device

import custom
from custom.checkpoints.find import CORRECTED, Weights
from custom.checkpoints.load import load_checkpoint, load_weights
from custom.checkpoints.record import sha256_of, write_record
from custom.errors import DataError
from custom.reading.volumes import natural_order
from custom.running.workflow import StrictWorkflow
from custom.serving.bundles import ServedBundle
from custom.serving.grids import on_one_grid
from custom.serving.segmentation import first_of
from custom.serving.slices import as_slices, one_by_one
from custom.serving.studies import Store

logger = logging.getLogger(__name__)


class TrainingTask(TrainTask):
    """Runs a bundle's train.json on the studies with saved labels, from the weights that are served.

    The new weights are OUTPUT/corrected/<time>/model.pt, with model.json: data, date, persons who trained and who
    validated, and Dice on the latter before and after. Weights that score lower than those that they started from are
    kept and not served. What a training that was stopped left there is never served.
    """

    def __init__(self, bundle: ServedBundle) -> None:
        super().__init__(f"Trains {bundle.name} on saved labels")
        self.bundle = bundle
        sizes = json.loads(Path(bundle.files("train.json")[0]).read_text(encoding="utf-8"))["roi_size"]
        self._roi_size = " ".join(map(str, sizes))  # 3D Slicer takes a list for choices

    def config(self) -> dict[str, Any]:
        """What a viewer may set, with the defaults; of a list, one."""
        return {"max_epochs": 20, "learning_rate": 0.0003, "roi_size": self._roi_size, "device": device_list()}

    def stats(self) -> dict[str, Any]:
        """The newest training from corrected labels, as viewers show it."""
        newest = next((one.record for one in self.bundle.find_weights() if "dice_before" in one.record), None)
        return {"best_metric": newest["dice"], "total_time": newest["seconds"]} | newest if newest else {}

    def __call__(self, request: Mapping[str, Any], datastore: Store) -> dict[str, Any]:
        """Trains; returns the record.

        Raises:
            DataError: fewer than two persons with saved labels, or a study that can't be used.
        """
        start = self.bundle.choose_weights()
        folder = self.bundle.output_dir / CORRECTED / time.strftime("%Y%m%d-%H%M%S")
        work = Path(tempfile.mkdtemp(prefix="brainmri-label-"))
        try:
            studies = self._studies(datastore, work)
            learned = start.record.get("persons", [])
            training, validation = divide_studies(studies, learned, self.bundle.name)
            persons = sorted({*learned, *(str(one["person"]) for one in training)}, key=natural_order)
            workflow = self._workflow(request, training, validation, folder, str(datastore._datastore_path), work)
            record = self._train(workflow, start, folder, training, validation, str(datastore._datastore_path), persons)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        logger.info("%s: %s", folder, "served from now on" if record["good"] else "kept, not served")
        return record

    def _studies(self, datastore: Store, work: Path) -> list[dict[str, Any]]:
        found = []
        for number, (image_id, label) in enumerate(datastore.labelled(list(self.bundle.labels))):
            if not np.asarray(nibabel.load(label).dataobj).any():
                logger.warning("%s has an empty label map: it is left out of the training.", image_id)
                continue
            place = work / str(number)
            place.mkdir()
            try:
                files = datastore.files_of(image_id, self.bundle.channels)
                paths, said = on_one_grid([*files, label], datastore.reference(image_id), place)
                if paths[-1] != label:
                    raise DataError(f"The saved labels {label} don't lie on its grid: save them again.")
                item = {"subject": image_id, "person": datastore.person(image_id)}
            except DataError as error:
                logger.warning("%s is left out of the training: %s", image_id, error)
                continue
            for sentence in said:
                logger.info(sentence)
            found.append(item | {"image": paths[:-1], "label": label})
        return found

    def _workflow(
        self,
        request: Mapping[str, Any],
        training: list[dict[str, Any]],
        validation: list[dict[str, Any]],
        folder: Path,
        dataset_dir: str,
        work: Path,
    ) -> StrictWorkflow:
        recipes = ["own_scans"] if (self.bundle.root / "configs" / "recipes" / "own_scans.json").is_file() else []
        files = self.bundle.files("train.json", *recipes)
        config = json.loads(Path(files[0]).read_text(encoding="utf-8"))
        settings = self._chosen(request) | {"output_dir": str(folder), "dataset_dir": dataset_dir}
        settings["val_interval"] = max(1, settings["max_epochs"] // 5)
        if recipes:  # that recipe takes labels' names from a dataset.json, and would start from the shipped weights
            labels = {0: "background"} | {code: name for name, code in self.bundle.labels.items()}
            settings |= {"labels": f"${labels!r}", "from_weights": None, "ignore_code": None, "ignore_index": None}
        if "codes" in config:
            settings["codes"] = list(range(len(self.bundle.labels) + 1))
        if "channel_order" in config:  # a 2D bundle
            slices = [
                as_slices(part, len(self.bundle.labels), work / name)
                for part, name in ((training, "training"), (validation, "validation"))
            ]
            training, validation = one_by_one(slices[0]), slices[1]
            settings["channel_order"] = list(self.bundle.channels)
        # as tuples: a list would be parsed, item by item
        settings |= {"train#dataset#data": tuple(training), "validate#dataset#data": tuple(validation)}
        return StrictWorkflow(files, logging_file=False, workflow_type="train", run_id="training", **settings)

    def _chosen(self, request: Mapping[str, Any]) -> dict[str, Any]:
        chosen = {name: request.get(name) or default for name, default in self.config().items()}
        if isinstance(chosen["roi_size"], str):
            chosen["roi_size"] = [int(size) for size in chosen["roi_size"].split()]
        return chosen | {"device": name_to_device(first_of(chosen["device"]))}

    def _train(
        self,
        workflow: StrictWorkflow,
        start: Weights,
        folder: Path,
        training: Sequence[Mapping[str, Any]],
        validation: Sequence[Mapping[str, Any]],
        dataset_dir: str,
        persons: list[str],
    ) -> dict[str, Any]:
        began = time.monotonic()
        workflow.initialize()
        load_weights(workflow.parser.get_parsed_content("network_def"), load_checkpoint(start.path), start.path)
        evaluator = workflow.parser.get_parsed_content("validate#evaluator")
        evaluator.run()
        before = float(evaluator.state.metrics["dice_mean"])
        evaluator.state.best_metric = evaluator.state.best_metric_epoch = -1  # so that the training finds its own best
        workflow.run()
        workflow.finalize()
        after = float(evaluator.state.best_metric)
        (folder / "last.pt").unlink(missing_ok=True)  # nobody resumes it
        is_sample = (Path(dataset_dir) / "sample.json").is_file()
        return write_record(
            folder / "model.pt",
            dataset_dir,
            simulated=True if is_sample else start.simulated,
            bundle=self.bundle.name,
            version=self.bundle.version,
            network=self.bundle.network,
            persons=persons,
            started_from={"name": start.name, "sha256": sha256_of(start.path)},
            trained_on=list(dict.fromkeys(one["subject"] for one in training)),
            validated_on=list(dict.fromkeys(one["subject"] for one in validation)),
            dice_before=round(before, 4),
            dice=round(after, 4),
            good=after >= before,
            seconds=round(time.monotonic() - began, 1),
            note=custom.RESEARCH_USE_ONLY,
        )


def divide_studies(
    studies: Sequence[Mapping[str, Any]], learned: Sequence[str], bundle: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A fifth of the persons, one at least, validates: those whose names' checksums are the lowest. The others train.

    Who trained the weights that are started from never validates.

    Args:
        studies: [{"person": ..., ...}, ...]
        learned: the persons that the start weights learned from.
        bundle: its name.

    Raises:
        DataError: fewer than two persons, or all of them trained the start weights.
    """
    everyone = sorted({str(one["person"]) for one in studies}, key=natural_order)
    new = [one for one in everyone if one not in learned]
    if len(everyone) < 2:
        raise DataError(
            f"{bundle} can't train on the saved labels of {len(everyone)} persons: save those of two at least, one "
            "trains and one validates."
        )
    if not new:
        raise DataError(f"{bundle}'s weights learned from all {len(everyone)} persons: save a new person's labels.")
    by_chance = sorted(new, key=lambda one: zlib.crc32(one.encode()))
    validating = set(by_chance[: max(1, len(everyone) // 5)])
    parts: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for study in studies:
        parts[str(study["person"]) in validating].append(dict(study))
    return parts
