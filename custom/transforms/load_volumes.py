"""MONAI's LoadImaged, with a sentence that names the file where a scan can't be used."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.transforms import LoadImaged
from monai.utils import ensure_tuple

from custom.errors import DataError
from custom.reading.volumes import read_problem, require_one_grid, voxel_problem


class LoadVolumesd(LoadImaged):
    """Loads NIfTI and Analyze volumes by nibabel; several files under one key become channels.

    Takes LoadImaged's arguments but `reader`. Result: (x, y, z) for one 3D file, channels first or last for several
    (follow it with EnsureChannelFirstd).

    Raises:
        DataError: a file is missing or cut short, the files of one key differ in shape, or a volume holds NaN,
            infinity or nothing but zeros.
    """

    def __init__(self, keys: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(keys, "NibabelReader", *args, **kwargs)
        # No other reader after a failure: they can't do better, and importing itk changes the current folder meanwhile.
        self._loader.readers = self._loader.readers[-1:]

    def __call__(self, data: Mapping[Hashable, Any], reader: Any = None) -> dict[Hashable, Any]:
        """Returns the item with its keys replaced, as the class describes."""
        if missing := [key for key in self.keys if key not in data and not self.allow_missing_keys]:
            raise DataError(f"{data.get('subject', dict(data))} has no {missing[0]}: it can't be used for this.")
        try:
            loaded: dict[Hashable, Any] = super().__call__(data, reader)
        except Exception as error:
            raise self._explain(data, error) from error
        for key in self.key_iterator(loaded):
            paths = ensure_tuple(data[key])
            voxels = np.asarray(loaded[key])
            if not np.isfinite(voxels).all() or not voxels.any() or len(paths) > 1:
                self._check_files(paths, voxels)
        return loaded

    def _explain(self, data: Mapping[Hashable, Any], error: Exception) -> DataError:
        for key in self.key_iterator(data):
            paths = ensure_tuple(data[key])
            for path in paths:
                if problem := read_problem(path):
                    return DataError(problem)
            try:
                require_one_grid(paths)
            except DataError as differs:
                return differs
        return DataError(f"{list(data.values())} can't be read: {error}")

    @staticmethod
    def _check_files(paths: tuple, voxels: np.ndarray) -> None:
        """Finds the file to blame: one slice of the stacked array for each file."""
        axis = 0 if voxels.shape[0] == len(paths) else -1
        volumes = np.moveaxis(voxels, axis, 0) if len(paths) > 1 else [voxels]
        for path, volume in zip(paths, volumes, strict=True):
            if problem := voxel_problem(volume):
                raise DataError(f"{path} {problem}.")
