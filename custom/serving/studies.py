"""Studies on disk: a folder of NIfTI files, in which files that share a name but for the contrast are one study."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from monailabel.datastore.local import DataModel, LocalDatastore

from custom.errors import ConfigError, DataError, MissingDataError
from custom.files import set_aside, written_whole
from custom.reading.scans import RESULTS
from custom.reading.volumes import natural_order, participant_of
from custom.serving.contrasts import ORDER, scan_name, study_and_contrast

logger = logging.getLogger(__name__)
PATTERNS = ("*.nii.gz", "*.nii")


class Store(LocalDatastore):
    """MONAI Label's datastore for several threads and processes (scoring and batch inference are others).

    A change starts from what the file says by then; files are written whole, and earlier labels are kept.

    Args:
        folder: of images, labels/<tag> and the datastore's own file.
        one_meaning: whether all served bundles have the same labels, so that a label map that a user put there, of
            which nobody said what its values are, can be used.

    Raises:
        ConfigError: the folder can't be written to, or its datastore's file can't be read.
    """

    def __init__(self, folder: str, one_meaning: bool) -> None:
        self.one_meaning = one_meaning
        self._threads = threading.RLock()  # requests run in threads
        self._processes = FileLock(Path(folder) / ".changing")  # another one than MONAI Label's, which isn't reentrant
        try:
            super().__init__(folder, extensions=PATTERNS, auto_reload=False)
        except ValueError as error:
            broken = Path(folder) / "datastore_v2.json"
            raise ConfigError(f"{broken} can't be read ({error}): mend it or move it away; labels stay.") from error
        except OSError as error:
            raise ConfigError(f"{folder} can't be written to ({error}): labels are kept there.") from error

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        with self._threads, self._processes:
            self._init_from_datastore_file()
            yield

    def _update_datastore_file(self, lock: bool = True) -> None:
        content = json.dumps(self._datastore.model_dump(exclude={"base_path"}), indent=2, default=str)
        with written_whole(self._datastore_config_path, own=True) as partial:
            partial.write_text(content, encoding="utf-8")
        self._config_ts = Path(self._datastore_config_path).stat().st_mtime

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """As MONAI Label's; the label map that was there moves to earlier/ beside it."""
        folder, ending = Path(self._datastore.label_path(label_tag)), self._to_id(Path(label_filename).name)[1]
        with self._change():
            if image_id not in self._datastore.objects:
                raise MissingDataError(f"There is no image {image_id!r}: /datastore/?output=all lists them.")
            with written_whole(folder / f"{image_id}{ending}", own=True) as partial:
                shutil.copy(label_filename, partial)
                set_aside(folder, [image_id + one for one in (".nii.gz", ".nii", ".nrrd")])
            info = label_info | {"ts": int(time.time()), "name": f"{image_id}{ending}"}
            self._datastore.objects[image_id].labels[label_tag] = DataModel(info=info, ext=ending)
            self._update_datastore_file()
        return image_id

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        folder, ending = Path(self._datastore_path), self._to_id(Path(image_filename).name)[1]
        with self._change():
            if any(os.path.lexists(folder / f"{image_id}{one}") for one in (".nii.gz", ".nii")):  # two uploads at once
                raise DataError(f"There is an image {image_id!r} already: give another name, nothing is overwritten.")
            with written_whole(folder / f"{image_id}{ending}", own=True) as partial:
                shutil.copy(image_filename, partial)
            self.refresh()
        return image_id

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        with self._change():
            super().update_image_info(image_id, info)

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        with self._change():
            super().update_label_info(label_id, label_tag, info)

    def refresh(self) -> None:
        with self._change():
            super().refresh()

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        with self._change():
            return super().get_image_info(image_id)

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        with self._change():
            return super().get_label_info(label_id, label_tag)

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        with self._change():
            return super().get_label_uri(label_id, label_tag)

    def json(self) -> dict[str, Any]:
        with self._change():
            return super().json()

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        with self._change():
            return super().datalist(full_path)

    def status(self) -> dict[str, Any]:
        with self._threads:
            tags = Counter(tag for one in self._datastore.objects.values() for tag in one.labels)
        return {"total": len(self.list_images()), "completed": len(self.get_labeled_images()), "label_tags": tags}

    def name_of(self, file: str) -> str:
        """What a person knows a scan of `files_of` by."""
        return Path(file).name

    def person(self, image_id: str) -> str:
        """Who an image is of: a training must not validate on whom it learned from."""
        return image_id

    def labelled(self, names: Sequence[str]) -> list[tuple[str, str]]:
        """(image id, its final label map's path) of the images that have one with these labels' names."""
        found = []
        for image_id in sorted(self.get_labeled_images(), key=natural_order):
            label, info = self.get_label_uri(image_id, "final"), self.get_label_info(image_id, "final").get("labels")
            if info is None and not self.one_meaning:  # a file that a user put there
                logger.warning("%s is left out: what its values mean isn't said, and models differ in it.", label)
            elif info is None or list(info) == list(names):
                found.append((image_id, label))
        return found


class Studies(Store):
    """A folder of NIfTI files.

    One image stands for a study: the file of the first contrast that it has (custom.serving.contrasts.ORDER). Its other
    files are found when a bundle asks for them. Labels lie in labels/<tag>/<image id>.nii.gz.

    Args:
        folder: the studies.
        together: whether files that share a name are one study; else each file is one.
        one_meaning: as Store takes it.
    """

    def __init__(self, folder: str, together: bool, one_meaning: bool) -> None:
        self.folder = Path(folder)
        self.together = together
        super().__init__(folder, one_meaning)
        self._seen: tuple[int, ...] = ()
        self._listed: set[str] = set()

    def _list_files(self, path: str, patterns: Sequence[str]) -> dict[str, str]:
        files = super()._list_files(path, patterns)
        if Path(path).resolve() != self.folder.resolve():
            return files
        kept = {name for name in files if not name.startswith(".") and not RESULTS.search(scan_name(name))}
        if self.together:
            kept = {self._reference(group) for group in self._grouped(kept).values()}
        return {name: name for name in sorted(kept, key=natural_order)}

    @staticmethod
    def _grouped(names: set[str]) -> dict[str, dict[str | None, str]]:
        studies: dict[str, dict[str | None, str]] = {}
        for name in sorted(names):
            study, contrast = study_and_contrast(name)
            studies.setdefault(study, {}).setdefault(contrast, name)
        return studies

    @staticmethod
    def _reference(group: dict[str | None, str]) -> str:
        return next((group[one] for one in ORDER if one in group), next(iter(group.values())))

    def list_images(self) -> list[str]:
        """The images' ids; the folder is read again where something changed in it."""
        with self._threads:
            places = (self.folder, *(self.folder / "labels" / tag for tag in ("final", "original")))
            now = tuple(place.stat().st_mtime_ns for place in places if place.is_dir())
            if now != self._seen:
                self.refresh()
                self._listed = {self._to_id(name)[0] for name in self._list_files(str(self.folder), PATTERNS)}
                self._seen = now
            # the file also has those that other bundles listed
            return [one for one in super().list_images() if one in self._listed]

    def get_labeled_images(self, label_tag: str | None = None, labels: Any = None) -> list[str]:
        listed = self.list_images()
        with self._threads:
            return [one for one in super().get_labeled_images(label_tag, labels) if one in listed]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: Any = None) -> list[str]:
        listed = self.list_images()
        with self._threads:
            return [one for one in super().get_unlabeled_images(label_tag, labels) if one in listed]

    def json(self) -> dict[str, Any]:
        listed, content = self.list_images(), super().json()
        return content | {"objects": {one: about for one, about in content["objects"].items() if one in listed}}

    def files_of(self, image_id: str, channels: Sequence[str | None]) -> list[str]:
        """The image's file for a bundle that takes any one scan, else the study's file of each contrast.

        Raises:
            MissingDataError: the study lacks a contrast.
            DataError: two of its files are of one.
        """
        own = self.get_image_uri(image_id)
        if not own:
            raise MissingDataError(f"There is no image {image_id!r}: ask for the list with /datastore/?output=all.")
        if channels == (None,):
            return [own]
        study, _ = study_and_contrast(own)
        found: dict[str | None, list[str]] = {}
        for path in (path for pattern in PATTERNS for path in sorted(self.folder.glob(pattern))):
            other, contrast = study_and_contrast(path)
            if other == study and not RESULTS.search(scan_name(path)):
                found.setdefault(contrast, []).append(str(path))
        for contrast in channels:
            check_one(found.get(contrast, []), contrast, f"The study {study}", "name files like", study)
        return [found[contrast][0] for contrast in channels]

    def person(self, image_id: str) -> str:
        """sub-01 for BIDS names, else the study."""
        return participant_of(study_and_contrast(self.get_image_uri(image_id))[0])

    def reference(self, image_id: str) -> str:
        """The file on whose grid an image's labels lie."""
        return str(self.get_image_uri(image_id))


def check_one(found: Sequence[str], contrast: str | None, study: str, remedy: str, example: str) -> None:
    """Raises where a study hasn't exactly one scan of a contrast."""
    if not found:
        raise MissingDataError(f"{study} has no {contrast}: this model needs it ({remedy} {example}_{contrast}).")
    if len(found) > 1:
        names = ", ".join(sorted(Path(one).name for one in found))
        raise DataError(f"{study} has {len(found)} scans that could be its {contrast} ({names}): keep or rename one.")
