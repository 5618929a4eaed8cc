"""The Dice to be expected of a scan's labels, where nobody has drawn reference labels."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from custom.datasets import freesurfer
from custom.files import NO_JSON
from custom.transforms.measures import Measures

# Raw expected Dice of the structures: the least plain mean, or the least mean by volume, that a head has. Of 60
# simulated heads of all kinds the lowest mean was 0.88. Of two phantoms, a body, noise and a head without its brain the
# highest was 0.70, and by volume 0.77.
HEAD_MEAN, HEAD_MEAN_BY_VOLUME = 0.80, 0.85


@dataclass(frozen=True)
class Evidence:
    """What the expected Dice of one label is computed from.

    Args:
        own: the Dice that the label's probabilities themselves expect (Measures.expected_dice), 0 to 1.
        median: the median of `own` over all structures of the scan.
        log_ml: natural logarithm of the label's volume in ml. Errors at the border weigh more in a small structure.
    """

    own: float
    median: float
    log_ml: float

    def combined(self, weights: tuple[float, float, float]) -> float:
        """The weighted sum of the three values."""
        return weights[0] * self.own + weights[1] * self.median + weights[2] * self.log_ml


@dataclass(frozen=True)
class Fit:
    """Turns evidence into Dice: a weighted sum, then a monotone curve.

    Args:
        evidence: places on the weighted sum, ascending.
        dice: the Dice at these places, 0 to 1.
        weights: of Evidence's three values.
    """

    evidence: tuple[float, ...]
    dice: tuple[float, ...]
    weights: tuple[float, float, float] = (1.0, 0.0, 0.0)

    def __call__(self, evidence: Evidence) -> float:
        """The Dice to be expected, 0 to 1."""
        return float(np.interp(evidence.combined(self.weights), self.evidence, self.dice))


def evidence_of(measures: Measures, voxel_ml: float) -> dict[str, Evidence]:
    """Evidence for "scan" (the mean of the tissues'), each tissue and each structure that the scan has.

    Args:
        measures: of one scan.
        voxel_ml: the volume of a voxel of the scan.

    Returns:
        {} where there is no tissue.
    """
    codes = {name: -number for number, name in enumerate(freesurfer.TISSUE_NAMES, start=1)}
    structures = {name: code for code, (name, _) in freesurfer.names_and_colours().items()}
    own = {name: measures.expected_dice(code) for name, code in (codes | structures).items()}
    tissues = [own[name] for name in freesurfer.TISSUE_NAMES if not math.isnan(own[name])]
    if not tissues:
        return {}
    present = [own[name] for name in structures if not math.isnan(own[name])]
    median = float(np.median(present)) if present else tissues[0]
    evidence = {"scan": Evidence(sum(tissues) / len(tissues), median, 0.0)}
    for name, code in (codes | structures).items():
        if not math.isnan(own[name]):
            evidence[name] = Evidence(own[name], median, math.log(measures.voxels[code] * voxel_ml))
    return evidence


def confidence(measures: Measures, voxel_ml: float, fits: Mapping[str, Fit]) -> dict[str, float]:
    """The expected Dice, 0 to 1, of "scan", each tissue and each structure; {} where there is no tissue.

    Args:
        measures: of one scan.
        voxel_ml: the volume of a voxel of the scan.
        fits: by name, left and right together; without a fit it is what the probabilities themselves expect.
    """
    expected = {}
    for name, evidence in evidence_of(measures, voxel_ml).items():
        fit = fits.get(without_side(name))
        expected[name] = round(fit(evidence) if fit else evidence.own, 3)
    return expected


def without_side(name: str) -> str:
    """Thalamus for Left-Thalamus and Right-Thalamus."""
    return name.removeprefix("Left-").removeprefix("Right-")


def read_fits(weights: Path, sha256: str) -> dict[str, Fit]:
    """The fits in confidence.json beside weights; {} where there are none, or they belong to other weights."""
    try:
        content = json.loads(weights.with_name("confidence.json").read_text(encoding="utf-8"))
    except (OSError, *NO_JSON):
        return {}
    if content.get("weights_sha256") != sha256:
        return {}
    return {
        name: Fit(tuple(fit["evidence"]), tuple(fit["dice"]), tuple(fit.get("weights", (1.0, 0.0, 0.0))))
        for name, fit in content["fits"].items()
    }


def shows_a_head(measures: Measures) -> bool:
    """Whether the network is as sure of the structures as it is in a head, whole or in part."""
    codes = [code for code in measures.codes if measures.voxels[code] and code != freesurfer.AROUND_BRAIN]
    if not codes:
        return False
    expected = np.array([measures.expected_dice(code) for code in codes])
    voxels = np.array([measures.voxels[code] for code in codes])
    return bool(expected.mean() >= HEAD_MEAN or np.average(expected, weights=voxels) >= HEAD_MEAN_BY_VOLUME)
