"""Which weights a bundle has, and which of them a command or the server uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from custom.checkpoints.record import read_record
from custom.errors import CheckpointError, ConfigError

FILE = "model.pt"  # of weights, in a training's output_dir and in a bundle's models
CORRECTED = "corrected"  # the folder, in a bundle's output_dir, of weights trained from corrected labels


@dataclass(frozen=True)
class Weights:
    """One file of weights.

    Args:
        name: "shipped", "trained" (the user's own training), or the time of a training from corrected labels.
        path: the file.
        date: when they were made.
        record: of custom.checkpoints.record; {} if there is none beside them.
    """

    name: str
    path: Path
    date: datetime
    record: dict[str, Any] = field(repr=False)

    @property
    def good(self) -> bool:
        """False for corrected weights that scored lower than those that they started from."""
        return bool(self.record.get("good", True))

    @property
    def simulated(self) -> bool | None:
        """Whether they were trained on a sample of custom.samples; None if no record says so."""
        return False if self.name == "shipped" else self.record.get("simulated")


def default_weights(output_dir: str | Path, bundle_root: str | Path) -> str:
    """The weights of the user's own training, if it has any; otherwise the weights shipped with the bundle."""
    own, shipped = trained_weights(output_dir), shipped_weights(bundle_root)
    return str(shipped if shipped.is_file() and not own.is_file() else own)


def trained_weights(output_dir: str | Path) -> Path:
    """Where a training writes its weights."""
    return Path(output_dir) / FILE


def shipped_weights(bundle_root: str | Path) -> Path:
    """Where a bundle's shipped weights lie, if it has any."""
    return Path(bundle_root) / "models" / FILE


def find_weights(bundle_root: Path, output_dir: Path, network: str | None = None) -> list[Weights]:
    """All weights of a bundle, the newest first, the shipped ones last.

    Args:
        bundle_root: the bundle's folder, with models/model.pt where weights are shipped.
        output_dir: of its trainings: model.pt, and corrected/<time>/model.pt with a finished record.
        network: a mixin of configs/networks; corrected weights of other networks are left out.
    """
    trained = trained_weights(output_dir)
    own = [_weights("trained", trained)] if trained.is_file() else []
    corrected = [_weights(path.parent.name, path) for path in output_dir.glob(f"{CORRECTED}/[0-9]*/{FILE}")]
    own += [weights for weights in corrected if "good" in weights.record]  # others' training was stopped
    own = [weights for weights in own if weights.record.get("network", network) == network]
    shipped = shipped_weights(bundle_root)
    newest_first = sorted(own, key=lambda weights: weights.date, reverse=True)
    return newest_first + ([_weights("shipped", shipped)] if shipped.is_file() else [])


def _weights(name: str, path: Path) -> Weights:
    record = read_record(path)
    made = datetime.fromtimestamp(path.stat().st_mtime).astimezone()
    return Weights(name, path, datetime.fromisoformat(record["date"]) if "date" in record else made, record)


def choose(choices: Sequence[Weights], wanted: str, bundle: str) -> Weights:
    """The weights to use.

    Args:
        choices: the weights that `find_weights` returns.
        wanted: "newest" for the newest good weights, or a name.
        bundle: the bundle's name, for the error messages.

    Raises:
        CheckpointError: the bundle has no weights.
        ConfigError: it has no weights of that name.
    """
    if not choices:
        raise CheckpointError(f"{bundle} has no weights. Train it first (brainmri train), or give its runs' folder.")
    if wanted == "newest":
        return next((weights for weights in choices if weights.good), choices[-1])
    for weights in choices:
        if weights.name == wanted:
            return weights
    names = [weights.name for weights in choices]
    raise ConfigError(f"{bundle} has no weights {wanted!r}. Use newest or one of {names}.")


def check_for_patients(weights: Weights, bundle: str) -> None:
    """Raises ConfigError if weights are not known to come from real scans: a PACS holds patients' scans."""
    if weights.simulated is False:
        return
    why = "were trained on a simulated sample" if weights.simulated else "have no record of what they were trained on"
    raise ConfigError(
        f"{bundle}'s weights {weights.path} {why}, and the studies are a PACS. Train on real scans, or add "
        "--allow_simulated to try it out."
    )
