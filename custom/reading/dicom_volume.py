"""Whether the slices of a DICOM series are those of one volume."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

from custom.errors import DataError
from custom.reading.dicom_slices import DIFFERENCES, Slice

T = TypeVar("T")
SAME_PLACE = 0.01  # mm, between the positions of two slices
OF_A_VOLUME = ("image type", "echo time", "inversion time", "flip angle", "b-value")  # equal in all its slices
ROUNDED = ("echo time", "inversion time", "flip angle", "b-value")  # scanners write these with jitter
UNEVEN = 0.1  # mm, between a gap of slices and the mean gap
MISSING = 0.1  # of the slices: above it, lengths and volumes are too wrong to go on


def grouped(items: Iterable[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    """The items of each key, in the order of the first ones."""
    groups: dict[Hashable, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return list(groups.values())


def check_one_grid(path: Path, slices: list[Slice]) -> None:
    """Refuses slices that differ in orientation, size or stack; numbers are compared as numbers, not as texts."""
    remedy = _remedy(path, slices)
    stacks = grouped(slices, lambda image: image.stack)
    if len(stacks) > 1:
        listed = ", ".join(f"{group[0].stack or 'without a name'}: {len(group)} slices" for group in stacks)
        raise DataError(f"{path} holds {len(stacks)} stacks of slices ({listed}). {remedy}")
    first = slices[0]
    for other in slices:
        names = f"{first.name} and {other.name}"
        if np.abs(other.axes - first.axes).max() > 2e-3:
            raise DataError(f"{path} holds slices of different orientations ({names}), as a localizer does. {remedy}")
        if other.shape != first.shape:
            sizes = " and ".join(f"{each.shape[0]}x{each.shape[1]}" for each in (first, other))
            raise DataError(f"{path} holds slices of different sizes ({names}: {sizes} pixels). {remedy}")
        if not np.allclose(other.spacing, first.spacing, rtol=2e-3, atol=0):
            sizes = " and ".join(f"{each.spacing[0]:g}x{each.spacing[1]:g}" for each in (first, other))
            raise DataError(f"{path} holds pixels of different sizes ({names}: {sizes} mm). {remedy}")
        if other.frame is not None and other.path == first.path and other.slope != first.slope:
            raise DataError(
                f"{path} scales the values of its frames differently ({names}). Convert it to NIfTI, with dcm2niix."
            )


def check_one_volume(path: Path, slices: list[Slice]) -> None:
    """Refuses two slices at one position, and slices of different kinds in one volume.

    Args:
        path: as the user gave it.
        slices: sorted by their height.
    """
    places: list[list[Slice]] = []
    for image in slices:
        if places and image.height - places[-1][0].height < SAME_PLACE:
            places[-1].append(image)
        else:
            places.append([image])
    most = max(len(place) for place in places)
    remedy = _remedy(path, slices)
    if most > 1 and all(len(place) == most for place in places):
        size = "x".join(map(str, (*slices[0].shape, len(places), most)))
        raise DataError(
            f"{path} is a series of volumes ({size}). Save one of them, or their mean, as a 3D file or in a folder of "
            f"its own. {_difference(slices, most)}. See {_names(places[0])}."
        )
    if most > 1:
        twice = next(place for place in places if len(place) == most)
        raise DataError(
            f"{path} has {most} slices at the same position ({_names(twice)}). {_difference(twice, most)}. {remedy}"
        )
    if len(slices) == 1:
        size = "x".join(map(str, (*slices[0].shape, 1)))
        whole = "Give the whole 3D scan" if path.is_dir() else "Give the folder that holds the slices of its series"
        raise DataError(f"{path} is a slice, not a volume ({size}). {whole}.")
    for name in OF_A_VOLUME:
        kinds = _kinds(name, slices)
        if len(kinds) > 1:
            listed = ", ".join(f"{_shown(group[0], name)}: {len(group)} slices" for group in kinds)
            raise DataError(f"{path} mixes slices that differ in {name} ({listed}). {remedy}")


def check_straight(path: Path, slices: list[Slice]) -> None:
    """Refuses slices that lie aside of the line from the first to the last one, as those of two stacks do."""
    places = np.array([image.position for image in slices])
    heights = np.array([image.height for image in slices])
    share = (heights - heights[0]) / (heights[-1] - heights[0])
    aside = np.linalg.norm(places - places[0] - share[:, None] * (places[-1] - places[0]), axis=1)
    if aside.max() > 0.5 * min(slices[0].spacing):
        raise DataError(
            f"{path} holds slices that lie aside of the others ({slices[aside.argmax()].name}, {aside.max():.3g} mm), "
            f"as those of two stacks do. {_remedy(path, slices)}"
        )


def check_gaps(path: Path, slices: list[Slice]) -> list[str]:
    """A warning about uneven gaps between slices.

    Raises:
        DataError: so many slices are missing that the volume would be more than a tenth too long.
    """
    gaps = np.diff([image.height for image in slices])
    if np.abs(gaps - gaps.mean()).max() <= UNEVEN:
        return []
    wide, usual = int(gaps.argmax()), float(np.median(gaps))
    pair = f"{slices[wide].name} and {slices[wide + 1].name} are {gaps[wide]:.4g} mm apart"
    if gaps.mean() > (1 + MISSING) * usual:
        raise DataError(
            f"{path} lacks slices, or holds two stacks ({pair}, most slices {usual:.4g} mm). "
            "Export the whole series, or give the files of each stack a folder of its own."
        )
    return [
        f"its slices are unevenly spaced, so some may be missing: lengths along them are wrong ({pair}, "
        f"the mean is {gaps.mean():.4g} mm)"
    ]


def _remedy(path: Path, slices: list[Slice]) -> str:
    if path.is_dir() and all(image.frame is None for image in slices):
        return "Give the files of each a folder of its own."
    return "Convert it to NIfTI, with dcm2niix, and give one of the results."


def _difference(slices: list[Slice], most: int) -> str:
    """Which tag tells `most` volumes apart, with its values."""
    for name in ("image type", *DIFFERENCES):
        kinds = _kinds(name, slices)
        if len(kinds) == most and all(name in group[0].differences for group in kinds):
            return f"They differ in {name} ({', '.join(_shown(group[0], name) for group in kinds)})"
    return "No known tag tells them apart"


def _kinds(name: str, slices: list[Slice]) -> list[list[Slice]]:
    """The slices by their value of a tag. Of ROUNDED tags, numbers within 1% of their neighbour are one kind."""
    values = [image.differences.get(name, "") for image in slices]
    numbers = sorted({value for value in values if not isinstance(value, str)})
    share = 0.01 if name in ROUNDED else 0.0
    steps = np.diff(numbers, prepend=numbers[:1]) > share * np.maximum(1, np.abs(numbers))
    kind_of = dict(zip(numbers, np.cumsum(steps), strict=True))
    return grouped(slices, lambda image: _kind(image.differences.get(name, ""), kind_of))


def _kind(value: str | float, kind_of: Mapping[float, int]) -> Hashable:
    return value if isinstance(value, str) else int(kind_of[value])


def _shown(image: Slice, name: str) -> str:
    value = image.differences.get(name, "none")
    return value if isinstance(value, str) else f"{value:g}"


def _names(slices: list[Slice]) -> str:
    shown = ", ".join(image.name for image in slices[:3])
    return f"{shown} and {len(slices) - 3} more" if len(slices) > 3 else shown
