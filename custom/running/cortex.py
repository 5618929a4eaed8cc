"""What is measured from the areas of one scan's cortex: volumes, confidence, and which areas are cut."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from custom.datasets import cortical_areas
from custom.transforms.label_areas import AreaMeasures

CUT_MM2 = 20.0  # of an area in the outermost slices of a scan: it goes on beyond them
MISSING = 0.05  # of the other side's cortex: less is no hemisphere
CORTEX = {"lh": "Left-Cerebral-Cortex", "rh": "Right-Cerebral-Cortex"}
SIDES = {"lh": "left", "rh": "right"}


def areas_ml(measures: AreaMeasures, affine: np.ndarray) -> dict[str, float]:
    """Millilitres of each area by FreeSurfer's name, such as "ctx-lh-insula"."""
    ml = abs(np.linalg.det(affine[:3, :3])) / 1000
    names = cortical_areas.names_and_colours()
    return {name: round(measures.voxels[code] * ml, 3) for code, (name, _) in names.items()}


def area_confidence(measures: AreaMeasures, of_structures: Mapping[str, float]) -> dict[str, float]:
    """The expected Dice of each area, 0 to 1: what its probabilities expect, times that of its side's cortex.

    Args:
        measures: of one scan.
        of_structures: confidence of the structures, by FreeSurfer's name.
    """
    expected = {}
    for code, (name, _) in cortical_areas.names_and_colours().items():
        inside = measures.expected_dice(code)
        if not math.isnan(inside):
            expected[name] = round(inside * of_structures.get(CORTEX[name.split("-")[1]], 1.0), 3)
    return expected


def area_warnings(measures: AreaMeasures, areas: Mapping[str, float], affine: np.ndarray) -> list[str]:
    """Warnings about a hemisphere that is missing and about areas that are cut or absent, a sentence each."""
    warnings = []
    sides = {side: [name for name in areas if name.startswith(f"ctx-{side}")] for side in SIDES}
    ml = {side: sum(areas[name] for name in names) for side, names in sides.items()}
    absent = [side for side in SIDES if ml[side] <= MISSING * max(ml.values())]
    if len(absent) == len(SIDES):
        return ["there is no cortex in view: no area was found"]
    warnings += [f"the {SIDES[side]} hemisphere is missing: its areas are not measured" for side in absent]
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    pixel = float(np.sort(lengths)[:2].prod())  # of the finest slices: no face has smaller ones
    codes = {name: code for code, (name, _) in cortical_areas.names_and_colours().items()}
    seen = [name for side in SIDES if side not in absent for name in sides[side]]
    cut = [name for name in seen if measures.at_edge[codes[name]] * pixel >= CUT_MM2]
    warnings += [f"{name} is cut by the field of view" for name in cut]
    if lost := [name for name in seen if not areas[name]]:
        warnings.append(f"not found: {', '.join(lost)}")
    return warnings
