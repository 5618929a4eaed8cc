"""An engine's output as Ignite's own metrics take it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.handlers import from_engine


def stacked(keys: Sequence[str]) -> Callable[[Any], tuple[torch.Tensor, ...]]:
    """monai.handlers.from_engine, with each key's tensors of a batch stacked into one, (B, ...)."""
    lists = from_engine(keys)

    def stack(output: Any) -> tuple[torch.Tensor, ...]:
        return tuple(torch.stack([torch.as_tensor(value) for value in values]) for values in lists(output))

    return stack
