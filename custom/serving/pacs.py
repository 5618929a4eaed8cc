"""Studies on a PACS by DICOMweb: series become NIfTI in a cache, label maps go back as DICOM SEG."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import requests
from dicomweb_client.session_utils import create_session_from_user_pass
from filelock import FileLock
from monailabel.datastore.dicom import DICOMwebClientX
from requests.adapters import HTTPAdapter

from custom.errors import DataError, MissingDataError
from custom.files import written_whole
from custom.scans import read_scan
from custom.serving.contrasts import ORDER, contrast_of
from custom.serving.dicom_seg import read_seg, write_seg
from custom.serving.grids import save_labels
from custom.serving.studies import Store, check_one
from custom.volumes import natural_order, open_volume

logger = logging.getLogger(__name__)
UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_KEPT = 10  # seconds that a list of series is taken as it was
_FIELDS = ("SeriesDescription", "ProtocolName", "Modality", "NumberOfSeriesRelatedInstances")


class PacsError(DataError):
    """The PACS doesn't do what DICOMweb asks of it."""


class _Patient(HTTPAdapter):
    """Waits for a PACS this long and no longer: 10 s for a connection, 5 minutes for its next byte."""

    def send(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs["timeout"] = kwargs.get("timeout") or (10, 300)
        return super().send(request, *args, **kwargs)


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
        session = create_session_from_user_pass(user, password) if user else requests.Session()
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Patient())
        session.max_redirects = 0  # studies go to nobody whom the user didn't name
        self.client = DICOMwebClientX(url=url, session=session)
        self.client.set_http_retry_params(retry=False)  # half a minute of trying again, before a person is told
        self.cache = cache
        self._lists: dict[str, tuple[float, list[dict[str, Any]]]] = {}
        self._labels_of: dict[str, str] = {}  # a SEG series: the series that it labels
        self._fetching = FileLock(cache / ".fetching")  # scoring is another process
        super().__init__(str(cache), one_meaning)

    # what there is

    def _series(self, modality: str) -> list[dict[str, Any]]:
        """{"uid", "study", "text"} of all series of a modality."""
        when, found = self._lists.get(modality, (0.0, []))
        if time.monotonic() - when > _KEPT or not when:
            found = self._search(search_filters={"Modality": modality})
            self._lists[modality] = time.monotonic(), found
        return found

    def _search(self, **arguments: Any) -> list[dict[str, Any]]:
        with self.asked("list its series"):
            answer = self.client.search_for_series(fields=list(_FIELDS), **arguments)
            given = arguments.get("study_instance_uid", "")  # a PACS needn't repeat what it was asked for
            return [_described(pydicom.Dataset.from_json(one), given) for one in answer]

    @contextlib.contextmanager
    def asked(self, what: str) -> Iterator[None]:
        """Raises PacsError where the PACS fails at it, or answers with what is no DICOM."""
        try:
            yield
        except requests.ConnectionError as error:
            reason = type(error).__name__
            raise PacsError(f"The PACS {self.client.base_url} doesn't answer ({reason}): start it.") from error
        except Exception as error:  # the client fails in many ways at what is no DICOM
            raise PacsError(
                f"The PACS {self.client.base_url} couldn't {what} ({type(error).__name__}: {str(error)[:200]}): look "
                "at its log."
            ) from error

    def knows(self, uid: str) -> bool:
        """Whether there is an MR series of this UID."""
        return bool(UID.fullmatch(uid)) and len(uid) <= 64 and self._find(uid) is not None

    def _find(self, uid: str) -> dict[str, Any] | None:
        for one in self._series("MR"):
            if one["uid"] == uid:
                return one
        found = [one for one in self._search(search_filters={"SeriesInstanceUID": uid}) if one["uid"] == uid]
        return found[0] if found and found[0]["modality"] == "MR" else None

    def list_images(self) -> list[str]:
        return [one["uid"] for one in self._series("MR")]

    def get_labeled_images(self, label_tag: str | None = None, labels: Any = None) -> list[str]:
        known = set(self.list_images())
        return [uid for uid in dict.fromkeys(self._referenced(one) for one in self._series("SEG")) if uid in known]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: Any = None) -> list[str]:
        """Series without a SEG; where bundles take several contrasts, one for each study, as custom.serving.studies."""
        labelled = set(self.get_labeled_images())
        if not self.together:
            return [uid for uid in self.list_images() if uid not in labelled]
        studies: dict[str, list[dict[str, Any]]] = {}
        for one in self._series("MR"):
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
                with self.asked(f"describe the series {uid}"):
                    metadata = self.client.retrieve_series_metadata(seg["study"], uid)
                    dataset = pydicom.Dataset.from_json(metadata[0])
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
        found = {one["uid"]: {"image": {"info": {"SeriesDescription": one["text"]}}} for one in self._series("MR")}
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
                voxels, affine, odd = read_scan(folder)
                save_scan(voxels, affine, target)
                self.refresh()
                study = (self._find(image_id) or {}).get("study")
                self.update_image_info(image_id, {"odd": odd, "StudyInstanceUID": study, "instances": slices})
        return str(target)

    def dicom_folder(self, image_id: str) -> Path:
        """The series' files in the cache, fetched where they aren't there, or the PACS got more since."""
        if not UID.fullmatch(image_id):  # it becomes a path
            raise MissingDataError(f"The PACS has no MR series {image_id[:100]!r}: open the study again.")
        folder = self.cache / "dicom" / image_id
        with self._fetching:
            about = self._find(image_id)
            if about is None:
                raise MissingDataError(f"The PACS has no MR series {image_id!r}: open the study again.")
            if folder.is_dir() and len(list(folder.iterdir())) == (about["instances"] or len(list(folder.iterdir()))):
                return folder
            with self.asked(f"send the series {image_id}"):
                instances = self.client.retrieve_series(about["study"], image_id)
            if not instances:
                raise PacsError(f"The PACS sent nothing of the series {image_id}: look at its log.")
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
        shown = self._find(image_id)
        if shown is None:
            raise MissingDataError(f"The PACS has no MR series {image_id!r}: open the study again.")
        everyone = [one for one in self._search(study_instance_uid=shown["study"]) if one["modality"] == "MR"]
        uids = []
        for contrast in channels:
            found = [one for one in everyone if one["contrast"] == contrast]
            own = [one for one in found if one["uid"] == image_id]
            texts = [one["text"] for one in own or found]
            check_one(texts, contrast, f"The study of series {image_id}", "describe its series like", "AX")
            uids.append((own or found)[0]["uid"])
        return [self.get_image_uri(uid) for uid in uids]

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
        """Sends a SEG to the PACS by STOW-RS; returns its SeriesInstanceUID.

        Raises:
            PacsError: the PACS refused it.
        """
        with self.asked("take the segmentation"):
            answer = self.client.store_instances([seg])
        if answer.get("FailedSOPSequence"):
            raise PacsError(f"The PACS {self.client.base_url} refused the segmentation: look at its log.")
        self._lists.pop("SEG", None)
        return str(seg.SeriesInstanceUID)

    def labelled(self, names: Sequence[str]) -> list[tuple[str, str]]:
        """(image id, label map) for the newest SEG of each series that has these labels' names only."""
        codes = {name: code for code, name in enumerate(names, start=1)}
        segs: list[tuple[str, str, pydicom.Dataset]] = []
        for one in self._series("SEG"):
            image_id = self._referenced(one)
            if image_id in self.list_images():
                try:
                    with self.asked(f"send the segmentation {one['uid']}"):
                        found = self.client.retrieve_series(one["study"], one["uid"])
                except PacsError as error:
                    logger.warning("The segmentation %s is left out: %s", one["uid"], error)
                    continue
                segs += [(image_id, f"{seg.get('ContentDate', '')}{seg.get('ContentTime', '')}", seg) for seg in found]
        newest: dict[str, str] = {}
        for image_id, _, seg in sorted(segs, key=lambda one: one[1]):  # the newest of these labels is the last
            try:
                newest[image_id] = str(self._as_nifti(image_id, seg, codes))
            except DataError as error:
                logger.warning("The segmentation %s is left out: %s", seg.SeriesInstanceUID, error)
        return sorted(newest.items(), key=lambda pair: natural_order(pair[0]))

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


def _described(one: pydicom.Dataset, study: str = "") -> dict[str, Any]:
    texts = [str(one.get(name, "") or "") for name in _FIELDS[:2]]
    return {
        "uid": str(one.SeriesInstanceUID),
        "study": str(one.get("StudyInstanceUID", study)),
        "instances": int(one.get("NumberOfSeriesRelatedInstances", 0) or 0),
        "modality": str(one.get("Modality", "")),
        "text": next((text for text in texts if text), "no description"),
        "contrast": next((found for text in texts if (found := contrast_of(text))), None),
    }


def save_scan(voxels: np.ndarray, affine: np.ndarray, target: Path) -> None:
    """Writes a scan as NIfTI, whole or not at all."""
    image = nibabel.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    with written_whole(target, own=True) as partial:
        nibabel.save(image, partial)
