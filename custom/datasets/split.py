"""Which participants train, validate and test, in all data sets without a split of their own."""

from __future__ import annotations

from collections.abc import Iterable

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


def check_split(split: str, fold: int) -> None:
    """Raises ConfigError for an unknown split or fold."""
    if split not in ("training", "validation", "test"):
        raise ConfigError(f'split must be "training", "validation" or "test", got {split!r}.')
    if fold not in range(FOLDS):
        raise ConfigError(f"fold must be 0 to {FOLDS - 1}, got {fold!r}.")
