"""The attacks: python -m scripts.chaos [MINUTES] [SEED] [ROW ...] prints a table; exit code 1 if a fault was found."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from scripts.chaos.bombs import Bombs
from scripts.chaos.commands import FullDisk, Kills, commands, make_inputs
from scripts.chaos.rows import HEAD, Attack, Row

SERVER_SHARE = 0.3  # of the time


def main() -> None:
    parser = argparse.ArgumentParser("scripts/chaos.sh", description=__doc__)
    parser.add_argument(
        "minutes", nargs="?", default=20.0, type=float, help="how long; each row is tried at least once"
    )
    parser.add_argument("seed", nargs="?", default=0, type=int, help="of all random choices")
    parser.add_argument("rows", nargs="*", help="such as 'kill train', 'full disk', bombs, server; all without any")
    arguments = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="chaos-"))
    began = time.monotonic()
    attacks = make_attacks(work, arguments.seed, arguments.rows)
    with_server = not arguments.rows or "server" in arguments.rows
    seconds = 60 * arguments.minutes
    go_on(attacks, seconds * (1 - SERVER_SHARE * with_server))
    rows = [attack.row for attack in attacks]
    if with_server:
        from scripts.chaos.label_server import server_rows

        rows += server_rows(work / "server", SERVER_SHARE * seconds, arguments.seed)
    report(rows, work, arguments.seed, time.monotonic() - began)


def make_attacks(work: Path, seed: int, wanted: list[str]) -> list[Attack]:
    """One for each row of the table, in its order; of two calls with one seed each does the same."""
    inputs = make_inputs(work / "inputs")
    known = commands(inputs)
    kills = {
        name: Kills(name, command, inputs, work, random.Random(f"{seed} {name}")) for name, command in known.items()
    }
    others = [FullDisk(kills, work, random.Random(f"{seed} disk")), Bombs(work, random.Random(f"{seed} bombs"))]
    attacks: list[Attack] = [*kills.values(), *others]
    if unknown := set(wanted) - {"server", *(attack.row.name for attack in attacks)}:
        sys.exit(
            f"There is no row {sorted(unknown)[0]!r}. Use some of: {', '.join(a.row.name for a in attacks)}, server."
        )
    return [attack for attack in attacks if not wanted or attack.row.name in wanted]


def go_on(attacks: list[Attack], seconds: float) -> None:
    """Gives each attack an equal share of the time, and as much more as it needs to try something."""
    end, used = time.monotonic() + seconds, dict.fromkeys(range(len(attacks)), 0.0)

    def is_next(attack: Attack) -> bool:
        return attack.can_be_tried and (time.monotonic() < end or attack.row.tried == 0)

    while numbers := [number for number, attack in enumerate(attacks) if is_next(attack)]:
        number = min(numbers, key=lambda key: used[key])
        began = time.monotonic()
        attacks[number].once()
        used[number] += time.monotonic() - began
    for attack in attacks:
        attack.finish()


def report(rows: list[Row], work: Path, seed: int, seconds: float) -> None:
    faults = [fault for row in rows for fault in row.faults()]
    print(f"\n{seconds / 60:.1f} minutes, seed {seed}\n\n{HEAD}")
    for row in rows:
        print(row)
    if faults:
        print("\n" + "\n".join(faults) + f"\n\nThe files are in {work}.")
        sys.exit(1)
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
