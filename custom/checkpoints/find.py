"""Which weights a bundle has, and which of them a command or the server uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from custom.checkpoints.record import read_record
from custom.errors import CheckpointError, ConfigError

CORRECTED = "corrected"  # the folder, in a bundle's output_dir, of weights trained from corrected labels


@dataclass(frozen=True)
class Weights:
    """One file of weights.

    Args:
        name: "shipped", "trained" (the user's own training), or the time of a training from corrected labels.
        path: the file.
        date: when they were made.
        record: what stands beside them (custom.checkpoints.record); {} where nothing does.
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
        """Whether a sample of custom.samples stands behind them; None where nobody wrote it down."""
        return False if self.name == "shipped" else self.record.get("simulated")


def default_weights(output_dir: str | Path, bundle_root: str | Path) -> str:
    """The user's own training, output_dir/model.pt, if there is one; otherwise the weights shipped with the bundle."""
    own, shipped = Path(output_dir) / "model.pt", shipped_weights(bundle_root)
    return str(shipped if shipped.is_file() and not own.is_file() else own)


def shipped_weights(bundle_root: str | Path) -> Path:
    """Where a bundle's shipped weights lie, if it has any."""
    return Path(bundle_root) / "models" / "model.pt"


def find_weights(bundle_root: Path, output_dir: Path, network: str | None = None) -> list[Weights]:
    """All weights of a bundle, the newest first, the shipped ones last.

    Args:
        bundle_root: the bundle's folder, with models/model.pt where weights are shipped.
        output_dir: of its trainings: model.pt, and corrected/<time>/model.pt with a finished record.
        network: a mixin of configs/networks; corrected weights of other networks are left out.
    """
    own = [("trained", output_dir / "model.pt")] if (output_dir / "model.pt").is_file() else []
    own += [(path.parent.name, path) for path in output_dir.glob(f"{CORRECTED}/[0-9]*/model.pt")]
    found = [_weights(name, path) for name, path in own]
    finished = [one for one in found if one.name == "trained" or "good" in one.record]
    finished = [one for one in finished if one.record.get("network", network) == network]
    shipped = shipped_weights(bundle_root)
    newest_first = sorted(finished, key=lambda one: one.date, reverse=True)
    return newest_first + ([_weights("shipped", shipped)] if shipped.is_file() else [])


def _weights(name: str, path: Path) -> Weights:
    record = read_record(path)
    made = datetime.fromtimestamp(path.stat().st_mtime).astimezone()
    return Weights(name, path, datetime.fromisoformat(record["date"]) if "date" in record else made, record)


def choose(found: Sequence[Weights], wanted: str, bundle: str) -> Weights:
    """The newest good weights for "newest", else those of that name.

    Raises:
        CheckpointError: the bundle has none.
        ConfigError: it has none of that name.
    """
    if not found:
        raise CheckpointError(f"{bundle} has no weights: train it first (brainmri train), or name its runs' folder.")
    if wanted == "newest":
        return next((one for one in found if one.good), found[-1])
    for one in found:
        if one.name == wanted:
            return one
    raise ConfigError(f"{bundle} has no weights {wanted!r}: name newest or one of {[one.name for one in found]}.")


def check_for_patients(weights: Weights, bundle: str) -> None:
    """Raises ConfigError where weights aren't known to come from real scans: a PACS holds patients."""
    if weights.simulated is False:
        return
    why = "were trained on a simulated sample" if weights.simulated else "have no record of what they were trained on"
    raise ConfigError(
        f"{bundle}'s weights {weights.path} {why}, and the studies are a PACS: train on real scans, or add "
        "--allow_simulated to try it out."
    )
