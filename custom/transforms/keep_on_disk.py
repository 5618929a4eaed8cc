"""Preprocessing that is done once for each scan, whatever the target, the fold or the run."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Transform

from custom.files import stamp_of, written_whole

VERSION = 2  # of what the transforms do: another number makes new files


class KeepOnDiskd(Transform):
    """Runs transforms on a scan and keeps the result in a folder, for all later epochs and runs.

    (MONAI's PersistentDataset takes the whole item for its key: another label would compute all scans again.) Each
    result is a file, written whole, so that several processes may fill one folder and a run that was stopped goes on.
    Other settings of the transforms, or a scan that was changed, make new files; old ones may be deleted at any time.

    Args:
        transforms: dictionary transforms without randomness, from a path at `source` on.
        cache_dir: the folder, made if need be.
        source: the entry with the scan's path.
        keys: the entries that are kept: tensors, MetaTensors (with their affine) or numbers.

    Raises:
        DataError: what the transforms raise.
    """

    def __init__(
        self,
        transforms: Sequence[Any],
        cache_dir: str | Path,
        source: str = "image",
        keys: Sequence[str] = ("image",),
    ) -> None:
        self.transforms = Compose(transforms)
        self.cache_dir = Path(cache_dir).expanduser()
        self.source, self.keys = source, tuple(keys)
        self.steps = hashlib.sha256(pickle.dumps(list(transforms), protocol=4)).hexdigest()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its keys replaced, as the class describes."""
        path = Path(data[self.source])
        stamp = stamp_of(path) if path.is_file() else None
        key = (VERSION, self.steps, self.keys, str(path.absolute()), stamp)
        kept = self.cache_dir / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.npz"
        result = dict(data)
        try:
            return result | self._read(kept, path)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):  # does not exist yet, or is damaged
            item = self.transforms({self.source: str(path)})
        arrays: dict[str, Any] = {name: np.asarray(item[name]) for name in self.keys}
        affines = {f"{name} affine": item[name].affine for name in self.keys if hasattr(item[name], "affine")}
        with written_whole(kept) as partial, partial.open("wb") as file:
            np.savez(file, **arrays, **affines)
        return result | self._read(kept, path)

    def _read(self, kept: Path, path: Path) -> dict[str, Any]:
        result = {}
        with kept.open("rb") as opened, np.load(opened) as file:  # np.load leaves a damaged file open
            for name in self.keys:
                value = torch.as_tensor(file[name])
                if f"{name} affine" in file:
                    meta = {"filename_or_obj": str(path)}
                    value = MetaTensor(value, affine=torch.as_tensor(file[f"{name} affine"]), meta=meta)
                result[name] = value
        return result
