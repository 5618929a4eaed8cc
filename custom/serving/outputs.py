"""What a bundle gives for one study: its label map or a further one ("more_outputs"), and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from custom.datasets import cortical_areas, freesurfer
from custom.errors import DataError
from custom.running import Predictor
from custom.running.confidence import read_fits
from custom.running.trust import trust_in

PRED = "pred"  # the entry of custom.running.Predictor's result that every bundle has
_RIGHT = 100  # plus the number of an area on the right


@dataclass(frozen=True)
class Result:
    """What a bundle found in one study.

    Args:
        labels: the label map (NIfTI, uint8, on the grid of the first file).
        uncertainty: the network's, in bits (`uncertainty_of`), or None.
        confidence: the Dice to be expected, 0 to 1, by name; {} for a bundle that measures none.
        warnings: a sentence each.
    """

    labels: Path
    uncertainty: float | None = None
    confidence: Mapping[str, float] = field(default_factory=dict)
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Output:
    """One more label map, which metadata.json names in "more_outputs". It is served as a model of its own.

    Args:
        title: what it shows, for the viewer.
        labels: {name: served code}, 1 to 255.
        codes: {code in the result: served code}, where they differ.
    """

    title: str
    labels: Mapping[str, int]
    codes: Mapping[int, int]


def _served(code: int) -> int:
    """An area's code from 1 to 255, which is what viewers and DICOM label maps hold: 1 to 35, and 101 to 135."""
    right = code >= cortical_areas.RIGHT
    return code - (cortical_areas.RIGHT - _RIGHT if right else cortical_areas.LEFT)


_AREAS = {code: name for code, (name, _) in cortical_areas.names_and_colours().items()}
OUTPUTS = {
    "structures": Output(
        "Brain structures, with FreeSurfer's names and codes",
        {name: code for code, (name, _) in freesurfer.names_and_colours().items()},
        {},
    ),
    "areas": Output(
        "Areas of the cortex (Desikan-Killiany), with FreeSurfer's names",
        {name: _served(code) for code, name in _AREAS.items()},
        {code: _served(code) for code in _AREAS},
    ),
}


def label_map(output: str, result: Mapping[str, Any]) -> np.ndarray:
    """The served label map (X, Y, Z), uint8, of a result of custom.running.Predictor.

    Args:
        output: "pred" or a key of OUTPUTS.
        result: has the entry `output`.
    """
    voxels = np.asarray(result[output])
    codes = OUTPUTS[output].codes if output in OUTPUTS else {}
    if not codes:
        return voxels.astype(np.uint8)
    table = np.zeros(max(codes) + 1, dtype=np.uint8)
    table[list(codes)] = list(codes.values())
    served: np.ndarray = table[voxels]
    return served


def trust(result: Mapping[str, Any], predictor: Predictor, name: str) -> tuple[dict[str, float], list[str]]:
    """Confidence and warnings of the any-scan network's result; none of other bundles."""
    if "measures" not in result:
        return {}, []
    try:
        expected, _, doubts = trust_in(result, predictor.labels, read_fits(predictor.path, predictor.sha256))
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    return expected, [*result["scan"].meta["warnings"].splitlines(), *doubts]
