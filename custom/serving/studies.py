"""Studies on disk: a folder of NIfTI files, in which files that share a name but for the contrast are one study."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monailabel.datastore.local import LocalDatastore

from custom.datasets.msd import person
from custom.errors import DataError, MissingDataError
from custom.files import set_aside, written_whole
from custom.scans import RESULTS
from custom.serving.contrasts import scan_name, study_and_contrast
from custom.volumes import natural_order

PATTERNS = ("*.nii.gz", "*.nii")


class Store(LocalDatastore):
    """MONAI Label's datastore for several threads; its own file is written whole, and earlier labels are kept."""

    def __init__(self, folder: str) -> None:
        self._changing = threading.RLock()  # requests run in threads
        super().__init__(folder, extensions=PATTERNS, auto_reload=False)

    def _update_datastore_file(self, lock: bool = True) -> None:
        content = json.dumps(self._datastore.model_dump(exclude={"base_path"}), indent=2, default=str)
        with written_whole(self._datastore_config_path, own=True) as partial:
            partial.write_text(content, encoding="utf-8")
        self._config_ts = Path(self._datastore_config_path).stat().st_mtime

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """As MONAI Label's; the label map that was there moves to earlier/ beside it."""
        with self._changing:
            folder = Path(self._datastore.label_path(label_tag))
            set_aside(folder, [image_id + ending for ending in (".nii.gz", ".nii", ".nrrd")])
            return super().save_label(image_id, label_filename, label_tag, label_info)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        with self._changing:
            super().update_image_info(image_id, info)

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        with self._changing:
            super().update_label_info(label_id, label_tag, info)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        with self._changing:
            places = (Path(self._datastore_path) / f"{image_id}{ending}" for ending in (".nii.gz", ".nii"))
            if any(os.path.lexists(place) for place in places):  # two uploads at once
                raise DataError(f"There is an image {image_id!r} already: give another name, nothing is overwritten.")
            return super().add_image(image_id, image_filename, image_info)

    def refresh(self) -> None:
        with self._changing:
            super().refresh()

    def status(self) -> dict[str, Any]:
        with self._changing:
            return super().status()

    def json(self) -> dict[str, Any]:
        with self._changing:
            return super().json()

    def person(self, image_id: str) -> str:
        """Who an image is of: a training must not validate on whom it learned from."""
        return image_id

    def labelled(self, names: Sequence[str]) -> list[tuple[str, str]]:
        """(image id, its final label map's path) of the images that have one with these labels' names."""
        found = []
        for image_id, label in self._final_labels():
            info = self.get_label_info(image_id, "final").get("labels")  # None for a file that a user put there
            if info is None or list(info) == list(names):
                found.append((image_id, label))
        return found

    def _final_labels(self) -> list[tuple[str, str]]:
        return [(one, self.get_label_uri(one, "final")) for one in sorted(self.get_labeled_images(), key=natural_order)]


class Studies(Store):
    """A folder of NIfTI files.

    One image stands for a study: the file of the first contrast in `order` that it has. Its other files are found when
    a bundle asks for them. Labels lie in labels/<tag>/<image id>.nii.gz.

    Args:
        folder: the studies.
        order: contrasts, as the served bundles take them; empty where each file is a study.
    """

    def __init__(self, folder: str, order: Sequence[str]) -> None:
        self.folder = Path(folder)
        self.order = tuple(order)
        super().__init__(folder)
        self._seen: tuple[int, ...] = ()

    def _list_files(self, path: str, patterns: Sequence[str]) -> dict[str, str]:
        files = super()._list_files(path, patterns)
        if Path(path).resolve() != self.folder.resolve():
            return files
        kept = {name for name in files if not name.startswith(".") and not RESULTS.search(scan_name(name))}
        if self.order:
            kept = {self._reference(group) for group in self._grouped(kept).values()}
        return {name: name for name in sorted(kept, key=natural_order)}

    @staticmethod
    def _grouped(names: set[str]) -> dict[str, dict[str | None, str]]:
        studies: dict[str, dict[str | None, str]] = {}
        for name in sorted(names):
            study, contrast = study_and_contrast(name)
            studies.setdefault(study, {}).setdefault(contrast, name)
        return studies

    def _reference(self, group: dict[str | None, str]) -> str:
        return next((group[one] for one in self.order if one in group), next(iter(group.values())))

    def list_images(self) -> list[str]:
        """The images' ids; the folder is read again where something changed in it."""
        with self._changing:
            places = (self.folder, *(self.folder / "labels" / tag for tag in ("final", "original")))
            now = tuple(place.stat().st_mtime_ns for place in places if place.is_dir())
            if now != self._seen:
                self.refresh()
                self._seen = now
            return super().list_images()

    def get_labeled_images(self, label_tag: str | None = None, labels: Any = None) -> list[str]:
        self.list_images()
        return super().get_labeled_images(label_tag, labels)

    def get_unlabeled_images(self, label_tag: str | None = None, labels: Any = None) -> list[str]:
        self.list_images()
        return super().get_unlabeled_images(label_tag, labels)

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
        return person(study_and_contrast(self.get_image_uri(image_id))[0])

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
