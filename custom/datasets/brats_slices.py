"""BraTS 2020 as axial slices, one HDF5 file each (Kaggle, awsaf49/brats2020-training-data), and a faster form of it.

The scans are BraTS 2020's: cite what custom.datasets.brats names.

Files: volume_V_slice_S.h5, V 1 to 369, S 0 to 154, in the folder itself or below it; `image` (240, 240, 4) float64,
z-scores; `mask` (240, 240, 3) uint8: NCR, ED, ET. Which contrast is which channel is documented nowhere: notebooks
that use the set take T1, T1ce, T2, FLAIR, and `channel_order` says otherwise where you find otherwise (FLAIR shows
fluid dark and edema bright; `brainmri report` draws all four).

The prepared form (`brainmri prepare brats_slices DIR --output_dir OUT`): volume_V_image.npy (S, 4, H, W) float16 and
volume_V_mask.npy (S, 3, H, W) uint8, read by memory map, and prepared.json, written last.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from custom.datasets.brats import CHANNELS, LABELS
from custom.datasets.split import split_by_participant
from custom.errors import ConfigError, DataError, MissingDataError
from custom.files import is_partial, read_json, written_whole
from custom.reading.labels import TOLERANCE
from custom.reading.volumes import existing_folder, natural_order

__all__ = ["CHANNELS", "CHANNEL_ORDER", "LABELS", "MASKS", "datalist", "prepare", "read_slice", "verify"]

MASKS = ("NCR", "ED", "ET")  # the label map's 1, 2 and 3
CHANNEL_ORDER = ("T1", "T1ce", "T2", "FLAIR")  # in the files, as far as is known

_FILE = re.compile(r"volume_(\d+)_slice_(\d+)\.h5")
HOW_TO_GET = (
    "Get it with Kaggle's own client (kaggle datasets download awsaf49/brats2020-training-data), or write a small "
    "simulated one with `brainmri sample brats_slices DIR`."
)


def datalist(
    dataset_dir: str | Path, split: str, fold: int = 0, middle: int | None = None, stacked: bool = False
) -> list[dict]:
    """The slices of one split, split by patient (a volume is a patient's).

    Args:
        dataset_dir: a folder of HDF5 files or of prepared ones.
        split: "training", "validation" or "test", as custom.datasets.split shares out the patients.
        fold: 0 to 4.
        middle: only so many slices in the middle of each volume; None for all.
        stacked: one item for each patient instead of one for each slice.

    Returns:
        [{"subject": "volume_1", "slice": 39, "image": (path, row), "label": (path, row)}, ...] in natural order, for
        custom.transforms.LoadSliced; row is None for HDF5. Stacked: [{"subject": "volume_1", "image": [(path, row),
        ...], "label": [...]}, ...].

    Raises:
        ConfigError: an unknown split or fold, or middle below 1.
        DataError: no such files, or too few patients.
    """
    if middle is not None and middle < 1:
        raise ConfigError(f"middle must be 1 or more, got {middle!r}.")
    everyone = _slices(dataset_dir)
    items: list[dict] = []
    for volume in split_by_participant(map(str, everyone), split, fold, dataset_dir):
        slices = everyone[int(volume)]
        wanted = min(middle or len(slices), len(slices))
        skipped = (len(slices) - wanted) // 2
        chosen = slices[skipped : skipped + wanted]
        subject = {"subject": f"volume_{volume}"}
        if stacked:
            items.append(subject | {key: [item[key] for item in chosen] for key in ("image", "label")})
        else:
            items += [subject | item for item in chosen]
    return items


def read_slice(path: str | Path, row: int | None, dataset: str) -> np.ndarray:
    """`image` or `mask`, channels first: (4, H, W) or (3, H, W), in the file's own type.

    Raises:
        DataError: the file is missing, cut short, holds no such data, NaN, or masks that aren't 0 and 1.
    """
    try:
        if row is not None:
            return np.asarray(_memory_map(path)[row])
        with h5py.File(path, "r") as file:
            voxels: np.ndarray = np.moveaxis(file[dataset][()], -1, 0)
            voxels = _rounded(voxels) if dataset == "mask" else voxels
    except KeyError as error:
        raise DataError(f"{path} has no {dataset!r} in it. Copy the file again.") from error
    except (OSError, ValueError, IndexError) as error:
        raise DataError(f"{path} can't be read ({error}). Copy the file again.") from error
    if problem := _problem(voxels, dataset):
        raise DataError(f"{path} {problem}.")
    return voxels


@functools.lru_cache(maxsize=1024)
def _memory_map(path: str | Path) -> np.ndarray:
    """Kept open, since reading the header takes longer than a slice; changes to the array stay in memory."""
    mapped: np.ndarray = np.load(path, mmap_mode="c")
    return mapped


def prepare(dataset_dir: str | Path, output_dir: str | Path) -> Path:
    """Converts HDF5 slices once, volume by volume, and checks each by reading it back; started again, it goes on.

    Intensities are rounded to float16: 0.001 for a z-score of 2. A full set takes about 36 GB.

    Returns:
        output_dir.

    Raises:
        DataError: a slice that can't be read or has another shape than its volume's first, or output_dir holds another
            set.
    """
    everyone, folder = _slices(dataset_dir), Path(output_dir).expanduser()
    if any(item["image"][1] is not None for slices in everyone.values() for item in slices):
        raise DataError(f"{dataset_dir} is prepared already. Use it as it is.")
    listing = {str(volume): [item["slice"] for item in slices] for volume, slices in everyone.items()}
    plan = folder / "plan.json"
    others = folder.exists() and any(not is_partial(path) for path in folder.iterdir())
    if read_json(plan) != listing if plan.is_file() else others:
        raise DataError(f"{folder} holds other files. Use a new folder.")
    with written_whole(plan) as partial:
        partial.write_text(json.dumps(listing))
    for volume, slices in tqdm(everyone.items(), desc="preparing", unit="volume"):
        for key, dataset, dtype in (("image", "image", np.float16), ("label", "mask", np.uint8)):
            target = folder / f"volume_{volume}_{dataset}.npy"
            if not target.is_file():
                _convert([item[key][0] for item in slices], dataset, dtype, target)
    if (sample := Path(dataset_dir).expanduser() / "sample.json").is_file():
        shutil.copy(sample, folder / "sample.json")  # weights trained on it are marked (custom.checkpoints.record)
    with written_whole(folder / "prepared.json") as partial:
        partial.write_text(json.dumps(listing))
    return folder


def _convert(paths: list[str], dataset: str, dtype: type, target: Path) -> None:
    source = [read_slice(path, None, dataset) for path in paths]
    for path, voxels in zip(paths, source, strict=True):
        if voxels.shape != source[0].shape:
            raise DataError(f"{path} {_another_shape(voxels.shape, source[0].shape)}.")
    stacked: np.ndarray = np.stack(source).astype(dtype)
    with written_whole(target) as partial:
        with partial.open("wb") as file:
            np.save(file, stacked)
        if not np.array_equal(np.load(partial), stacked):
            raise DataError(f"{target} was not written correctly. Check the disk.")


def verify(dataset_dir: str | Path) -> list[str]:
    """Reads every slice and returns every problem found, each a sentence that names its file."""
    try:
        everyone = _slices(dataset_dir)
    except DataError as error:
        return [str(error)]
    problems = []
    for slices in tqdm(everyone.values(), desc="reading", unit="volume"):
        shapes: dict[str, tuple] = {}
        for item in slices:
            for key, dataset in (("image", "image"), ("label", "mask")):
                try:
                    path, row = item[key]
                    voxels = read_slice(path, row, dataset)
                except DataError as error:
                    problems.append(str(error))
                    continue
                problem = "" if row is None else _problem(voxels, dataset)
                if not problem and voxels.shape != shapes.setdefault(dataset, voxels.shape):
                    problem = _another_shape(voxels.shape, shapes[dataset])
                problems += [f"{path} {problem}."] if problem else []
    return problems


def _rounded(mask: np.ndarray) -> np.ndarray:
    """The mask, with values within 0.001 of a whole number rounded, as label maps' values are."""
    if mask.dtype.kind != "f":
        return mask
    rounded = np.rint(mask)
    return rounded if np.allclose(mask, rounded, rtol=0, atol=TOLERANCE) else mask


def _problem(voxels: np.ndarray, dataset: str) -> str:
    channels = {"image": len(CHANNELS), "mask": len(MASKS)}[dataset]
    if voxels.ndim != 3 or voxels.shape[0] != channels:
        return f"has a {dataset} whose channels and sizes are {voxels.shape}, not ({channels}, H, W). Copy it again"
    if dataset == "image" and not np.isfinite(voxels).all():
        return "holds NaN or infinite values. Copy it again"
    if dataset == "mask" and not np.isin(voxels, (0, 1)).all():
        return f"holds mask values {sorted(set(np.unique(voxels).tolist()) - {0, 1})}, not 0 and 1 only. Copy it again"
    return ""


def _another_shape(shape: tuple, first: tuple) -> str:
    return f"has another shape, {shape[1:]}, than its volume's first slice, {first[1:]}. Leave the volume out"


def _slices(dataset_dir: str | Path) -> dict[int, list[dict]]:
    """{volume: its slices in order}, of either form."""
    folder = existing_folder(dataset_dir, HOW_TO_GET)
    if (folder / "prepared.json").is_file():
        listing = read_json(folder / "prepared.json")
        slices_of = {int(volume): _rows(folder, volume, slices) for volume, slices in listing.items()}
    elif (folder / "plan.json").is_file():
        raise DataError(f"{folder} is prepared in part only. Run `brainmri prepare` again to complete it.")
    else:
        slices_of = {}
        for path in sorted(folder.glob("**/volume_*_slice_*.h5"), key=lambda path: natural_order(path.name)):
            if match := _FILE.fullmatch(path.name):
                place = (str(path), None)
                slices_of.setdefault(int(match[1]), []).append({"slice": int(match[2]), "image": place, "label": place})
    if not slices_of:
        raise MissingDataError(f"{folder} holds no file like volume_1_slice_0.h5. {HOW_TO_GET}")
    for volume, slices in slices_of.items():
        numbers = [item["slice"] for item in slices]
        if len(set(numbers)) < len(numbers):
            raise DataError(f"{folder} has a slice of volume_{volume} twice. Give the folder of one copy.")
        if missing := sorted(set(range(max(numbers) + 1)) - set(numbers)):
            raise MissingDataError(
                f"{folder} has no volume_{volume}_slice_{missing[0]}.h5 ({len(missing)} of {max(numbers) + 1} missing)"
                ". Copy them again, or leave the volume out."
            )
    return dict(sorted(slices_of.items()))


def _rows(folder: Path, volume: str, slices: Sequence[int]) -> list[dict]:
    files = [str(folder / f"volume_{volume}_{dataset}.npy") for dataset in ("image", "mask")]
    if missing := [file for file in files if not Path(file).is_file()]:
        raise MissingDataError(f"{missing[0]} does not exist. Run `brainmri prepare` again into a new folder.")
    image, mask = files
    return [{"slice": number, "image": (image, row), "label": (mask, row)} for row, number in enumerate(slices)]
