"""An engine's output as Ignite's own metrics want it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.handlers import from_engine


def stacked(keys: Sequence[str]) -> Callable[[Any], tuple[torch.Tensor, ...]]:
    """monai.handlers.from_engine, with each key's tensors of a batch stacked into one, (B, ...)."""
    lists = from_engine(keys)
    return lambda output: tuple(torch.stack([torch.as_tensor(one) for one in found]) for found in lists(output))
