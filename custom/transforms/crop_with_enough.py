"""Sub-volumes with enough foreground."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable, SpatialCrop

from custom.errors import DataError

logger = logging.getLogger(__name__)

OTHERWISE = ("raise", "best")


class RandCropWithEnoughd(Randomizable, MapTransform):
    """Draws sub-volumes until one holds at least a fraction of foreground.

    The rule of "AI for Medical Diagnosis" (deeplearning.ai), which trains on sub-volumes of 160x160x16 with at least
    5% tumor. Positions are uniform over the volume, so that the tumor lies anywhere in the sub-volume.
    The result is a list of `num_samples` dicts, like RandCropByPosNegLabeld's.

    Args:
        keys: (C, ...) volumes of one shape, at least `spatial_size` along each axis.
        label_key: which of them counts: foreground is what isn't 0 in its first channel.
        spatial_size: of the sub-volumes, in voxels.
        least: the fraction of foreground voxels, 0 to 1.
        most_draws: so many positions are tried for each sub-volume.
        otherwise: where none has enough, "raise" an error or take the "best" of those drawn, and say so once for each.
        num_samples: sub-volumes of each volume.
        ignore_index: the label of voxels that nobody labelled: they are no foreground.

    Raises:
        ValueError: `least`, `otherwise`, `most_draws` or `num_samples` out of range.
        DataError: no draw had enough and `otherwise` is "raise", or a volume is smaller than `spatial_size`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_key: str,
        spatial_size: Sequence[int],
        least: float = 0.05,
        most_draws: int = 100,
        otherwise: str = "raise",
        num_samples: int = 1,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(keys)
        if not 0 <= least <= 1 or most_draws < 1 or num_samples < 1 or otherwise not in OTHERWISE:
            raise ValueError(
                f"least must be 0 to 1, most_draws and num_samples 1 or more, otherwise one of {OTHERWISE}, "
                f"got {least!r}, {most_draws!r}, {num_samples!r} and {otherwise!r}."
            )
        self.label_key = label_key
        self.size = tuple(spatial_size)
        self.least = least
        self.most_draws = most_draws
        self.otherwise = otherwise
        self.num_samples = num_samples
        self.ignore_index = ignore_index
        self.warned: set[str] = set()

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        """Returns the crops of the item, one dictionary each."""
        label = torch.as_tensor(data[self.label_key])[0]
        foreground = label != 0 if self.ignore_index is None else (label != 0) & (label != self.ignore_index)
        samples = []
        for _ in range(self.num_samples):
            start = self._position(foreground, data)
            crop = SpatialCrop(roi_start=start, roi_end=[a + size for a, size in zip(start, self.size, strict=True)])
            samples.append({**data, **{key: crop(data[key]) for key in self.key_iterator(dict(data))}})
        return samples

    def _position(self, foreground: torch.Tensor, data: Mapping[Hashable, Any]) -> list[int]:
        room = [have - want for have, want in zip(foreground.shape, self.size, strict=True)]
        if min(room) < 0:
            raise DataError(
                f"{_name(data)} has the shape {tuple(foreground.shape)}, less than {self.size}. Pad it first."
            )
        best, most = [0] * len(room), -1.0
        for _ in range(self.most_draws):
            start = [int(self.R.randint(0, extra + 1)) for extra in room]
            window = foreground[tuple(slice(a, a + size) for a, size in zip(start, self.size, strict=True))]
            share = window.double().mean().item()
            if share >= self.least:
                return start
            if share > most:
                best, most = start, share
        if self.otherwise == "raise":
            raise DataError(
                f"{_name(data)}: none of {self.most_draws} sub-volumes of {self.size} has {self.least:.1%} foreground "
                f"(the best {most:.1%}). Ask for less, draw more, or take the best."
            )
        if _name(data) not in self.warned:
            logger.warning(
                "%s: no sub-volume has %.1f%% foreground; the best has %.1f%%.",
                _name(data),
                100 * self.least,
                100 * most,
            )
            self.warned.add(_name(data))
        return best


def _name(data: Mapping[Hashable, Any]) -> str:
    return str(data.get("subject", "A volume"))
