"""The MONAI Label app: bundles, studies and tasks put together."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask

import custom
from custom.errors import ConfigError, DataError
from custom.serving.active_learning import AtRandom, DiceOfPrediction, MeasureAll, MostUncertain
from custom.serving.bundles import ServedBundle, load_bundles
from custom.serving.grids import read_labels, save_labels
from custom.serving.pacs import Pacs
from custom.serving.segmentation import SegmentationTask, check_session, temporary_file
from custom.serving.studies import Studies
from custom.serving.training import TrainingTask
from custom.serving.weights import Weights, check_for_patients
from custom.weights_record import sha256_of

USER, PASSWORD = "BRAINMRI_PACS_USER", "BRAINMRI_PACS_PASSWORD"  # environment variables


class BrainMRIApp(MONAILabelApp):
    """Serves this project's segmentation bundles.

    Args:
        app_dir: a folder for its own files.
        studies: a folder of NIfTI files, or a DICOMweb server's URL.
        conf: "bundles" ("iseg,brats_mri_tumor"; empty for all with weights), "runs" (where trainings wrote),
            "weights" (custom.serving.bundles.load_bundles), "allow_simulated" ("True" or "False").
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        names = [name.strip() for name in conf.get("bundles", "").split(",") if name.strip()]
        self.for_patients = is_url(studies) and conf.get("allow_simulated") != "True"
        self.bundles = load_bundles(names, Path(conf["runs"]), conf.get("weights", "newest"), self.chosen)
        self._made_by: dict[str, tuple[str, str]] = {}  # image: (bundle, version) of its last result
        super().__init__(
            app_dir,
            studies,
            conf,
            name="Brain MRI Bundles",
            description=custom.RESEARCH_USE_ONLY,
            version=custom.__version__,
        )
        self._auto_update_scoring = False  # measuring all studies whenever one is asked for would take the server down

    def chosen(self, bundle: ServedBundle, wanted: str | None = None) -> Weights:
        """The weights to serve. Raises CheckpointError or ConfigError where there are none, or none for patients."""
        weights = bundle.choose_weights(wanted)
        if self.for_patients:
            check_for_patients(weights, bundle.name)
        return weights

    # what MONAI Label asks for

    def init_datastore(self) -> Studies | Pacs:
        several = next((one for one in self.bundles.values() if len(one.channels) > 1), None)
        order = [str(one) for one in several.channels] if several else []
        if is_url(self.studies):
            cache = Path(self.app_dir) / "dicomweb"
            return Pacs(self.studies, cache, order, os.environ.get(USER, ""), os.environ.get(PASSWORD, ""))
        return Studies(self.studies, order)

    def init_infers(self) -> dict[str, InferTask]:
        return {name: SegmentationTask(bundle) for name, bundle in self.bundles.items()}

    def init_trainers(self) -> dict[str, TrainTask]:
        return {name: TrainingTask(bundle) for name, bundle in self.bundles.items()}

    def init_strategies(self) -> dict[str, Strategy]:
        return {"random": AtRandom()} | {
            name: MostUncertain(bundle, self.infer) for name, bundle in self._named("uncertainty").items()
        }

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        dice = {name: DiceOfPrediction(bundle, self.infer) for name, bundle in self._named("dice").items()}
        return dice | {name: MeasureAll(bundle, self.infer) for name, bundle in self._named("uncertainty").items()}

    def _named(self, what: str) -> dict[str, ServedBundle]:
        """{"dice": the first bundle, "dice_<bundle>": each of the others}"""
        first, *others = self.bundles.values()
        return {what: first} | {f"{what}_{bundle.name}": bundle for bundle in others}

    def infer(self, request: dict[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Segments an image of the studies, or one file of a session ("session_image").

        Request: "model", "image", and custom.serving.segmentation.SegmentationTask's options; "save_label" keeps the
        result with the image under "label_tag".

        Raises:
            BrainMRIError: the study can't be segmented by this bundle.
        """
        bundle, image_id = self.bundles[request["model"]], request.get("image", "")
        if uploaded := request.get("session_image"):
            check_session(bundle)
            files, reference = [uploaded], uploaded
        else:
            files = self._datastore.files_of(image_id, bundle.channels)
            reference = self._datastore.reference(image_id)
        self.chosen(bundle, _one(request.get("weights")))
        file, params = self._infers[bundle.name](request | {"files": files, "reference": reference})
        self._made_by[image_id] = bundle.name, version_of(bundle, params["weights"], params["weights_sha256"])
        if request.get("save_label") and not uploaded:
            info = {"model": bundle.name, "params": params, "labels": dict(bundle.labels)}
            self._datastore.save_label(image_id, file, request.get("label_tag", "original"), info)
        return {"label": file, "tag": "original", "file": file, "params": params}

    def _download_dcmqi_tools(self) -> None:
        """DICOM SEG is highdicom's task here: nothing is fetched."""

    # what a viewer sends

    def dicom_seg(self, model: str, image_id: str, labels: str, params: Mapping[str, Any]) -> Path:
        """A result of `infer` as a DICOM SEG file. Raises ConfigError where the studies are no PACS."""
        if not isinstance(self._datastore, Pacs):
            raise ConfigError("DICOM SEG needs series on a PACS: these studies are files, ask for output=image.")
        bundle = self.bundles[model]
        version = version_of(bundle, params["weights"], params["weights_sha256"])
        seg = self._datastore.seg_of(image_id, Path(labels), bundle.labels, bundle.name, version, automatic=True)
        target = temporary_file(".dcm")
        seg.save_as(target)
        return target

    def save_label(self, image_id: str, upload: Path, tag: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Keeps a viewer's label map with its image, in the bundle's codes; on a PACS a final one as DICOM SEG as well.

        Raises:
            DataError: labels that no served bundle has, or another grid than the image's.
        """
        label_info = params.get("label_info") or []
        names = [str(one.get("name")) for one in label_info]
        bundle, version = self._made_with(image_id, params.get("model"), names)
        reference = Path(self._datastore.reference(image_id))
        voxels, affine = read_labels(upload, reference, label_info, bundle.labels)
        info: dict[str, Any] = {"labels": dict(bundle.labels), "model": bundle.name}
        with tempfile.TemporaryDirectory(prefix="brainmri-label-") as folder:
            target = save_labels(voxels, affine, Path(folder) / "label.nii.gz")
            if isinstance(self._datastore, Pacs) and tag == "final":
                seg = self._datastore.seg_of(image_id, target, bundle.labels, bundle.name, version, automatic=False)
                info["SeriesInstanceUID"] = self._datastore.store_seg(seg)
            label_id = self._datastore.save_label(image_id, str(target), tag, info)
        return {"image": image_id, "label": label_id, "params": info}

    def _made_with(self, image_id: str, model: str | None, names: list[str]) -> tuple[ServedBundle, str]:
        """The bundle that a label map is of, and its version: the named one, that of the image's last result, or the
        first one that has these labels."""
        if not model and not names and len({tuple(one.labels.items()) for one in self.bundles.values()}) > 1:
            raise DataError(
                f"Which of {list(self.bundles)} the label map is of isn't said, and their labels differ: send "
                '"label_info" or "model" in params.'
            )
        last, version = self._made_by.get(image_id, ("", ""))
        order = [model] if model else [last, *self.bundles]
        for bundle in (self.bundles[name] for name in order if name):
            if set(names) <= set(bundle.labels):
                if bundle.name == last:
                    return bundle, version
                weights = bundle.choose_weights()
                return bundle, version_of(bundle, weights.name, sha256_of(weights.path))
        known = {bundle.name: list(bundle.labels) for bundle in self.bundles.values()}
        raise DataError(f"No served bundle has the labels {names}, only {known}: rename the segments.")


def is_url(studies: str) -> bool:
    return studies.startswith(("http://", "https://"))


def version_of(bundle: ServedBundle, weights: str, sha256: str) -> str:
    """What a DICOM object says of the algorithm's version."""
    return f"{bundle.version}, weights {weights} {sha256[:12]}"


def _one(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value
