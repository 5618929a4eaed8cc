"""MONAI's LoadImaged, with a sentence that names the file where a scan can't be used."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.data.image_reader import NibabelReader
from monai.transforms import LoadImaged
from monai.utils import ensure_tuple

from custom.errors import DataError
from custom.reading.containers import check_packed, files_of
from custom.reading.intensities import without_nan
from custom.reading.labels import LabelCodes, label_map
from custom.reading.orientation import affine_of
from custom.reading.volumes import in_one_place, open_volume, read_problem, require_one_grid, voxel_problem

logger = logging.getLogger(__name__)


class VolumeReader(NibabelReader):
    """NibabelReader for every format of custom.reading.volumes; an axis of length 1 after the third is dropped."""

    def __init__(self) -> None:
        super().__init__(squeeze_non_spatial_dims=True)

    def verify_suffix(self, filename: Any) -> bool:
        """True for every file: open_volume raises an error for files that it can't read."""
        del filename
        return True

    def read(self, data: Any, **kwargs: Any) -> nibabel.spatialimages.SpatialImage | list[Any]:
        """Opens one file, or a list of files."""
        del kwargs
        self.filenames = ensure_tuple(data)
        images = [open_volume(name) for name in self.filenames]
        for name, image in zip(self.filenames, images, strict=True):
            if image.get_data_dtype().kind not in "buif":  # MONAI would keep the real part, without a word
                raise DataError(f"{name} holds values of the type {image.get_data_dtype()}.")
            check_packed(files_of(Path(name))[1])
        self.first = images[0]
        return images if len(images) > 1 else images[0]

    def _get_affine(self, img: Any) -> np.ndarray:
        """The affine in mm; of files in one place (require_one_grid), the first one's: MONAI allows no rounding."""
        same = in_one_place(img.shape, img.affine, self.first.affine)
        return affine_of(self.first if same else img)[0].copy()


class LoadVolumesd(LoadImaged):
    """Loads NIfTI, Analyze, NRRD and MetaImage volumes; several files under one key become channels.

    Takes LoadImaged's arguments but `reader`. Result: (x, y, z) for one 3D file, channels first or last for several
    (follow it with EnsureChannelFirstd). A label map's values are rounded to whole numbers where they lie within 0.001.
    NaN and infinite voxels of a scan count as its background, with a warning in the log.

    Args:
        keys: of the paths.
        labels: which of the keys are label maps.
        may_be_empty: whether a label map may hold nothing but zeros (a subject without the lesion).
        codes: which values label maps may hold; None allows all whole numbers, for EncodeLabelsd to check.

    Raises:
        DataError: a file is missing or cut short, the files of one key differ in shape, a scan has one value
            everywhere, or a label map holds values that are not whole or not among the codes.
    """

    def __init__(
        self,
        keys: Any,
        *args: Any,
        labels: Any = ("label",),
        may_be_empty: bool = True,
        codes: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(keys, None, *args, **kwargs)
        # No other reader after a failure: they can't do better.
        self._loader.readers = [VolumeReader()]
        self.labels = ensure_tuple(labels)
        self.codes = LabelCodes(None if codes is None else tuple(codes), may_be_empty=may_be_empty)

    def __call__(self, data: Mapping[Hashable, Any], reader: Any = None) -> dict[Hashable, Any]:
        """Returns the item with its keys replaced, as the class describes."""
        if missing := [key for key in self.keys if key not in data and not self.allow_missing_keys]:
            raise DataError(f"{data.get('subject', dict(data))} has no {missing[0]}. It can't be used for this.")
        try:
            loaded: dict[Hashable, Any] = super().__call__(data, reader)
        except Exception as error:
            raise self._explain(data, error) from error
        for key in self.key_iterator(loaded):
            paths = ensure_tuple(data[key])
            voxels = np.asarray(loaded[key])
            if key in self.labels:
                self._check_label(paths[0], voxels)
                loaded[key] = loaded[key].round() if isinstance(loaded[key], torch.Tensor) else np.rint(voxels)
            else:
                volumes = self._volumes(paths, voxels)
                for path, volume in volumes:
                    if problem := voxel_problem(volume):
                        raise DataError(f"{path} {problem}.")
                for path, volume in volumes:
                    filled, warnings = without_nan(volume)
                    volume[...] = filled
                    for warning in warnings:
                        logger.warning("%s: %s.", path, warning)
        return loaded

    def _explain(self, data: Mapping[Hashable, Any], error: Exception) -> DataError:
        for key in self.key_iterator(data):
            paths = ensure_tuple(data[key])
            codes = self.codes if key in self.labels else None
            for path in paths:
                if problem := read_problem(path, codes):
                    return DataError(problem)
            try:
                require_one_grid(paths)
            except DataError as differs:
                return differs
        return DataError(f"{list(data.values())} can't be read: {error}")

    def _check_label(self, path: Any, voxels: np.ndarray) -> None:
        try:
            label_map(voxels, self.codes)
        except DataError as error:
            raise DataError(f"{path} {error}") from error

    @staticmethod
    def _volumes(paths: tuple[Any, ...], voxels: np.ndarray) -> list[tuple[Any, np.ndarray]]:
        """Each file with its voxels, a view into the stacked array."""
        axis = 0 if voxels.shape[0] == len(paths) else -1
        volumes = np.moveaxis(voxels, axis, 0) if len(paths) > 1 else [voxels]
        if len(volumes) != len(paths):  # files with several channels each
            paths, volumes = paths[:1], [voxels]
        return list(zip(paths, volumes, strict=True))
