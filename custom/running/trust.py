"""How far a segmentation can be trusted: the expected Dice, and doubts in words. A scan without a head is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from custom.datasets import freesurfer
from custom.errors import DataError
from custom.running.confidence import Fit, confidence, shows_a_head

DOUBTFUL = 0.7  # expected Dice below which a scan gets a warning
DOUBTFUL_STRUCTURE = 0.5
ORDERS = {
    ("CSF", "GM", "WM"): "T1w",
    ("WM", "GM", "CSF"): "T2w",
    ("CSF", "WM", "GM"): "FLAIR",
    ("WM", "CSF", "GM"): "PDw",
}
WHY = "possible reasons are motion, a contrast agent, a lesion, or a field of view that cuts the brain"


def trust_in(
    item: Mapping[str, Any], labels: Mapping[int, str], fits: Mapping[str, Fit]
) -> tuple[dict[str, float], str, list[str]]:
    """Confidence, contrast and doubts about one scan.

    Args:
        item: what custom.running.Predictor gives, with structures and their measures.
        labels: {0: "background", 1: "CSF", ...} of item["pred"].
        fits: calibration of the confidence, by name (custom.running.confidence.read_fits).

    Returns:
        The Dice to be expected, 0 to 1, of "scan", each tissue and each structure; the contrast by the order of the
        tissues' intensities ("T1w", ..., or ""); and a sentence for each doubt.

    Raises:
        DataError: no brain was found.
    """
    measures, affine = item["measures"], np.asarray(item["scan"].affine, dtype=np.float64)
    if not shows_a_head(measures):
        raise DataError("no head was found. Give an MR scan that shows a brain.")
    expected = confidence(measures, abs(np.linalg.det(affine[:3, :3])) / 1000, fits)
    doubts = []
    if expected["scan"] < DOUBTFUL:
        doubts.append(f"confidence is low (expected Dice {expected['scan']:.2f}): {WHY}")
    else:
        names = [name for name, _ in freesurfer.names_and_colours().values()]
        if weak := [name for name in names if expected.get(name, 1.0) < DOUBTFUL_STRUCTURE]:
            doubts.append(f"confidence is low in {', '.join(weak)}. Check them in the label map")
    contrast, order = order_of_tissues(np.asarray(item["scan"])[0], item["pred"], labels)
    return expected, contrast, [*doubts, *([order] if order else [])]


def order_of_tissues(scan: np.ndarray, labels: np.ndarray, names: Mapping[int, str]) -> tuple[str, str]:
    """The contrast by the order of the tissues' median intensities ("T1w", ...), and a warning where it is unusual.

    Both are "" if a tissue is missing.
    """
    some = tuple(slice(None, None, max(1, n // 96)) for n in scan.shape)
    values = {name: scan[some][labels[some] == code] for code, name in names.items() if name in freesurfer.TISSUE_NAMES}
    if len(values) < 3 or min(len(voxels) for voxels in values.values()) < 100:
        return "", ""
    medians = {name: float(np.median(voxels)) for name, voxels in values.items()}
    spread = np.mean([np.subtract(*np.percentile(values[name], [75, 25])) for name in ("GM", "WM")])
    if abs(medians["GM"] - medians["WM"]) < 0.25 * spread:
        return "", "grey and white matter are about equally bright: their boundary is unreliable"
    order = tuple(sorted(medians, key=lambda name: medians[name]))
    if order not in ORDERS:
        brightness = " < ".join(order)
        return "", f"the order of the tissues' brightness ({brightness}) fits no usual contrast (T1w, T2w, FLAIR, PDw)"
    return ORDERS[order], ""
