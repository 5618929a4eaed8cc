"""Studies on disk: a folder of NIfTI files. Files whose names differ only in the contrast are one study."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from monailabel.datastore.local import DataModel, LocalDatastore

from custom.errors import ConfigError, DataError, MissingDataError
from custom.files import keep_earlier, remove_leftovers, written_whole
from custom.reading.scans import RESULTS
from custom.reading.volumes import natural_order, participant_of
from custom.serving.contrasts import ORDER, check_one, scan_name, study_and_contrast

logger = logging.getLogger(__name__)
PATTERNS = ("*.nii.gz", "*.nii")


class Store(LocalDatastore):
    """MONAI Label's datastore, safe for several threads and processes (scoring and batch inference are processes).

    Each change first reads the datastore's file again. Files are replaced in one step, and earlier labels are kept.

    Args:
        folder: for images, labels/<tag> and the datastore's own file.
        same_labels: whether all served bundles have the same labels, so that a label map without names, which a user
            put into the folder, can be used.

    Raises:
        ConfigError: the folder is not writable, or the datastore's file is broken.
    """

    def __init__(self, folder: str, same_labels: bool) -> None:
        self.same_labels = same_labels
        self._threads = threading.RLock()  # requests run in threads
        self._processes = FileLock(Path(folder) / ".changing")  # not MONAI Label's own lock, which is not reentrant
        try:
            super().__init__(folder, extensions=PATTERNS, auto_reload=False)
        except ValueError as error:
            broken = Path(folder) / "datastore_v2.json"
            raise ConfigError(
                f"{broken} is broken ({error}). Repair it, or move it away: the label maps stay."
            ) from error
        except OSError as error:
            raise ConfigError(
                f"Cannot write to {folder} ({error}), where label maps are saved. Make the folder writable."
            ) from error
        for place in (Path(folder), *Path(folder).glob("labels/*")):
            remove_leftovers(place)  # of a server that was killed

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        with self._threads, self._processes:
            self._init_from_datastore_file()
            yield

    def _update_datastore_file(self, lock: bool = True) -> None:  # noqa: ARG002
        content = self._datastore.model_dump_json(exclude={"base_path"}, indent=2, fallback=str)
        with written_whole(self._datastore_config_path) as partial:
            partial.write_text(content, encoding="utf-8")
        self._config_ts = Path(self._datastore_config_path).stat().st_mtime

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Saves a label map and returns its id, that of the image. An older label map is kept in earlier/.

        Raises:
            MissingDataError: no such image.
        """
        folder, ending = Path(self._datastore.label_path(label_tag)), self._to_id(Path(label_filename).name)[1]
        with self._change():
            if image_id not in self._datastore.objects:
                raise MissingDataError(
                    f"The studies have no image {image_id!r}. /datastore/?output=all lists all images."
                )
            names = [image_id + other for other in (".nii.gz", ".nii", ".nrrd")]
            with written_whole(folder / f"{image_id}{ending}") as partial:
                shutil.copy(label_filename, partial)
                keep_earlier(folder, names)
            for name in set(names) - {f"{image_id}{ending}"}:
                (folder / name).unlink(missing_ok=True)
            info = label_info | {"ts": int(time.time()), "name": f"{image_id}{ending}"}
            self._datastore.objects[image_id].labels[label_tag] = DataModel(info=info, ext=ending)
            self._update_datastore_file()
        return image_id

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:  # noqa: ARG002
        """Copies a file into the studies and returns its id. Raises DataError if the image exists already."""
        folder, ending = Path(self._datastore_path), self._to_id(Path(image_filename).name)[1]
        with self._change():
            if any(
                os.path.lexists(folder / f"{image_id}{other}") for other in (".nii.gz", ".nii")
            ):  # two uploads at once
                raise DataError(f"The image {image_id!r} exists already, and nothing is overwritten. Use another name.")
            with written_whole(folder / f"{image_id}{ending}") as partial:
                shutil.copy(image_filename, partial)
            self.refresh()
        return image_id

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Adds to what is stored about an image."""
        with self._change():
            super().update_image_info(image_id, info)

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Adds to what is stored about a label map."""
        with self._change():
            super().update_label_info(label_id, label_tag, info)

    def refresh(self) -> None:
        """Reads the folder again."""
        with self._change():
            super().refresh()

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """What is stored about an image."""
        with self._change():
            return dict(super().get_image_info(image_id))

    def get_infos(self, images: Sequence[str]) -> dict[str, dict[str, Any]]:
        """{image id: what is stored about it}, for many images in one step."""
        with self._change():
            objects = self._datastore.objects
            return {name: dict(objects[name].image.info) if name in objects else {} for name in images}

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        """What is stored about a label map."""
        with self._change():
            return dict(super().get_label_info(label_id, label_tag))

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """The file of a label map; "" if there is none."""
        with self._change():
            return str(super().get_label_uri(label_id, label_tag))

    def json(self) -> dict[str, Any]:
        """The content of the datastore's file."""
        with self._change():
            return dict(super().json())

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """[{"image": path, "label": path}, ...] of images with a final label map."""
        with self._change():
            return list(super().datalist(full_path))

    def status(self) -> dict[str, Any]:
        """{"total": images, "completed": images with a final label map, "label_tags": {tag: label maps}}."""
        with self._threads:
            tags = Counter(tag for entry in self._datastore.objects.values() for tag in entry.labels)
        return {"total": len(self.list_images()), "completed": len(self.get_labeled_images()), "label_tags": tags}

    def name_of(self, file: str) -> str:
        """The name under which a user knows a file of `files_of`."""
        return Path(file).name

    def person(self, image_id: str) -> str:
        """The subject or patient of an image. A training must not validate on a subject from whom it learned."""
        return image_id

    def labelled(self, names: Mapping[str, int]) -> list[tuple[str, str]]:
        """(image id, path) of the final label maps with exactly these labels, {"CSF": 1, ...}."""
        label_maps = []
        for image_id in sorted(self.get_labeled_images(), key=natural_order):
            path, labels = self.get_label_uri(image_id, "final"), self.get_label_info(image_id, "final").get("labels")
            if labels is None and not self.same_labels:  # a file that a user put into the folder
                logger.warning("%s is left out: its labels have no names, and the models have different labels.", path)
            elif labels is None or list(labels) == list(names):
                label_maps.append((image_id, path))
        return label_maps


class Studies(Store):
    """A folder of NIfTI files.

    One image stands for a study: its file of the first contrast in custom.serving.contrasts.ORDER. Its other files are
    looked up when a bundle needs them. Label maps are labels/<tag>/<image id>.nii.gz.

    Args:
        folder: the studies.
        together: whether files whose names differ only in the contrast are one study; else each file is a study.
        same_labels: as in Store.
    """

    def __init__(self, folder: str, together: bool, same_labels: bool) -> None:
        self.folder = Path(folder)
        self.together = together
        super().__init__(folder, same_labels)
        self._seen: list[set[str]] = []
        self._listed: set[str] = set()

    def _list_files(self, path: str, patterns: Sequence[str]) -> dict[str, str]:
        files: dict[str, str] = super()._list_files(path, patterns)
        files = {name: file for name, file in files.items() if self._is_inside(Path(path) / name)}
        if Path(path).resolve() != self.folder.resolve():
            return files
        kept = {name for name in files if not name.startswith(".") and not RESULTS.search(scan_name(name))}
        if self.together:
            kept = {self._reference(group) for group in self._grouped(kept).values()}
        return {name: name for name in sorted(kept, key=natural_order)}

    def _is_inside(self, file: Path) -> bool:
        """Whether a file is no link to a file outside the folder, which this server would offer to others."""
        if not file.is_symlink() or file.resolve().is_relative_to(self.folder.resolve()):
            return True
        logger.warning("%s is left out: it is a link to a file outside the folder.", file)
        return False

    @staticmethod
    def _grouped(names: set[str]) -> dict[str, dict[str | None, str]]:
        studies: dict[str, dict[str | None, str]] = {}
        for name in sorted(names):
            study, contrast = study_and_contrast(name)
            studies.setdefault(study, {}).setdefault(contrast, name)
        return studies

    @staticmethod
    def _reference(group: dict[str | None, str]) -> str:
        return next((group[contrast] for contrast in ORDER if contrast in group), next(iter(group.values())))

    def list_images(self) -> list[str]:
        """The ids of the images. The folder is read again if something changed in it."""
        with self._threads:
            folders = (self.folder, *(self.folder / "labels" / tag for tag in ("final", "original")))
            # names, and not the folders' times, which the server's own notes change
            now = [
                {entry.name for entry in os.scandir(path) if entry.name[0] != "."} for path in folders if path.is_dir()
            ]
            if now != self._seen:
                self.refresh()
                self._listed = {self._to_id(name)[0] for name in self._list_files(str(self.folder), PATTERNS)}
                self._seen = now
            # the datastore's file also has images that were listed for other bundles
            return [image_id for image_id in super().list_images() if image_id in self._listed]

    def get_labeled_images(self, label_tag: str | None = None, labels: Any = None) -> list[str]:
        """The ids of images with a final label map."""
        listed = set(self.list_images())
        with self._threads:
            return [image_id for image_id in super().get_labeled_images(label_tag, labels) if image_id in listed]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: Any = None) -> list[str]:
        """The ids of images without a final label map."""
        listed = set(self.list_images())
        with self._threads:
            return [image_id for image_id in super().get_unlabeled_images(label_tag, labels) if image_id in listed]

    def json(self) -> dict[str, Any]:
        """The content of the datastore's file, with the listed images only."""
        listed, content = set(self.list_images()), super().json()
        return content | {"objects": {name: entry for name, entry in content["objects"].items() if name in listed}}

    def files_of(self, image_id: str, channels: Sequence[str | None]) -> list[str]:
        """The image's own file for a bundle that takes any single scan, else the study's file of each contrast.

        Raises:
            MissingDataError: no such image, or the study lacks a contrast.
            DataError: two files of the study have the same contrast.
        """
        own = self.get_image_uri(image_id)
        if not own:
            raise MissingDataError(f"The studies have no image {image_id!r}. /datastore/?output=all lists all images.")
        if channels == (None,):
            return [own]
        study, _ = study_and_contrast(own)
        files: dict[str | None, list[str]] = {}
        for path in (path for pattern in PATTERNS for path in sorted(self.folder.glob(pattern))):
            other, contrast = study_and_contrast(path)
            if other == study and not RESULTS.search(scan_name(path)) and self._is_inside(path):
                files.setdefault(contrast, []).append(str(path))
        for contrast in channels:
            check_one(
                files.get(contrast, []), contrast, f"The study {study}", f"Name its file {study}_{contrast}.nii.gz"
            )
        return [files[contrast][0] for contrast in channels]

    def person(self, image_id: str) -> str:
        """sub-01 for BIDS names, else the study."""
        return participant_of(study_and_contrast(self.get_image_uri(image_id))[0])

    def reference(self, image_id: str) -> str:
        """The file on whose grid the label maps of an image are."""
        return str(self.get_image_uri(image_id))
