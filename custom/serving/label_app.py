"""The MONAI Label app: bundles, studies and tasks put together."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask

import custom
from custom.checkpoints.find import Weights, check_for_patients
from custom.errors import ConfigError, DataError
from custom.serving.active_learning import AtRandom, DiceOfPrediction, MeasureAll, MostUncertain
from custom.serving.bundles import ServedBundle, load_bundles
from custom.serving.dicom_seg import LENGTH, Algorithm
from custom.serving.grids import as_codes, read_values, save_labels
from custom.serving.outputs import PRED
from custom.serving.pacs import Pacs
from custom.serving.segmentation import SegmentationTask, check_session, first_of, temporary_file
from custom.serving.studies import Studies
from custom.serving.training import TrainingTask

logger = logging.getLogger(__name__)
MADE_BY = "made by"  # the key in an image's info for the bundle and version of its last result
USER, PASSWORD = "BRAINMRI_PACS_USER", "BRAINMRI_PACS_PASSWORD"  # environment variables


class BrainMRIApp(MONAILabelApp):
    """Serves the segmentation bundles of this project.

    Args:
        app_dir: a folder for its own files.
        studies: a folder of NIfTI files, or the URL of a DICOMweb server.
        conf: "bundles" ("iseg,brats_mri_tumor"; empty for all with weights), "runs" (the folder of trainings),
            "weights" (custom.serving.bundles.load_bundles), "allow_simulated" ("True" or "False"), "format" and
            "store_to" (custom.serving.pacs.Pacs).
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        names = [name.strip() for name in conf.get("bundles", "").split(",") if name.strip()]
        self.on_pacs = is_url(studies)
        self.for_patients = self.on_pacs and conf.get("allow_simulated") != "True"
        self.bundles = load_bundles(names, Path(conf["runs"]), conf.get("weights", "newest"), self.check_bundle)
        self.same_labels = len({tuple(model.labels.items()) for model in self._networks().values()}) == 1
        super().__init__(
            app_dir,
            studies,
            conf,
            name="Brain MRI Bundles",
            description=custom.RESEARCH_USE_ONLY,
            version=custom.__version__,
        )
        self._auto_update_scoring = False  # MONAI Label would measure all studies at each request

    def weights_for(self, bundle: ServedBundle, name: str | None = None) -> Weights:
        """The weights to serve. Raises CheckpointError or ConfigError if there are none, or none for patients."""
        weights = bundle.choose_weights(name)
        if self.for_patients:
            check_for_patients(weights, bundle.name)
        return weights

    def check_bundle(self, bundle: ServedBundle) -> None:
        """Raises CheckpointError or ConfigError if a bundle cannot be served."""
        if self.on_pacs:
            check_for_pacs(bundle)
        bundle.check(self.weights_for(bundle))

    # the interface of MONAILabelApp

    def init_datastore(self) -> Studies | Pacs:
        """The studies, on disk or on a PACS."""
        together = any(len(bundle.channels) > 1 for bundle in self.bundles.values())
        if is_url(self.studies):
            login = os.environ.get(USER, ""), os.environ.get(PASSWORD, "")
            cache, form, node = (
                Path(self.app_dir) / "dicomweb",
                self.conf.get("format", "seg"),
                self.conf.get("store_to", ""),
            )
            return Pacs(self.studies, cache, together, self.same_labels, *login, form, node)
        studies = Studies(self.studies, together, self.same_labels)
        if not studies.list_images():
            logger.warning("%s has no NIfTI files. Put scans into it; subfolders are not read.", self.studies)
        return studies

    def init_infers(self) -> dict[str, InferTask]:
        """A segmentation task for each bundle."""
        return {name: SegmentationTask(bundle, self.on_pacs) for name, bundle in self.bundles.items()}

    def init_trainers(self) -> dict[str, TrainTask]:
        """A training task for each bundle that says how it takes corrected labels."""
        return {name: TrainingTask(bundle) for name, bundle in self.bundles.items() if bundle.is_trained}

    def init_strategies(self) -> dict[str, Strategy]:
        """Which study to label next: at random, or by the uncertainty of a bundle."""
        return {"random": AtRandom()} | {
            name: MostUncertain(bundle, self.infer) for name, bundle in _named("uncertainty", self._networks()).items()
        }

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """Dice against saved labels, and uncertainty of unlabelled studies, for each bundle."""
        dice = {name: DiceOfPrediction(bundle, self.infer) for name, bundle in _named("dice", self.bundles).items()}
        named = _named("uncertainty", self._networks())
        return dice | {name: MeasureAll(bundle, self.infer) for name, bundle in named.items()}

    def _networks(self) -> dict[str, ServedBundle]:
        """One model for each network: without the structures, whose network also gives tissues."""
        return {name: bundle for name, bundle in self.bundles.items() if bundle.output == PRED}

    def infer(self, request: dict[str, Any], datastore: Any = None) -> dict[str, Any]:  # noqa: ARG002 - MONAI Label's
        """Segments an image of the studies, or the uploaded file of a session ("session_image").

        Request: "model", "image", and the options of custom.serving.segmentation.SegmentationTask. "save_label" stores
        the result with the image under "label_tag", "store" as DICOM SEG and report on the PACS. A result that is
        "unseen" is not noted as the image's last result.

        Returns:
            {"file": the label map, "label": the same, "tag": "original", "params": those of SegmentationTask, with
            "inputs" (the scan of each channel), "warnings" (about scan and result) and "stored" (the UIDs of the
            series that were stored)}.

        Raises:
            BrainMRIError: this bundle cannot segment the study.
        """
        bundle, image_id = self.bundles[request["model"]], request.get("image", "")
        if uploaded := request.get("session_image"):
            check_session(bundle)
            files, reference = [uploaded], uploaded
        else:
            files = self._datastore.files_of(image_id, bundle.channels)
            reference = self._datastore.reference(image_id)
        self.weights_for(bundle, first_of(request.get("weights")))
        file, params = self._infers[bundle.name](request | {"files": files, "reference": reference})
        if not uploaded and not request.get("unseen"):
            made_by = {"model": bundle.name, "version": bundle.version_of(params)}
            self._datastore.update_image_info(image_id, {MADE_BY: made_by})
            of_scan = self._datastore.get_image_info(image_id).get("warnings") or ()
            params["warnings"] = list(dict.fromkeys([*of_scan, *params["warnings"]]))
            params["inputs"] = [self._datastore.name_of(file) for file in files]
        if request.get("save_label") and not uploaded:
            info = {"model": bundle.name, "params": params, "labels": dict(bundle.labels)}
            self._datastore.save_label(image_id, file, request.get("label_tag", "original"), info)
        if request.get("store"):
            seg = self._pacs().seg_of_result(image_id, Path(file), bundle, params)
            params["stored"] = self._pacs().store_results(image_id, seg)
        return {"label": file, "tag": "original", "file": file, "params": params}

    def _download_dcmqi_tools(self) -> None:
        """Downloads nothing, because highdicom writes DICOM SEG here."""

    # requests of a viewer

    def dicom_seg(self, model: str, image_id: str, labels: str, params: Mapping[str, Any]) -> Path:
        """A result of `infer` as a DICOM SEG file. Raises ConfigError if the studies are not on a PACS."""
        seg = self._pacs().seg_of_result(image_id, Path(labels), self.bundles[model], params)
        target = temporary_file(".dcm")
        seg.save_as(target)
        return target

    def _pacs(self) -> Pacs:
        """The studies. Raises ConfigError if they are files."""
        if not isinstance(self._datastore, Pacs):
            raise ConfigError("DICOM SEG needs series on a PACS, but the studies are files. Use output=image.")
        return self._datastore

    def save_label(self, image_id: str, upload: Path, tag: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Saves a viewer's label map with its image, in the codes of the bundle. On a PACS, a final one becomes a SEG.

        Args:
            image_id: the image.
            upload: the label map, as a viewer sent it.
            tag: "final" or "original".
            params: "label_info" (the names of the values 1, 2, ...) and "model", if the viewer sent them.

        Returns:
            {"image", "label": ids, "params": what is stored with the label map}.

        Raises:
            DataError: labels that no served bundle has, or another grid than that of the image.
        """
        values, affine = read_values(upload, Path(self._datastore.reference(image_id)))
        names = [str(segment.get("name")) for segment in params.get("label_info") or []]
        # 3D Slicer sends a name for each label of all models; most of them have no voxel
        present = [names[int(value) - 1] for value in np.unique(values) if 0 < value <= len(names)]
        bundle, version = self._made_with(image_id, params.get("model"), names, present)
        voxels = as_codes(values, names, bundle.labels)
        info: dict[str, Any] = {"labels": dict(bundle.labels), "model": bundle.name}
        with tempfile.TemporaryDirectory(prefix="brainmri-label-") as folder:
            target = save_labels(voxels, affine, Path(folder) / "label.nii.gz")
            if isinstance(self._datastore, Pacs) and tag == "final":
                algorithm = Algorithm(bundle.name, version, "SEMIAUTOMATIC" if version else "MANUAL")
                seg = self._datastore.seg_of(image_id, target, bundle.labels, algorithm)
                info |= self._datastore.store_results(image_id, seg)
            label_id = self._datastore.save_label(image_id, str(target), tag, info)
        return {"image": image_id, "label": label_id, "params": info}

    def can_train(self, name: str) -> bool:
        """Whether at least two subjects have saved labels of a bundle."""
        labelled = self._datastore.labelled(self.bundles[name].labels)
        return len({self._datastore.person(image_id) for image_id, _ in labelled}) > 1

    def _made_with(
        self, image_id: str, model: str | None, names: list[str], present: list[str]
    ) -> tuple[ServedBundle, str]:
        """The bundle that a label map belongs to, and its version ("" if the bundle did not segment the image).

        It is the named bundle, or that of the image's last result, or the first with all labels that are present.
        """
        last = self._datastore.get_image_info(image_id).get(MADE_BY, {})
        codes_differ = last.get("model") in set(self.bundles) - set(self._networks())
        if not (model or names) and (codes_differ or not self.same_labels):
            raise DataError(
                f"The label map may belong to any of {', '.join(self.bundles)}, and their labels differ. Send "
                '"label_info" or "model" in params.'
            )
        for name in [model] if model else [last.get("model"), *self.bundles]:
            if name in self.bundles and set(present) <= set(self.bundles[name].labels):
                return self.bundles[name], last["version"] if name == last.get("model") else ""
        known = {bundle.name: list(bundle.labels) for bundle in self.bundles.values()}
        raise DataError(f"No served bundle has the labels {present}. Rename the segments; known labels are {known}.")


def _named(method: str, bundles: Mapping[str, ServedBundle]) -> dict[str, ServedBundle]:
    """{"dice": the first bundle, "dice_<bundle>": each of the others}"""
    first, *others = bundles.values()
    return {method: first} | {f"{method}_{bundle.name}": bundle for bundle in others}


def is_url(studies: str) -> bool:
    """Whether studies are on a DICOMweb server, not in a folder."""
    return studies.startswith(("http://", "https://"))


def check_for_pacs(bundle: ServedBundle) -> None:
    """Raises ConfigError if a bundle takes other images than MR, or if DICOM cannot hold the names of its labels."""
    if bundle.modality not in ("", "MR"):
        raise ConfigError(
            f"{bundle.name} takes {bundle.modality} images, but only MR series are read from a PACS. Serve it for a "
            "folder of NIfTI files."
        )
    if odd := [name for name in bundle.labels if not 0 < len(name) <= LENGTH or name != name.strip() or "\\" in name]:
        raise ConfigError(
            f"{bundle.name} has the label {odd[0]!r}. On a PACS a name has 1 to {LENGTH} letters, no backslash, and no "
            "space around it. Correct its metadata.json."
        )
