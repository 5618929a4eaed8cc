"""MONAI Label's train task: new weights from saved labels, next to the weights that it started from."""

from __future__ import annotations

import json
import logging
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.others.generic import device_list, name_to_device

import custom
from custom.checkpoints.find import CORRECTED, Weights
from custom.checkpoints.load import load_checkpoint, load_weights
from custom.checkpoints.record import sha256_of, write_record
from custom.errors import DataError
from custom.files import folder_written_whole, read_json, temporary_folder
from custom.planning.configs import config_for_saved_labels
from custom.reading.volumes import natural_order, open_volume
from custom.running.workflow import StrictWorkflow
from custom.serving.bundles import ServedBundle
from custom.serving.grids import on_one_grid
from custom.serving.segmentation import TEMPORARY, first_of
from custom.serving.slices import as_slices, one_by_one
from custom.serving.studies import Store
from custom.serving.tasks import report_epochs

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Division:
    """Who trains and who validates.

    Args:
        training: [{"subject": image id, "person", "image": paths, "label": path}, ...]
        validation: likewise.
        persons: all from whom the new weights learn, those of the start weights included.
    """

    training: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    persons: list[str]


class TrainingTask(TrainTask):
    """Runs a bundle's train.json on the studies with saved labels, starting from the weights that are served.

    metadata.json of the bundle declares in "own_labels" how its train.json takes them: "codes_option" and
    "channel_order_option" (the options for the label codes and the order of contrasts), null if the bundle has none.
    With "planned": true the training is the fine-tuning that `brainmri plan` writes, because train.json draws its scans
    from label maps. A bundle with "spatial_dims": 2 trains on slices.

    The new weights are OUTPUT/corrected/<time>/model.pt, with model.json: data, date, who trained and who validated,
    and Dice on the latter before and after. Weights that score lower than those that they started from are kept but not
    served. The output of a training that was stopped is never served.
    """

    def __init__(self, bundle: ServedBundle) -> None:
        super().__init__(f"Trains {bundle.name} on saved labels")
        self.bundle = bundle
        sizes = json.loads(Path(bundle.files("train.json")[0]).read_text(encoding="utf-8"))["roi_size"]
        self._roi_size = " ".join(map(str, sizes))  # 3D Slicer takes a list for choices

    def config(self) -> dict[str, Any]:
        """What a viewer may set, with the defaults; a list holds choices."""
        return {"max_epochs": 20, "learning_rate": 0.0003, "roi_size": self._roi_size, "device": device_list()}

    def stats(self) -> dict[str, Any]:
        """The newest training from corrected labels, as viewers show it."""
        records = [weights.record for weights in self.bundle.find_weights()]
        newest = next((record for record in records if "dice_before" in record), None)
        return {"best_metric": newest["dice"], "total_time": newest["seconds"]} | newest if newest else {}

    def __call__(self, request: Mapping[str, Any], datastore: Store) -> dict[str, Any]:
        """Trains; returns the content of model.json.

        Raises:
            DataError: saved labels of fewer than two subjects, or a study that cannot be used.
        """
        start = self.bundle.choose_weights()
        folder = self.bundle.output_dir / CORRECTED / time.strftime("%Y%m%d-%H%M%S")
        dataset_dir = str(datastore._datastore_path)
        with temporary_folder(TEMPORARY, "train") as work, folder_written_whole(folder) as partial:
            studies = self._studies(datastore, work)
            learned = start.record.get("persons", [])
            training, validation = divide_studies(studies, learned, self.bundle.name)
            persons = sorted({*learned, *(str(study["person"]) for study in training)}, key=natural_order)
            division = Division(training, validation, persons)
            settings = self._settings(request) | {"output_dir": str(partial), "dataset_dir": dataset_dir}
            record = self._train(self._workflow(settings, division, work), start, partial, division, dataset_dir)
        logger.info("%s: %s", folder, "served from now on" if record["good"] else "kept, but not served")
        return record

    def _studies(self, datastore: Store, work: Path) -> list[dict[str, Any]]:
        studies = []
        for number, (image_id, label) in enumerate(datastore.labelled(self.bundle.labels)):
            if not np.asarray(open_volume(label).dataobj).any():
                logger.warning("%s is left out of the training: its label map is empty.", image_id)
                continue
            folder = work / str(number)
            folder.mkdir()
            try:
                files = datastore.files_of(image_id, self.bundle.channels)
                paths, notes = on_one_grid([*files, label], datastore.reference(image_id), folder)
                if paths[-1] != label:
                    raise DataError(f"the grid of its label map {label} differs from the image. Save the labels again.")
                study = {"subject": image_id, "person": datastore.person(image_id)}
            except DataError as error:
                logger.warning("%s is left out of the training: %s", image_id, error)
                continue
            for note in notes:
                logger.info(note)
            studies.append(study | {"image": paths[:-1], "label": label})
        return studies

    def _workflow(self, settings: dict[str, Any], division: Division, work: Path) -> StrictWorkflow:
        declared, training, validation = self.bundle.metadata["own_labels"], division.training, division.validation
        files = self.bundle.files("train.json")
        if declared.get("planned"):
            files[0] = self._planned(work)
        if "cache_dir" in read_json(Path(files[0])):  # else the scans would stay beside the new weights
            settings["cache_dir"] = str(work / "cache")
        if declared["codes_option"]:
            settings[declared["codes_option"]] = list(range(len(self.bundle.labels) + 1))
        if declared["channel_order_option"]:
            settings[declared["channel_order_option"]] = list(self.bundle.channels)
        if self.bundle.metadata["spatial_dims"] == 2:
            masks = len(self.bundle.labels)
            training = one_by_one(as_slices(training, masks, work / "training"))
            validation = as_slices(validation, masks, work / "validation")
        # tuples, because MONAI would parse each item of a list
        settings |= {"train#dataset#data": tuple(training), "validate#dataset#data": tuple(validation)}
        return StrictWorkflow(files, logging_file=False, workflow_type="train", run_id="training", **settings)

    def _planned(self, work: Path) -> str:
        """Writes what `brainmri plan` would fine-tune the any-scan network with, and returns the file."""
        labels = {0: "background"} | {code: name for name, code in self.bundle.labels.items()}
        config = config_for_saved_labels(self.bundle.root / "configs", self.bundle.name, labels)
        path = work / "train.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        return str(path)

    def _settings(self, request: Mapping[str, Any]) -> dict[str, Any]:
        settings = {name: request.get(name) or default for name, default in self.config().items()}
        if isinstance(settings["roi_size"], str):
            settings["roi_size"] = [int(size) for size in settings["roi_size"].split()]
        settings["val_interval"] = max(1, settings["max_epochs"] // 5)
        return settings | {"device": name_to_device(first_of(settings["device"]))}

    def _train(
        self, workflow: StrictWorkflow, start: Weights, folder: Path, division: Division, dataset_dir: str
    ) -> dict[str, Any]:
        began = time.monotonic()
        workflow.initialize()
        load_weights(workflow.parser.get_parsed_content("network_def"), load_checkpoint(start.path), start.path)
        evaluator = workflow.parser.get_parsed_content("validate#evaluator")
        evaluator.run()
        before = float(evaluator.state.metrics["dice_mean"])
        report_epochs(workflow.parser.get_parsed_content("train#trainer"))
        evaluator.state.best_metric = evaluator.state.best_metric_epoch = -1  # the start weights are not a candidate
        workflow.run()
        workflow.finalize()
        after = float(evaluator.state.best_metric)
        (folder / "last.pt").unlink(missing_ok=True)  # this training is never resumed
        is_sample = (Path(dataset_dir) / "sample.json").is_file()
        return write_record(
            folder / "model.pt",
            dataset_dir,
            simulated=True if is_sample else start.simulated,
            bundle=self.bundle.name,
            version=self.bundle.version,
            network=self.bundle.network,
            persons=division.persons,
            started_from={"name": start.name, "sha256": sha256_of(start.path)},
            trained_on=list(dict.fromkeys(study["subject"] for study in division.training)),
            validated_on=list(dict.fromkeys(study["subject"] for study in division.validation)),
            dice_before=round(before, 4),
            dice=round(after, 4),
            good=after >= before,
            seconds=round(time.monotonic() - began, 1),
            note=custom.RESEARCH_USE_ONLY,
        )


def divide_studies(
    studies: Sequence[Mapping[str, Any]], learned: Sequence[str], bundle: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Divides studies by subject: a fifth of the subjects, but at least one, validates. The others train.

    The subjects whose names have the lowest checksums validate. A subject from whom the start weights learned never
    does.

    Args:
        studies: [{"person": the subject or patient, ...}, ...]
        learned: the subjects from whom the start weights learned.
        bundle: its name.

    Returns:
        The studies for training, and those for validation.

    Raises:
        DataError: fewer than two subjects, or the start weights learned from all of them.
    """
    subjects = sorted({str(study["person"]) for study in studies}, key=natural_order)
    new = [name for name in subjects if name not in learned]
    if len(subjects) < 2:
        raise DataError(
            f"{bundle} needs saved labels of at least two subjects, one to train and one to validate; saved are labels "
            f"of {len(subjects)}. Save more label maps."
        )
    if not new:
        raise DataError(
            f"The weights of {bundle} learned from all {len(subjects)} subjects with saved labels. Save labels of a "
            "new subject, to validate on."
        )
    new.sort(key=lambda name: zlib.crc32(name.encode()))
    validating = set(new[: max(1, len(subjects) // 5)])
    parts: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for study in studies:
        parts[str(study["person"]) in validating].append(dict(study))
    return parts
