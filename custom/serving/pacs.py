"""Studies on a PACS by DICOMweb: series become NIfTI in a cache, label maps go back as DICOM SEG."""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from filelock import FileLock

from custom.errors import DataError, MissingDataError
from custom.reading.nifti import save_nifti
from custom.reading.scans import read_scan
from custom.reading.volumes import natural_order, open_volume
from custom.serving.contrasts import ORDER, scan_name
from custom.serving.dicom_seg import read_seg, write_seg
from custom.serving.dicomweb import DicomWeb, PacsError
from custom.serving.grids import save_labels
from custom.serving.studies import Store, check_one

logger = logging.getLogger(__name__)
UID = re.compile(r"[0-9]+(\.[0-9]+)*")


class Pacs(Store):
    """MR series of a DICOMweb server. An image's id is its SeriesInstanceUID.

    Args:
        url: of the server, as http://127.0.0.1:8042/dicom-web.
        cache: a folder for series as NIfTI.
        together: whether the series of a study are labelled as one; else each series is.
        one_meaning: as custom.serving.studies.Store takes it.
        user, password: for HTTP's basic authentication, where the server asks for it.
    """

    def __init__(
        self, url: str, cache: Path, together: bool, one_meaning: bool, user: str = "", password: str = ""
    ) -> None:
        self.together = together
        self.web = DicomWeb(url, user, password)
        self.cache = cache
        self._labels_of: dict[str, str] = {}  # a SEG series: the series that it labels
        self._fetching = FileLock(cache / ".fetching")  # scoring is another process
        super().__init__(str(cache), one_meaning)

    # what there is

    def knows(self, uid: str) -> bool:
        """Whether there is an MR series of this UID."""
        return bool(UID.fullmatch(uid)) and len(uid) <= 64 and self.web.find(uid) is not None

    def list_images(self) -> list[str]:
        return [one["uid"] for one in self.web.all_series("MR")]

    def get_labeled_images(self, label_tag: str | None = None, labels: Any = None) -> list[str]:
        known = set(self.list_images())
        return [
            uid for uid in dict.fromkeys(self._referenced(one) for one in self.web.all_series("SEG")) if uid in known
        ]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: Any = None) -> list[str]:
        """Series without a SEG; where bundles take several contrasts, one for each study, as custom.serving.studies."""
        labelled = set(self.get_labeled_images())
        if not self.together:
            return [uid for uid in self.list_images() if uid not in labelled]
        studies: dict[str, list[dict[str, Any]]] = {}
        for one in self.web.all_series("MR"):
            studies.setdefault(one["study"], []).append(one)
        return [
            min(study, key=self._rank)["uid"]
            for study in studies.values()
            if not labelled & {one["uid"] for one in study}
        ]

    def _rank(self, one: Mapping[str, Any]) -> int:
        return ORDER.index(one["contrast"]) if one["contrast"] in ORDER else len(ORDER)

    def _referenced(self, seg: Mapping[str, Any]) -> str:
        """The series that a SEG series labels; "" where it doesn't say, or no person had a hand in it."""
        uid = seg["uid"]
        if uid not in self._labels_of:
            try:
                dataset = self.web.metadata(seg)
            except PacsError as error:  # one that is broken doesn't hide the others
                logger.warning("The segmentation %s is left out: %s", uid, error)
                return ""
            references = dataset.get("ReferencedSeriesSequence") or [pydicom.Dataset()]
            made_by = {one.get("SegmentAlgorithmType") for one in dataset.get("SegmentSequence") or []}
            labels = "" if made_by == {"AUTOMATIC"} else str(references[0].get("SeriesInstanceUID", ""))
            self._labels_of[uid] = labels
        return self._labels_of[uid]

    def json(self) -> dict[str, Any]:
        """All MR series, and what is kept of those that were opened."""
        content = super().json()
        found = {
            one["uid"]: {"image": {"info": {"SeriesDescription": one["text"]}}} for one in self.web.all_series("MR")
        }
        return content | {"objects": found | content["objects"]}

    # scans

    def get_image_uri(self, image_id: str) -> str:
        """The series as NIfTI in the cache.

        Raises:
            MissingDataError: there is no such MR series.
            DataError: it can't be a brain's MR volume.
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
        """The series' files in the cache, fetched where they aren't there, or the PACS got more since."""
        if not UID.fullmatch(image_id):  # it becomes a path
            raise MissingDataError(f"The PACS has no MR series {image_id[:100]!r}: open the study again.")
        folder = self.cache / "dicom" / image_id
        with self._fetching:
            about = self.web.find(image_id)
            if about is None:
                raise MissingDataError(f"The PACS has no MR series {image_id!r}: open the study again.")
            if folder.is_dir() and about["instances"] in (0, len(list(folder.iterdir()))):  # 0: it doesn't say
                return folder
            instances = self.web.instances(about)
            folder.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
            try:
                for number, one in enumerate(instances):
                    one.save_as(partial / f"{number:05d}.dcm", enforce_file_format=True)
                shutil.rmtree(folder, ignore_errors=True)  # the server's own copy, of fewer slices
                partial.replace(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return folder

    def _datasets(self, image_id: str) -> list[pydicom.Dataset]:
        return [pydicom.dcmread(path) for path in sorted(self.dicom_folder(image_id).iterdir())]

    def files_of(self, image_id: str, channels: Sequence[str | None]) -> list[str]:
        """The series for a bundle that takes any one scan, else the study's series of each contrast.

        A contrast is known by SeriesDescription, or else by ProtocolName (custom.serving.contrasts). The series that
        the viewer shows is taken before others of its contrast.

        Raises:
            MissingDataError: the study lacks a contrast.
            DataError: two of its series could be one contrast.
        """
        if channels == (None,):
            return [self.get_image_uri(image_id)]
        shown = self.web.find(image_id)
        if shown is None:
            raise MissingDataError(f"The PACS has no MR series {image_id!r}: open the study again.")
        everyone = [one for one in self.web.search(study_instance_uid=shown["study"]) if one["modality"] == "MR"]
        uids = []
        for contrast in channels:
            found = [one for one in everyone if one["contrast"] == contrast]
            own = [one for one in found if one["uid"] == image_id]
            texts = [one["text"] for one in own or found]
            check_one(texts, contrast, f"The study of series {image_id}", "describe its series like", "AX")
            uids.append((own or found)[0]["uid"])
        return [self.get_image_uri(uid) for uid in uids]

    def name_of(self, file: str) -> str:
        """The series' description and UID."""
        uid = scan_name(file)
        return f"{(self.web.find(uid) or {}).get('text')} ({uid})"

    def reference(self, image_id: str) -> str:
        """The file on whose grid an image's labels lie."""
        return self.get_image_uri(image_id)

    def person(self, image_id: str) -> str:
        """The PatientID, or the study where there is none."""
        first = self._datasets(image_id)[0]
        return str(first.get("PatientID", "") or first.StudyInstanceUID)

    # labels

    def seg_of(
        self, image_id: str, labels: Path, names: Mapping[str, int], algorithm: str, version: str, algorithm_type: str
    ) -> pydicom.Dataset:
        """A label map on the series' grid as DICOM SEG."""
        image = open_volume(labels)
        voxels = np.asarray(image.dataobj)
        return write_seg(voxels, image.affine, self._datasets(image_id), names, algorithm, version, algorithm_type)

    def store_seg(self, seg: pydicom.Dataset) -> str:
        """Sends a SEG to the PACS; returns its SeriesInstanceUID."""
        self.web.store(seg)
        return str(seg.SeriesInstanceUID)

    def labelled(self, names: Sequence[str]) -> list[tuple[str, str]]:
        """(image id, label map) for the newest SEG of each series that has these labels' names only."""
        codes = {name: code for code, name in enumerate(names, start=1)}
        newest: dict[str, tuple[str, str]] = {}
        for one in self.web.all_series("SEG"):
            image_id = self._referenced(one)
            if image_id not in self.list_images():
                continue
            try:
                for seg in self.web.instances(one):
                    when = f"{seg.get('ContentDate', '')}{seg.get('ContentTime', '')}"
                    if when >= newest.get(image_id, ("",))[0]:
                        newest[image_id] = when, str(self._as_nifti(image_id, seg, codes))
            except DataError as error:  # others' labels, or one that is broken
                logger.warning("The segmentation %s is left out: %s", one["uid"], error)
        return [(one, newest[one][1]) for one in sorted(newest, key=natural_order)]

    def _as_nifti(self, image_id: str, seg: pydicom.Dataset, codes: Mapping[str, int]) -> Path:
        image = open_volume(self.get_image_uri(image_id))
        volume = read_seg(seg, self._datasets(image_id), codes).to_nibabel()
        # both have the axes of the patient along theirs, in some order and direction
        moved = volume.as_reoriented(
            nibabel.orientations.ornt_transform(
                nibabel.io_orientation(volume.affine), nibabel.io_orientation(image.affine)
            )
        )
        return save_labels(np.asarray(moved.dataobj), image.affine, self.cache / "segs" / f"{image_id}.nii.gz")
