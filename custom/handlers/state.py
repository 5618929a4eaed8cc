"""State that MONAI's trainers and evaluators keep, with types: Ignite's own classes do not know these attributes."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine


def rank_of(engine: Engine) -> int:
    """The number of this process; 0 writes files."""
    rank: int = engine.state.rank  # type: ignore[attr-defined]
    return rank


def best_epoch_of(evaluator: Engine) -> int:
    """The epoch of the best validation; below 1 before the first validation."""
    epoch: int = evaluator.state.best_metric_epoch  # type: ignore[attr-defined]
    return epoch


def best_metric_of(evaluator: Engine) -> float:
    """The best value of the key metric; NaN if it never had a value."""
    metric: float = evaluator.state.best_metric  # type: ignore[attr-defined]
    return metric


def items_of(engine: Engine) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The items of the batch and their outputs, both decollated by MONAI's engines."""
    batch: Any = engine.state.batch
    output: Any = engine.state.output
    return list(zip(batch, output, strict=True))
