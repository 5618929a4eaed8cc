"""The simplest whole-tumor segmentation: FLAIR above one threshold, fitted on the training patients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

EDGES = np.linspace(-5, 15, 801)  # of thresholds, in z-scores of each scan's brain


def whole_tumor_by_flair(
    training: Iterable[dict[str, Any]],
    test: Iterable[dict[str, Any]],
    load: Callable[[dict[str, Any]], dict[str, Any]],
) -> tuple[float, dict[str, float]]:
    """Dice of the whole tumor in each test patient, for the threshold whose pooled training Dice is best.

    Args:
        training: items as custom.datasets.brain_tumors.datalist gives them.
        test: items of the same kind.
        load: loads an item: "image" (4, x, y, z), z-scores with FLAIR first and 0 outside the brain, and "label"
            (1, x, y, z).

    Returns:
        The threshold, and {subject: Dice}.
    """
    inside, outside = np.zeros(len(EDGES) - 1), np.zeros(len(EDGES) - 1)
    for item in training:
        flair, tumor = _brain(load(item))
        inside += np.histogram(flair[tumor].clip(EDGES[0], EDGES[-1]), EDGES)[0]
        outside += np.histogram(flair[~tumor].clip(EDGES[0], EDGES[-1]), EDGES)[0]
    hits, false = inside[::-1].cumsum()[::-1], outside[::-1].cumsum()[::-1]  # above each bin's lower edge
    threshold = float(EDGES[np.argmax(2 * hits / (hits + false + inside.sum()))])
    scores = {}
    for item in test:
        flair, tumor = _brain(load(item))
        above = flair >= threshold
        scores[str(item["subject"])] = round(float(2 * (above & tumor).sum() / (above.sum() + tumor.sum())), 4)
    return threshold, scores


def _brain(loaded: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    flair, label = (torch.as_tensor(loaded[key])[0].numpy() for key in ("image", "label"))
    return flair[flair != 0], label[flair != 0] > 0
