"""Images for a pretraining without labels, from which nobody is validated or tested later."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sklearn.model_selection import GroupKFold

from custom.checkpoints.record import read_record
from custom.datasets import tumor_images
from custom.datasets.split import FOLDS, check_split
from custom.datasets.tumor_images import CACHE, CHANNELS, LABELS, PARTS
from custom.errors import CheckpointError, ConfigError, MissingDataError
from custom.reading.images import SUFFIXES, image_files
from custom.reading.volumes import existing_folder

__all__ = ["CHANNELS", "check_start", "datalist"]
HOW_TO_GET = "Give a folder of JPEG or PNG files (--dataset_dir)."


def datalist(
    dataset_dir: str | Path,
    split: str,
    fold: int = 0,
    partition: str = "grouped",
    classes: Sequence[str] = tuple(LABELS.values()),
    cache_dir: str | Path | None = CACHE,
) -> list[dict]:
    """The images of one split, without labels.

    Args:
        dataset_dir: a folder of the form of custom.datasets.tumor_images, with Training or Testing, whose splits are
            those of the later training; or any folder of images, in which `fold` picks a fifth of the groups to
            validate. A group are near-duplicates and what its groups.csv joins.
        split: "training" or "validation".
        fold: 0 to 4.
        partition: as in custom.datasets.tumor_images; it has no meaning for other folders.
        classes: the same.
        cache_dir: where hashes are kept; None for nowhere.

    Returns:
        [{"subject": path below the folder, "image": path}, ...] in natural order.

    Raises:
        ConfigError: an unknown split, fold or partition.
        DataError: too few groups, an image that can't be used; else what custom.datasets.tumor_images raises.
    """
    check_split(split, fold)
    if split == "test":
        raise ConfigError("A pretraining has no test split. Use training or validation.")
    folder = existing_folder(dataset_dir, HOW_TO_GET)
    if any((folder / part).is_dir() for part in PARTS):
        items = tumor_images.datalist(folder, split, fold, partition, classes, cache_dir)
        return [{"subject": item["subject"], "image": item["image"]} for item in items]
    images = [path.relative_to(folder).as_posix() for path in image_files(folder)]
    if not images:
        raise MissingDataError(f"{folder} holds no image. Give a folder of {', '.join(SUFFIXES)} files.")
    groups = tumor_images.groups_of(folder, images, cache_dir)
    if (number := len(set(groups.values()))) < 2 * FOLDS:
        raise MissingDataError(f"{folder} has {number} groups of images that belong together. At least ten are needed.")
    kept = list(GroupKFold(FOLDS).split(images, groups=[groups[image] for image in images]))[fold]
    chosen = kept[0] if split == "training" else kept[1]
    return [{"subject": images[number], "image": str(folder / images[number])} for number in chosen]


def check_start(
    source: str | None,
    dataset_dir: str | Path,
    fold: int,
    partition: str,
    classes: Sequence[str],
    cache_dir: str | Path | None,
) -> None:
    """Refuses start weights whose training saw images that this training validates or tests on.

    Args:
        source: None, or the path of weights; weights without a record beside them are not checked, nor are those of
            another folder of images.
        dataset_dir: of this training, as in custom.datasets.tumor_images.datalist.
        fold: the same.
        partition: the same.
        classes: the same.
        cache_dir: the same.

    Raises:
        CheckpointError: there is such an image.
    """
    record = {} if source in (None, "None") else read_record(Path(str(source)).expanduser())
    here = Path(dataset_dir).expanduser().resolve()
    if not record or Path(str(record.get("dataset_dir"))).resolve() != here:
        return
    seen = set(record.get("training", []))
    for split in ("validation", "test"):
        try:
            items = tumor_images.datalist(here, split, fold, partition, classes, cache_dir)
        except MissingDataError:  # no Testing yet: nothing is tested
            continue
        both = [item["subject"] for item in items if item["subject"] in seen]
        if both:
            raise CheckpointError(
                f"{source} was trained on {len(both)} of the {len(items)} images of this {split} split ({both[0]}, "
                "...). Train it again with the same partition and fold, or give other weights."
            )
