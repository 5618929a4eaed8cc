"""Studies on a PACS, by DICOMweb: series are cached as NIfTI, label maps are stored as DICOM SEG."""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from filelock import FileLock
from highdicom.seg import Segmentation

from custom.errors import DataError, MissingDataError
from custom.reading.nifti import save_nifti
from custom.reading.scans import read_scan
from custom.reading.volumes import natural_order, open_volume
from custom.serving.best_series import best_series
from custom.serving.bundles import ServedBundle
from custom.serving.contrasts import ORDER, check_one, scan_name
from custom.serving.dicom_seg import Algorithm, write_seg
from custom.serving.dicom_sr import write_report
from custom.serving.dicomweb import DicomWeb, PacsError
from custom.serving.dimse import Dimse
from custom.serving.grids import save_labels
from custom.serving.seg_reader import read_seg
from custom.serving.studies import Store

logger = logging.getLogger(__name__)
UID = re.compile(r"[0-9]+(\.[0-9]+)*")


class Pacs(Store):
    """MR series of a DICOMweb server. The id of an image is its SeriesInstanceUID.

    Args:
        url: of the server, like http://127.0.0.1:8042/dicom-web.
        cache: a folder for series, as DICOM and NIfTI.
        together: whether the series of a study share one label map; else each series has its own.
        same_labels: as in custom.serving.studies.Store.
        user, password: for HTTP basic authentication, if the server needs it.
        form: of results, see custom.serving.dicom_seg.FORMS.
        store_to: a DICOM node that takes results by C-STORE (custom.serving.dimse); "" for the DICOMweb server.

    Raises:
        ConfigError: an invalid address of the node.
    """

    def __init__(
        self,
        url: str,
        cache: Path,
        together: bool,
        same_labels: bool,
        user: str = "",
        password: str = "",
        form: str = "seg",
        store_to: str = "",
    ) -> None:
        self.together = together
        self.form = form
        self.node = Dimse(store_to) if store_to else None
        self.web = DicomWeb(url, user, password)
        self.cache = cache
        self._labels_of: dict[str, str] = {}  # SEG series: the series that it labels
        self._fetching = FileLock(cache / ".fetching")  # scoring is another process
        super().__init__(str(cache), same_labels)

    # images

    def knows(self, uid: str) -> bool:
        """Whether the PACS has an MR series with this UID."""
        return bool(UID.fullmatch(uid)) and len(uid) <= 64 and self.web.find(uid) is not None

    def best_series(self, study: str) -> tuple[str, str]:
        """The UID of a study's best series (custom.serving.best_series), and a sentence that names it.

        Raises:
            MissingDataError: no such study, or none of its series is T1, T2 or FLAIR.
        """
        if not UID.fullmatch(study) or len(study) > 64:
            raise MissingDataError(f"The PACS has no study {study[:100]!r}. Open it again.")
        in_study = [series for series in self.web.search(study_instance_uid=study) if series["modality"] == "MR"]
        if not in_study:
            raise MissingDataError(f"The PACS has no MR series or study {study!r}. Open it again.")
        series, reason = best_series(in_study, self.web.metadata)
        logger.info(reason)
        return str(series["uid"]), reason

    def list_images(self) -> list[str]:
        """The UIDs of all MR series."""
        return [series["uid"] for series in self.web.all_series("MR")]

    def get_labeled_images(self, label_tag: str | None = None, labels: Any = None) -> list[str]:  # noqa: ARG002
        """The UIDs of MR series with a SEG that a person made or accepted."""
        known = set(self.list_images())
        referenced = dict.fromkeys(self._referenced(seg) for seg in self.web.all_series("SEG"))
        return [uid for uid in referenced if uid in known]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: Any = None) -> list[str]:  # noqa: ARG002
        """The UIDs of series without a SEG; if bundles take several contrasts, of one series for each study."""
        labelled = set(self.get_labeled_images())
        if not self.together:
            return [uid for uid in self.list_images() if uid not in labelled]
        studies: dict[str, list[dict[str, Any]]] = {}
        for series in self.web.all_series("MR"):
            studies.setdefault(series["study"], []).append(series)
        return [
            min(study, key=self._rank)["uid"]
            for study in studies.values()
            if not labelled & {series["uid"] for series in study}
        ]

    def _rank(self, series: Mapping[str, Any]) -> int:
        return ORDER.index(series["contrast"]) if series["contrast"] in ORDER else len(ORDER)

    def _referenced(self, seg: Mapping[str, Any]) -> str:
        """The series that a SEG series labels; "" if it does not say, or if no person has reviewed it (AUTOMATIC)."""
        uid = seg["uid"]
        if uid not in self._labels_of:
            try:
                dataset = self.web.metadata(seg)
            except PacsError as error:  # a broken SEG does not hide the others
                logger.warning("The segmentation %s is left out: %s", uid, error)
                return ""
            references = dataset.get("ReferencedSeriesSequence") or [pydicom.Dataset()]
            types = {segment.get("SegmentAlgorithmType") for segment in dataset.get("SegmentSequence") or []}
            labels = "" if types == {"AUTOMATIC"} else str(references[0].get("SeriesInstanceUID", ""))
            self._labels_of[uid] = labels
        return self._labels_of[uid]

    def json(self) -> dict[str, Any]:
        """All MR series, and what is stored about the series that were opened."""
        content = super().json()
        objects = {
            series["uid"]: {"image": {"info": {"SeriesDescription": series["text"]}}}
            for series in self.web.all_series("MR")
        }
        return content | {"objects": objects | content["objects"]}

    # scans

    def get_image_uri(self, image_id: str) -> str:
        """The series as NIfTI in the cache.

        Raises:
            MissingDataError: the PACS has no such MR series.
            DataError: the series is not a volume of a brain.
        """
        target = self.cache / f"{image_id}.nii.gz"
        with self._fetching:
            folder = self.dicom_folder(image_id)
            slices = len(list(folder.iterdir()))
            if not target.is_file() or self.get_image_info(image_id).get("instances") != slices:
                voxels, affine, warnings = read_scan(folder)
                save_nifti(voxels, affine, target)
                self.refresh()
                study = (self.web.find(image_id) or {}).get("study")
                self.update_image_info(image_id, {"warnings": warnings, "StudyInstanceUID": study, "instances": slices})
        return str(target)

    def dicom_folder(self, image_id: str) -> Path:
        """The series' files in the cache. They are fetched if they are missing, or if the PACS has more slices now."""
        if not UID.fullmatch(image_id):  # the id becomes a path
            raise MissingDataError(f"The PACS has no MR series {image_id[:100]!r}. Open the study again.")
        folder = self.cache / "dicom" / image_id
        with self._fetching:
            series = self.web.find(image_id)
            if series is None:
                raise MissingDataError(f"The PACS has no MR series {image_id!r}. Open the study again.")
            if folder.is_dir() and series["instances"] in (0, len(list(folder.iterdir()))):  # 0: unknown
                return folder
            instances = self.web.instances(series)
            folder.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
            try:
                for number, instance in enumerate(instances):
                    instance.save_as(partial / f"{number:05d}.dcm", enforce_file_format=True)
                shutil.rmtree(folder, ignore_errors=True)  # an older copy with fewer slices
                partial.replace(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return folder

    def _datasets(self, image_id: str) -> list[pydicom.Dataset]:
        return [pydicom.dcmread(path) for path in sorted(self.dicom_folder(image_id).iterdir())]

    def files_of(self, image_id: str, channels: Sequence[str | None]) -> list[str]:
        """The series itself for a bundle that takes any single scan, else the study's series of each contrast.

        The contrast is read from SeriesDescription, or else from ProtocolName (custom.serving.contrasts). The series
        that the viewer shows is preferred to others of its contrast.

        Raises:
            MissingDataError: no such series, or the study lacks a contrast.
            DataError: two series of the study have the same contrast.
        """
        if channels == (None,):
            return [self.get_image_uri(image_id)]
        shown = self.web.find(image_id)
        if shown is None:
            raise MissingDataError(f"The PACS has no MR series {image_id!r}. Open the study again.")
        in_study = self.web.search(study_instance_uid=shown["study"])
        mr_series = [series for series in in_study if series["modality"] == "MR"]
        uids = []
        for contrast in channels:
            matches = [series for series in mr_series if series["contrast"] == contrast]
            matches = [series for series in matches if series["uid"] == image_id] or matches
            descriptions = [series["text"] for series in matches]
            advice = f"Describe its series like 'AX {contrast}'"
            check_one(descriptions, contrast, f"The study of series {image_id}", advice)
            uids.append(matches[0]["uid"])
        return [self.get_image_uri(uid) for uid in uids]

    def name_of(self, file: str) -> str:
        """The series' description and UID."""
        uid = scan_name(file)
        return f"{(self.web.find(uid) or {}).get('text')} ({uid})"

    def reference(self, image_id: str) -> str:
        """The file on whose grid the label maps of an image are."""
        return self.get_image_uri(image_id)

    def person(self, image_id: str) -> str:
        """The PatientID; the StudyInstanceUID if there is none."""
        first = self._datasets(image_id)[0]
        return str(first.get("PatientID", "") or first.StudyInstanceUID)

    # label maps

    def seg_of(self, image_id: str, labels: Path, names: Mapping[str, int], algorithm: Algorithm) -> Segmentation:
        """A label map on the grid of its series as DICOM SEG; see custom.serving.dicom_seg.write_seg."""
        image = open_volume(labels)
        voxels = np.asarray(image.dataobj)
        return write_seg(voxels, image.affine, self._datasets(image_id), names, algorithm, self.form)

    def seg_of_result(
        self, image_id: str, labels: Path, bundle: ServedBundle, params: Mapping[str, Any]
    ) -> Segmentation:
        """A result of custom.serving.segmentation.SegmentationTask, which no person has reviewed, as DICOM SEG."""
        algorithm = Algorithm(bundle.name, bundle.version_of(params), "AUTOMATIC")
        return self.seg_of(image_id, labels, bundle.labels, algorithm)

    def store_results(self, image_id: str, seg: Segmentation) -> dict[str, str]:
        """Sends a SEG and the report of its volumes to the PACS, or to the node that takes results.

        Returns:
            {"SeriesInstanceUID": that of the SEG, "ReportSeriesInstanceUID": that of the report}.

        Raises:
            PacsError: one of them was not stored.
        """
        report = write_report(seg, self._datasets(image_id))
        for instance in (seg, report):
            (self.node or self.web).store(instance)
            self.web.forget(str(instance.Modality))
        return {
            "SeriesInstanceUID": str(seg.SeriesInstanceUID),
            "ReportSeriesInstanceUID": str(report.SeriesInstanceUID),
        }

    def labelled(self, names: Mapping[str, int]) -> list[tuple[str, str]]:
        """(image id, path) of the newest SEG of each series, as NIfTI, if it has only these labels, {"CSF": 1, ...}."""
        newest: dict[str, tuple[str, str]] = {}
        for series in self.web.all_series("SEG"):
            image_id = self._referenced(series)
            if image_id not in self.list_images():
                continue
            try:
                for seg in self.web.instances(series):
                    when = f"{seg.get('ContentDate', '')}{seg.get('ContentTime', '')}"
                    if when >= newest.get(image_id, ("",))[0]:
                        newest[image_id] = when, str(self._as_nifti(image_id, seg, names))
            except DataError as error:  # other labels, or a broken SEG
                logger.warning("The segmentation %s is left out: %s", series["uid"], error)
        return [(image_id, newest[image_id][1]) for image_id in sorted(newest, key=natural_order)]

    def _as_nifti(self, image_id: str, seg: pydicom.Dataset, codes: Mapping[str, int]) -> Path:
        image = open_volume(self.get_image_uri(image_id))
        labels = read_seg(seg, self._datasets(image_id), codes)
        return save_labels(np.asarray(labels.dataobj), image.affine, self.cache / "segs" / f"{image_id}.nii.gz")
