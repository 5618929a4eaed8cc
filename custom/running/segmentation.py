"""What is measured from one segmentation: volumes, confidence, and warnings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from custom.datasets import cortical_areas, freesurfer
from custom.running.confidence import Fit
from custom.running.cortex import area_confidence, area_warnings, areas_ml
from custom.running.trust import trust_in
from custom.transforms.brain_masks import brain_masks

# ml in adults and children from two years on; outside them a result is likelier wrong than rare
PLAUSIBLE = {"CSF": (30, 700), "GM": (350, 1000), "WM": (250, 800)}


class Segmentation:
    """One scan's labels with all that is measured from them.

    Args:
        item: what custom.running.Predictor gives.
        labels: {0: "background", 1: "CSF", ...} of item["pred"].
        fits: calibration of the confidence, by name (custom.running.confidence.read_fits).

    Attributes:
        volumes: ml by label; with structures, also "brain" and "intracranial".
        structures: ml by FreeSurfer's name, {} without structures.
        area_codes: (x, y, z), FreeSurfer's codes of the areas of the cortex, int16; None if they were not asked for.
        areas, lobes: ml by name ("ctx-lh-insula", "lh-frontal"), {} if areas were not asked for.
        asymmetry: 100 (left - right) / mean of both, per cent, by structure.
        confidence: the Dice to be expected, 0 to 1, of "scan", each tissue and each structure; {} without structures.
        warnings: a sentence each.
        probabilities: (C, x, y, z) of the labels but the background, float16; None if they were not asked for.

    Raises:
        DataError: no brain was found.
    """

    def __init__(
        self,
        item: Mapping[str, Any],
        labels: Mapping[int, str],
        fits: Mapping[str, Fit] | None = None,
    ) -> None:
        self.item = item
        self.affine = np.asarray(item["scan"].affine, dtype=np.float64)
        self.labels: np.ndarray = item["pred"]
        self.names = dict(labels)
        self.codes: np.ndarray | None = item.get("structures")
        self.probabilities: np.ndarray | None = None
        if "probabilities" in item:
            self.probabilities = np.asarray(item["probabilities"])
        self.volumes = volumes_ml(self.labels, self.affine, self.names)
        self.warnings = [*item["scan"].meta["warnings"].splitlines()]
        self.structures: dict[str, float] = {}
        self.area_codes: np.ndarray | None = item.get("areas")
        self.areas: dict[str, float] = {}
        self.lobes: dict[str, float] = {}
        self.asymmetry: dict[str, float] = {}
        self.confidence: dict[str, float] = {}
        self.contrast = ""
        self.brain = self.intracranial = np.zeros((0, 0, 0), dtype=bool)
        if self.codes is not None:
            self._measure(self.codes, fits or {})
        self.warnings += warnings_of(self.labels, self.volumes)

    def _measure(self, codes: np.ndarray, fits: Mapping[str, Fit]) -> None:
        measures, ml = self.item["measures"], abs(np.linalg.det(self.affine[:3, :3])) / 1000
        self.confidence, self.contrast, doubts = trust_in(self.item, self.names, fits)
        self.brain, self.intracranial = brain_masks(codes, self.affine, freesurfer.AROUND_BRAIN)
        if "mask" in self.item:
            given = np.asarray(self.item["mask"])[0] > 0
            self.brain, self.intracranial = given, given | self.intracranial
        # With the ventricles and without the fluid around it, as FreeSurfer's BrainSeg. The labels' sum and the closed
        # mask would follow the contrast more: they lose or add thin sulci.
        self.volumes["brain"] = round(measures.expected_brain(freesurfer.AROUND_BRAIN) * ml, 2)
        self.volumes["intracranial"] = round(float(self.intracranial.sum() * ml), 2)
        names = freesurfer.names_and_colours()
        self.structures = {name: round(measures.voxels[code] * ml, 3) for code, (name, _) in names.items()}
        self.asymmetry = asymmetry_of(self.structures)
        self.warnings += doubts
        if "area_measures" in self.item:
            self._measure_areas()

    def _measure_areas(self) -> None:
        measures = self.item["area_measures"]
        self.areas = areas_ml(measures, self.affine)
        self.lobes = cortical_areas.lobes_ml(self.areas)
        self.confidence |= area_confidence(measures, self.confidence)
        self.warnings += area_warnings(measures, self.areas, self.affine)


def asymmetry_of(structures: Mapping[str, float]) -> dict[str, float]:
    """100 (left - right) / mean of both, per cent, by FreeSurfer's name without its side.

    Args:
        structures: ml by FreeSurfer's name, such as "Left-Thalamus"; {} gives {}.
    """
    asymmetry = {}
    for name, left in structures.items():
        right = structures.get(f"Right-{name.removeprefix('Left-')}")
        if name.startswith("Left-") and right is not None and left + right > 0:
            asymmetry[name.removeprefix("Left-")] = round(200 * (left - right) / (left + right), 1)
    return asymmetry


def volumes_ml(labels: np.ndarray, affine: np.ndarray, names: Mapping[int, str], digits: int = 2) -> dict[str, float]:
    """Millilitres of each label but 0, and "all", their sum.

    Args:
        labels: (x, y, z).
        affine: (4, 4), voxels to mm.
        names: {0: "background", 1: ...}
        digits: after the point.
    """
    ml = abs(np.linalg.det(affine[:3, :3])) / 1000
    volumes = {name: round(float((labels == code).sum() * ml), digits) for code, name in names.items() if code}
    return volumes | {"all": round(sum(volumes.values()), digits)}


def warnings_of(labels: np.ndarray, volumes: Mapping[str, float]) -> list[str]:
    """Warnings about implausible volumes and about tissue at the edge of the scan, a sentence each."""
    warnings = []
    for name, (low, high) in PLAUSIBLE.items():
        if name in volumes and not low <= volumes[name] <= high:
            warnings.append(f"{name} of {volumes[name]:.0f} ml is implausible ({low} to {high} expected)")
    edges = [np.take(labels, side, axis) > 0 for axis in range(3) for side in (0, -1)]
    if sum(edge.sum() for edge in edges) > 0.001 * (labels > 0).sum():
        warnings.append("tissue reaches the edge of the scan: the brain may be cut off")
    return warnings
