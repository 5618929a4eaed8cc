"""The areas of the cortex after Desikan and Killiany, with FreeSurfer's names, codes and colours.

Desikan et al. 2006, NeuroImage 31(3), 968-980. Names, codes and colours are those of FreeSurferColorLUT.txt, and the
lobes those of https://surfer.nmr.mgh.harvard.edu/fswiki/CorticalParcellation, with the cingulate areas and the insula
apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from custom.datasets import freesurfer


@dataclass(frozen=True)
class Area:
    """One area of the cortex, the same number on both sides.

    Args:
        number: 1 to 35, without 4 (the corpus callosum, which is no cortex).
        name: FreeSurfer's.
        lobe: a key of LOBES.
        colour: red, green, blue, 0 to 255.
    """

    number: int
    name: str
    lobe: str
    colour: tuple[int, int, int]


AREAS = (
    Area(1, "bankssts", "temporal", (25, 100, 40)),
    Area(2, "caudalanteriorcingulate", "cingulate", (125, 100, 160)),
    Area(3, "caudalmiddlefrontal", "frontal", (100, 25, 0)),
    Area(5, "cuneus", "occipital", (220, 20, 100)),
    Area(6, "entorhinal", "temporal", (220, 20, 10)),
    Area(7, "fusiform", "temporal", (180, 220, 140)),
    Area(8, "inferiorparietal", "parietal", (220, 60, 220)),
    Area(9, "inferiortemporal", "temporal", (180, 40, 120)),
    Area(10, "isthmuscingulate", "cingulate", (140, 20, 140)),
    Area(11, "lateraloccipital", "occipital", (20, 30, 140)),
    Area(12, "lateralorbitofrontal", "frontal", (35, 75, 50)),
    Area(13, "lingual", "occipital", (225, 140, 140)),
    Area(14, "medialorbitofrontal", "frontal", (200, 35, 75)),
    Area(15, "middletemporal", "temporal", (160, 100, 50)),
    Area(16, "parahippocampal", "temporal", (20, 220, 60)),
    Area(17, "paracentral", "frontal", (60, 220, 60)),
    Area(18, "parsopercularis", "frontal", (220, 180, 140)),
    Area(19, "parsorbitalis", "frontal", (20, 100, 50)),
    Area(20, "parstriangularis", "frontal", (220, 60, 20)),
    Area(21, "pericalcarine", "occipital", (120, 100, 60)),
    Area(22, "postcentral", "parietal", (220, 20, 20)),
    Area(23, "posteriorcingulate", "cingulate", (220, 180, 220)),
    Area(24, "precentral", "frontal", (60, 20, 220)),
    Area(25, "precuneus", "parietal", (160, 140, 180)),
    Area(26, "rostralanteriorcingulate", "cingulate", (80, 20, 140)),
    Area(27, "rostralmiddlefrontal", "frontal", (75, 50, 125)),
    Area(28, "superiorfrontal", "frontal", (20, 220, 160)),
    Area(29, "superiorparietal", "parietal", (20, 180, 140)),
    Area(30, "superiortemporal", "temporal", (140, 220, 220)),
    Area(31, "supramarginal", "parietal", (80, 160, 20)),
    Area(32, "frontalpole", "frontal", (100, 0, 100)),
    Area(33, "temporalpole", "temporal", (70, 70, 70)),
    Area(34, "transversetemporal", "temporal", (150, 150, 200)),
    Area(35, "insula", "insula", (255, 192, 32)),
)
LEFT, RIGHT = 1000, 2000  # plus the number: the code of an area
SIDES = {3: LEFT, 42: RIGHT}  # by FreeSurfer's code of the cortex
NUMBERS = tuple(area.number for area in AREAS)
LABELS = {0: "background"} | {area.number: area.name for area in AREAS}
LOBES = {lobe: tuple(area.name for area in AREAS if area.lobe == lobe) for lobe in dict.fromkeys(a.lobe for a in AREAS)}
CORTEX = freesurfer.output("cerebral cortex")[0]  # of a network's outputs
CLASSES = len(freesurfer.LABELS)  # a network's outputs but the side
SHARES = CLASSES + 1  # the channels that a network for areas sees


# SNOMED CT has no term for most of these areas in DICOM's context groups (pydicom 3.0.2): these are of the cortex.
_CORTEX_TERM = ("40146001", "Cerebral cortex")
_TERMS = {"entorhinal": ("3937002", "Entorhinal cortex"), "insula": ("36169008", "Insula")}


def snomed(name: str) -> tuple[str, str]:
    """SNOMED CT's code and meaning for an area by FreeSurfer's name; those of the cortex where it has no own one."""
    return _TERMS.get(name, _CORTEX_TERM)


def lobes_ml(areas: Mapping[str, float]) -> dict[str, float]:
    """Volumes of the lobes: {"lh-frontal": ml, ...}.

    Args:
        areas: ml by FreeSurfer's name, such as "ctx-lh-insula".
    """
    return {
        f"{side}-{lobe}": round(sum(areas.get(f"ctx-{side}-{name}", 0.0) for name in names), 3)
        for side in ("lh", "rh")
        for lobe, names in LOBES.items()
    }


def names_and_colours() -> dict[int, tuple[str, tuple[int, int, int]]]:
    """{code: (FreeSurfer's name, colour)} of every area and side: 1001 is ctx-lh-bankssts."""
    return {
        first + area.number: (f"ctx-{side}-{area.name}", area.colour)
        for first, side in ((LEFT, "lh"), (RIGHT, "rh"))
        for area in AREAS
    }


def drawn_labels(labels_by_code: Mapping[int, int]) -> dict[int, int]:
    """{code: label} for maps whose cortex has areas: a structure's own label, or CLASSES plus the area's number."""
    return dict(labels_by_code) | {first + number: CLASSES + number for first in (LEFT, RIGHT) for number in NUMBERS}
