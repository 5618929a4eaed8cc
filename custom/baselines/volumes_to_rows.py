"""Scans of one size as rows of a matrix, computed once and kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from monai.transforms import Compose, CropForegroundd, EnsureChannelFirstd, Orientationd, Resized
from torch.utils.data import DataLoader, Dataset

from custom.errors import BrainMRIError, find_cause
from custom.files import written_whole
from custom.transforms import LoadVolumesd

VERSION = 1  # of the steps below: another number makes new files


def volumes_to_rows(
    images: Sequence[str], size: Sequence[int], cache_dir: str | Path, workers: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Every scan cropped to its brain, resized, with mean 0 and deviation 1 in the brain and 0 outside.

    Each scan's result is a file in cache_dir, written whole: what is there is not computed again, and a run that was
    stopped goes on. Another size, a scan that was changed, or another version of the steps makes new files.

    Args:
        images: paths of skull-stripped scans, 0 outside the brain.
        size: (H, W, D) of the results, in voxels.
        cache_dir: made if need be.
        workers: processes that work beside this one.

    Returns:
        (n, H * W * D) float32, and the brains' volumes in ml, (n,).

    Raises:
        DataError: a scan that can't be read, or holds NaN or nothing but zeros.
    """
    paths = [str(path) for path in images]
    scans = _Scans(paths, tuple(size), Path(cache_dir).expanduser())
    matrix, volumes = np.empty((len(paths), int(np.prod(size))), dtype=np.float32), np.empty(len(paths))
    for number, found in enumerate(DataLoader(scans, batch_size=None, num_workers=workers)):
        if isinstance(found, BrainMRIError):
            raise found
        matrix[number], volumes[number] = found
    return matrix, volumes


class _Scans(Dataset):
    """Row and brain volume of each scan, from its file in the cache or computed.

    What a user can mend comes back as a value: raised in another process, an error would lose its sentence.
    """

    def __init__(self, paths: list[str], size: tuple[int, ...], cache_dir: Path) -> None:
        self.paths, self.size, self.cache_dir = paths, size, cache_dir
        self.load = Compose(
            [
                LoadVolumesd("image"),
                EnsureChannelFirstd("image"),
                Orientationd("image", axcodes="RAS", labels=None),
            ]
        )
        self.fit = Compose(
            [
                CropForegroundd(["image", "brain"], source_key="brain", allow_smaller=True),
                Resized(["image", "brain"], spatial_size=size, mode="trilinear", anti_aliasing=True),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[np.ndarray, float] | BrainMRIError:
        try:
            return self._kept(number)
        except Exception as error:
            if cause := find_cause(error):
                return cause
            raise

    def _kept(self, number: int) -> tuple[np.ndarray, float]:
        path = Path(self.paths[number])
        status = path.stat() if path.is_file() else None
        key = (str(path.absolute()), status and (status.st_size, status.st_mtime_ns), self.size, VERSION)
        kept = self.cache_dir / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.npz"
        if not kept.is_file():
            row, brain_ml = self._compute(path)
            with written_whole(kept) as partial, partial.open("wb") as file:
                np.savez(file, row=row, brain_ml=brain_ml)
        with np.load(kept) as found:
            return found["row"], float(found["brain_ml"])

    def _compute(self, path: Path) -> tuple[np.ndarray, float]:
        item = self.load({"image": str(path)})
        item["brain"] = (item["image"] != 0).float()
        brain_ml = float(item["brain"].sum()) * float(item["image"].pixdim.prod()) / 1000
        item = self.fit(item)
        image, brain = (torch.as_tensor(item[key]) for key in ("image", "brain"))
        inside = brain >= 0.5  # resizing spreads small values around the brain
        values = image[inside] / brain[inside]
        row = torch.zeros_like(image)
        row[inside] = (values - values.mean()) / values.std(unbiased=False).clamp_min(1e-6)
        return row.flatten().numpy(), brain_ml
