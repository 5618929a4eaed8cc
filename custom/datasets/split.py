"""Which participants train, validate and test, in all data sets without a split of their own."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from custom.errors import ConfigError, MissingDataError
from custom.reading.volumes import natural_order

FOLDS = 5  # of all participants a fifth tests, of the others a fifth validates


def split_by_participant(participants: Iterable[str], split: str, fold: int, source: object) -> list[str]:
    """The participants of one split, in natural order.

    Every fifth participant tests, whatever the fold. `fold` picks every fifth of the others to validate; the rest
    train.

    Args:
        participants: names or numbers as text; one that comes twice counts once.
        split: "training", "validation" or "test".
        fold: 0 to 4.
        source: the folder that errors name.

    Raises:
        ConfigError: an unknown split or fold.
        MissingDataError: too few participants for the split.
    """
    check_split(split, fold)
    everyone = sorted(set(participants), key=natural_order)
    others = [name for index, name in enumerate(everyone) if index % FOLDS]
    validating = others[fold::FOLDS]
    chosen = {
        "training": [name for name in others if name not in validating],
        "validation": validating,
        "test": everyone[::FOLDS],
    }[split]
    if not chosen:
        raise MissingDataError(f"{source} has too few participants for the {split} split. At least three are needed.")
    return chosen


def split_of_labelled(
    everyone: Mapping[str, Container[str]], label: str, split: str, fold: int, source: object
) -> list[str]:
    """The names of one split of the cases with a label; for "unlabelled", all other cases, which may be none.

    Args:
        everyone: each case's files by what they show.
        label: what the label map is called in them.
        split: "unlabelled", or as in split_by_participant.
        fold: as in split_by_participant.
        source: as in split_by_participant.

    Raises:
        ConfigError, MissingDataError: as split_by_participant.
    """
    if split == "unlabelled":
        return [case for case, files in everyone.items() if label not in files]
    labelled = [case for case, files in everyone.items() if label in files]
    return split_by_participant(labelled, split, fold, source)


def check_split(split: str, fold: int) -> None:
    """Raises ConfigError for an unknown split or fold."""
    if split not in ("training", "validation", "test"):
        raise ConfigError(f'split must be "training", "validation" or "test", got {split!r}.')
    if fold not in range(FOLDS):
        raise ConfigError(f"fold must be 0 to {FOLDS - 1}, got {fold!r}.")
