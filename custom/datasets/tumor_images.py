"""Brain Tumor MRI Dataset: 2D images of three kinds of tumors and of none (Kaggle, M. Nickparvar), as JPEG files.

M. Nickparvar 2021, "Brain Tumor MRI Dataset", Kaggle, https://doi.org/10.34740/KAGGLE/DSV/2645886. It joins J. Cheng's
slices (figshare 1512427), S. Bhuvaji's set and Br35H. Its images have mixed sizes, grey or RGB, whole heads, any plane
and contrast. It names no patients, holds many slices of one patient, and near-duplicates, some of them across
Training and Testing.

Files: Training and Testing, each with the folders glioma, meningioma, notumor, pituitary; 5712 and 1311 images. A file
groups.csv (columns image and group) beside the two may say which images belong together: a patient's, for instance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from scipy.sparse import csr_matrix, triu
from sklearn.model_selection import StratifiedGroupKFold

from custom.datasets.image_groups import given_groups, joined
from custom.datasets.near_duplicates import hashes, near_duplicates
from custom.datasets.split import FOLDS, check_split
from custom.errors import ConfigError, DataError, MissingDataError
from custom.reading.images import SUFFIXES, image_files
from custom.reading.volumes import existing_folder, natural_order

LABELS = {0: "glioma", 1: "meningioma", 2: "notumor", 3: "pituitary"}  # alphabetical, as Kaggle's folders
CHANNELS = ("red", "green", "blue")  # a grey image has three equal ones
PARTS = ("Training", "Testing")
PARTITIONS = ("grouped", "original", "folds")
CACHE = "cache/tumor_images"
HOW_TO_GET = (
    "Get it with Kaggle's own client (kaggle datasets download masoudnickparvar/brain-tumor-mri-dataset), or write a "
    "small simulated one with `brainmri sample tumor_images DIR`."
)


def datalist(
    dataset_dir: str | Path,
    split: str,
    fold: int = 0,
    partition: str = "grouped",
    classes: Sequence[str] = tuple(LABELS.values()),
    cache_dir: str | Path | None = CACHE,
) -> list[dict]:
    """The images of one split.

    Args:
        dataset_dir: a folder with Training, Testing or both; for "unlabelled", any folder of images, or one image.
        split: "training", "validation", "test", or "unlabelled".
        fold: 0 to 4.
        partition: "grouped": near-duplicates, and what groups.csv joins, are in one split; of the groups of Training
            and Testing a fifth tests, a fifth of the others (`fold`) validates, with the classes shared out evenly
            (scikit-learn's StratifiedGroupKFold). "folds": the same fifths, for cross-validation: number `fold` tests,
            the next one validates. "original": Testing tests, a fifth of Training (`fold`) validates,
            and near-duplicates are in any split.
        classes: names of class folders; the label is the place in this list. The set's other classes are left out.
        cache_dir: where hashes are kept; None for nowhere.

    Returns:
        [{"subject": "Training/glioma/Tr-gl_0010.jpg", "image": path, "label": 0, "group": ...}, ...] in natural order;
        "group" is the subject that comes first of those that belong together. Only "subject" and "image" for
        unlabelled images.

    Raises:
        ConfigError: an unknown split, fold or partition, or less than two classes.
        DataError: a class folder that is missing, empty or unknown, an image that can't be used, a groups.csv that
            doesn't fit.
    """
    if split == "unlabelled":
        return _unlabelled(dataset_dir)
    _check_choices(split, fold, partition, classes)
    folder = existing_folder(dataset_dir, HOW_TO_GET)
    label_of = {name: code for code, name in enumerate(classes)}
    images = [image for image in _images(folder, classes) if _class_of(image) in label_of]
    group_of = groups_of(folder, images, cache_dir)
    if partition == "original":
        chosen = _original(folder, images, split, fold)
    else:
        chosen = _grouped(folder, images, group_of, split, fold, rotating=partition == "folds")
    if absent := [name for name in classes if name not in {_class_of(image) for image in chosen}]:
        raise MissingDataError(
            f"The {split} split of {folder} has no image of {absent[0]}. Each class needs at least ten groups "
            "of images that belong together. Add some, or leave the class out of class_names."
        )
    return [
        {
            "subject": image,
            "image": str(folder / image),
            "label": label_of[_class_of(image)],
            "group": group_of[image],
        }
        for image in chosen
    ]


def _check_choices(split: str, fold: int, partition: str, classes: Sequence[str]) -> None:
    check_split(split, fold)
    if partition not in PARTITIONS:
        raise ConfigError(f"partition must be one of {list(PARTITIONS)}, got {partition!r}.")
    if isinstance(classes, str) or len(set(classes)) < 2 or len(set(classes)) < len(classes):
        raise ConfigError(f"classes must be two or more names of class folders, got {classes!r}.")


def groups_of(folder: Path, images: Sequence[str], cache_dir: str | Path | None) -> dict[str, str]:
    """{image: the first image of its group}: near-duplicates, and what groups.csv joins.

    Raises:
        DataError: an image that can't be used, a groups.csv that doesn't fit.
    """
    hash_of, problems = hashes(folder, images, cache_dir)
    if len(problems) > 1:
        raise DataError(f"{problems[0]} {len(problems) - 1} more have problems: `brainmri verify` lists them.")
    if problems:
        raise DataError(problems[0])
    return joined(images, near_duplicates(list(hash_of.values())), given_groups(folder, images))


def _unlabelled(place: str | Path) -> list[dict]:
    path = Path(place).expanduser()
    if path.is_file():
        return [{"subject": path.name, "image": str(path)}]
    if not path.is_dir():
        raise MissingDataError(f"There is no image or folder {path}. Correct the path (--dataset_dir).")
    paths = image_files(path)
    if not paths:
        raise MissingDataError(f"{path} holds no image. Give a folder of {', '.join(SUFFIXES)} files.")
    return [{"subject": image.relative_to(path).as_posix(), "image": str(image)} for image in paths]


def _images(folder: Path, classes: Iterable[str]) -> list[str]:
    """All images of the two parts in natural order; raises for a class folder that is missing, empty or unknown."""
    parts = [folder / part for part in PARTS if (folder / part).is_dir()]
    if not parts:
        raise MissingDataError(f"{folder} holds neither Training nor Testing. {HOW_TO_GET}")
    if problems := [problem for part in parts for problem in _folder_problems(part, classes)]:
        raise DataError(problems[0])
    paths = (path for part in parts for path in image_files(part))
    return sorted((path.relative_to(folder).as_posix() for path in paths), key=natural_order)


def _folder_problems(part: Path, classes: Iterable[str]) -> list[str]:
    """What is wrong with the class folders of Training or Testing."""
    folders = sorted(path.name for path in part.iterdir() if path.is_dir() and path.name[0] != ".")
    unknown = [name for name in folders if name not in {*classes, *LABELS.values()}]
    missing = [name for name in classes if name not in folders]
    empty = [name for name in folders if name not in unknown and not image_files(part / name)]
    loose = [path for path in image_files(part) if path.parent == part]
    return [
        *(f"{part / name} is no known class folder. Rename it, or add it to class_names." for name in unknown),
        *(f"{part} has no class folder {name}. Complete it, or set class_names to {folders}." for name in missing),
        *(f"{part / name} is an empty class folder. Copy its images again, or leave it out." for name in empty),
        *(f"{path} lies in no class folder. Move it into one." for path in loose),
    ]


def _class_of(image: str) -> str:
    return image.split("/")[1]


def _grouped(
    folder: Path, images: Sequence[str], group_of: Mapping[str, str], split: str, fold: int, rotating: bool
) -> list[str]:
    if (number := len(set(group_of.values()))) < 2 * FOLDS:
        raise MissingDataError(f"{folder} has {number} groups of images that belong together. At least ten are needed.")
    if rotating:
        fifths = [fifth for _, fifth in _folds(images, group_of)]
        place = {"test": fold, "validation": (fold + 1) % FOLDS}
        out = {*fifths[fold], *fifths[(fold + 1) % FOLDS]}
        return fifths[place[split]] if split in place else [image for image in images if image not in out]
    others, testing = _folds(images, group_of)[0]
    if split == "test":
        return testing
    training, validating = _folds(others, group_of)[fold]
    return training if split == "training" else validating


def _folds(images: Sequence[str], group_of: Mapping[str, str]) -> list[tuple[list[str], list[str]]]:
    """Five divisions of the images, most and a fifth, each with about as many of every class as there are in all."""
    classes, groups = [_class_of(image) for image in images], [group_of[image] for image in images]
    divisions = StratifiedGroupKFold(FOLDS).split(classes, classes, groups)
    return [([images[n] for n in most], [images[n] for n in fifth]) for most, fifth in divisions]


def _original(folder: Path, images: list[str], split: str, fold: int) -> list[str]:
    part = "Testing" if split == "test" else "Training"
    own = [image for image in images if image.startswith(f"{part}/")]
    if not own:
        raise MissingDataError(
            f"{folder} has no folder {part}, which partition 'original' needs. Use partition 'grouped'."
        )
    validating = set(own[fold::FOLDS])
    return own if split == "test" else [image for image in own if (image in validating) == (split == "validation")]


def verify(dataset_dir: str | Path) -> list[str]:
    """Reads every image and returns every problem found, each a sentence that names its file.

    Near-duplicates in two classes are problems, and so are those across Training and Testing, which are counted. A
    class that neither Training nor Testing has isn't one.
    """
    try:
        folder = existing_folder(dataset_dir, HOW_TO_GET)
        parts = [folder / part for part in PARTS if (folder / part).is_dir()]
        if not parts:
            raise MissingDataError(f"{folder} holds neither Training nor Testing. {HOW_TO_GET}")
    except DataError as error:
        return [str(error)]
    classes = [name for name in LABELS.values() if any((part / name).is_dir() for part in parts)]
    problems = [problem for part in parts for problem in _folder_problems(part, classes)]
    paths = [path for part in parts for name in classes for path in image_files(part / name)]
    images = [path.relative_to(folder).as_posix() for path in paths]
    strange = (path for part in parts for path in sorted(part.glob("*/[!.]*")) if path.is_file())
    problems += [
        f"{path} is no {' or '.join(SUFFIXES)} file and isn't read. Convert it, or move it away."
        for path in strange
        if path.suffix.lower() not in SUFFIXES
    ]
    hash_of, broken = hashes(folder, images, None)
    problems += broken
    try:
        given_groups(folder, images)
    except DataError as error:
        problems.append(str(error))
    return problems + (_duplicate_problems(list(hash_of), near_duplicates(list(hash_of.values()))) if hash_of else [])


def _duplicate_problems(images: Sequence[str], near: csr_matrix) -> list[str]:
    pairs = triu(near, 1).tocoo()
    pairs = [(images[a], images[b]) for a, b in zip(pairs.row, pairs.col, strict=True)]
    problems = [
        f"{a} and {b} are one image, or nearly, in two classes. Keep the right one."
        for a, b in pairs
        if _class_of(a) != _class_of(b)
    ]
    across = [(a, b) for a, b in pairs if a.split("/")[0] != b.split("/")[0]]
    if across:
        testing = {image for pair in across for image in pair if image.startswith("Testing/")}
        total = sum(image.startswith("Testing/") for image in images)
        named = "; ".join(f"{a} and {b}" for a, b in across[:3])
        named += "; ..." if len(across) > 3 else ""
        problems.append(
            f"{len(testing)} of the {total} images of Testing have near-duplicates in Training ({named}). "
            "Partition 'grouped' keeps them together, 'original' does not."
        )
    return problems
