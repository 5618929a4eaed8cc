"""Preprocessed scans on disk as memory maps: whole, or windows that read their own voxels only."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Randomizable, Transform

from custom.files import stamp_of, written_whole

VERSION = 1  # of what is kept: another number makes new files
INDICES = "foreground"
TRIES = 100  # for a voxel of the background


class FromDiskd(Transform):
    """Runs transforms on a scan once, keeps the result as files, and reads these in all later epochs and runs.

    Each entry is a file of its own that NumPy maps into memory, and one of its affine; the label map has a third file,
    the flat indices of its labels above 0. Every file is written whole, so that several processes may fill one folder.
    Other settings of the transforms, or a scan that was changed, make new files; old ones may be deleted at any time.

    Args:
        transforms: dictionary transforms without randomness, from paths on, which pickle.
        cache_dir: the folder, made if need be.
        keys: the entries that are kept, (C, x, y, z); the last one is the label map.
        ignore_index: the label of voxels that nobody labelled, whose indices are left out.

    Raises:
        DataError: what the transforms raise.
    """

    def __init__(
        self,
        transforms: Sequence[Any],
        cache_dir: str | Path,
        keys: Sequence[str] = ("image", "label"),
        ignore_index: int | None = None,
    ) -> None:
        self.transforms = Compose(transforms)
        self.cache_dir, self.keys, self.ignore_index = Path(cache_dir).expanduser(), tuple(keys), ignore_index
        self.steps = hashlib.sha256(pickle.dumps((list(transforms), ignore_index), protocol=4)).hexdigest()

    def __call__(self, data: Mapping[Hashable, Any]) -> Any:
        """The item with its keys replaced by MetaTensors (C, x, y, z)."""
        maps = self.maps(data)
        affine = torch.as_tensor(np.array(maps["affine"]))
        return dict(data) | {key: MetaTensor(torch.as_tensor(np.array(maps[key])), affine=affine) for key in self.keys}

    def maps(self, data: Mapping[Hashable, Any]) -> dict[str, np.ndarray]:
        """The arrays of one item as memory maps: its keys, "affine" (4, 4) and "foreground" (n,)."""
        stem = self.cache_dir / self._name(data)
        names = (*self.keys, "affine", INDICES)  # the last one is written last
        if not stem.with_name(f"{stem.name}-{INDICES}.npy").is_file():
            self._fill(stem, data)
        return {name: np.load(stem.with_name(f"{stem.name}-{name}.npy"), mmap_mode="r") for name in names}

    def _name(self, data: Mapping[Hashable, Any]) -> str:
        groups = [data[key] if isinstance(data[key], (list, tuple)) else [data[key]] for key in self.keys]
        paths = [Path(path) for group in groups for path in group]
        stamps = [(str(path), stamp_of(path) if path.is_file() else None) for path in paths]
        return hashlib.sha256(repr((VERSION, self.steps, self.keys, stamps)).encode()).hexdigest()[:32]

    def _fill(self, stem: Path, data: Mapping[Hashable, Any]) -> None:
        item: Any = self.transforms(dict(data))
        label = np.asarray(item[self.keys[-1]])
        known = label > 0 if self.ignore_index is None else (label > 0) & (label != self.ignore_index)
        affine = np.asarray(getattr(item[self.keys[0]], "affine", np.eye(4)), dtype=np.float64)
        arrays = {key: np.ascontiguousarray(item[key]) for key in self.keys} | {"affine": affine}
        for name, array in (arrays | {INDICES: np.flatnonzero(known)}).items():
            with written_whole(stem.with_name(f"{stem.name}-{name}.npy")) as partial, partial.open("wb") as file:
                np.save(file, array)


class CropFromDiskd(FromDiskd, Randomizable):
    """Windows around voxels of labels and of the background, as RandCropByPosNegLabeld draws them, read from disk.

    A scan that is smaller than the window is padded with zeros on both sides.

    Args:
        transforms: as FromDiskd takes them.
        cache_dir: as FromDiskd takes it.
        spatial_size: of a window, in voxels.
        num_samples: windows of each scan.
        pos: a window's centre is a labelled voxel with the probability pos / (pos + neg).
        neg: see pos.
        **settings: FromDiskd's `keys` and `ignore_index`.
    """

    def __init__(
        self,
        transforms: Sequence[Any],
        cache_dir: str | Path,
        spatial_size: Sequence[int],
        num_samples: int = 1,
        pos: float = 1.0,
        neg: float = 1.0,
        **settings: Any,
    ) -> None:
        super().__init__(transforms, cache_dir, **settings)
        self.size, self.num_samples, self.share = tuple(spatial_size), num_samples, pos / (pos + neg)

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        """`num_samples` items, their keys replaced by tensors (C, *spatial_size)."""
        maps = self.maps(data)
        return [
            dict(data) | {key: window_of(maps[key], centre, self.size) for key in self.keys}
            for centre in [self._draw(maps) for _ in range(self.num_samples)]
        ]

    def _draw(self, maps: Mapping[str, np.ndarray]) -> tuple[int, ...]:
        """The centre of a window: a voxel of a label, or of the background where one is found."""
        indices, label = maps[INDICES], maps[self.keys[-1]][0]
        if len(indices) and self.R.random_sample() < self.share:
            place = np.unravel_index(int(indices[self.R.randint(len(indices))]), label.shape)
            return tuple(int(position) for position in place)
        for _ in range(TRIES):
            centre = tuple(int(self.R.randint(length)) for length in label.shape)
            if label[centre] == 0:
                break
        return centre


def window_of(volume: np.ndarray, centre: Sequence[int], size: Sequence[int]) -> torch.Tensor:
    """The window (C, *size) of a volume (C, x, y, z) whose middle is nearest to a voxel; only its voxels are read."""
    box: list[slice] = [slice(None)]
    padding = [(0, 0)]
    for middle, length, wanted in zip(centre, volume.shape[1:], size, strict=True):
        start = min(max(middle - wanted // 2, 0), max(length - wanted, 0))
        box.append(slice(start, min(start + wanted, length)))
        missing = max(wanted - length, 0)
        padding.append((missing // 2, missing - missing // 2))
    window = np.array(volume[tuple(box)])
    return torch.as_tensor(np.pad(window, padding) if any(map(any, padding)) else window)
