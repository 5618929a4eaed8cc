"""Coded terms and colours for the segments of a DICOM SEG.

Source: DICOM PS3.16, CID 7150 (categories), CID 7140 (brain structures for volumetric measurement), CID 7166 and 7168
(tissues and lesions), CID 244 (sides). The codes are those of pydicom's dictionaries.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from custom.datasets import cortical_areas, freesurfer


@dataclass(frozen=True)
class Term:
    """What a segment is.

    Args:
        category: the kind of thing.
        type: the thing, without its side.
        description: in words.
        side: left or right; None if the segment has no side.
        colour: red, green, blue, 0 to 255; None for a viewer's choice.
    """

    category: Code
    type: Code
    description: str
    side: Code | None = None
    colour: tuple[int, int, int] | None = None


_LESION = codes.SCT.MorphologicallyAbnormalStructure
_BRAIN = codes.cid7140
# By FreeSurfer's name without its side. SNOMED CT has no ventral diencephalon, so DICOM gave it a code of its own.
_STRUCTURES = {
    "Cerebral-White-Matter": _BRAIN.CerebralWhiteMatter,
    "Cerebral-Cortex": codes.SCT.CerebralCortex,
    "Lateral-Ventricle": _BRAIN.LateralVentricle,
    "Cerebellum-White-Matter": _BRAIN.CerebellarWhiteMatter,
    "Cerebellum-Cortex": _BRAIN.CerebellarCortex,
    "Thalamus": _BRAIN.ThalamusPart,
    "Caudate": _BRAIN.CaudateNucleus,
    "Putamen": _BRAIN.Putamen,
    "Pallidum": _BRAIN.GlobusPallidus,
    "3rd-Ventricle": _BRAIN.ThirdVentricle,
    "4th-Ventricle": _BRAIN.FourthVentricle,
    "Brain-Stem": _BRAIN.BrainStem,
    "Hippocampus": _BRAIN.Hippocampus,
    "Amygdala": _BRAIN.Amygdala,
    "CSF-around-brain": _BRAIN.CranialSubarachnoidSpace,
    "Accumbens-area": _BRAIN.NucleusAccumbens,
    "VentralDC": _BRAIN.VentralDiencephalon,
}
_SIDES = {"Left": codes.SCT.Left, "Right": codes.SCT.Right}


def _structure(code: int, name: str, colour: tuple[int, int, int]) -> Term:
    side, _, title = name.partition("-") if name.startswith(tuple(_SIDES)) else ("", "", name)
    description = f"{name}, code {code} of FreeSurfer"
    return Term(codes.SCT.AnatomicalStructure, _STRUCTURES[title], description, _SIDES.get(side), colour)


def _area(code: int, name: str, colour: tuple[int, int, int]) -> Term:
    _, side, title = name.split("-")
    value, meaning = cortical_areas.snomed(title)
    description = f"{name}, code {code} of FreeSurfer (Desikan-Killiany)"
    term = Code(value, "SCT", meaning)
    return Term(codes.SCT.AnatomicalStructure, term, description, _SIDES["Left" if side == "lh" else "Right"], colour)


TERMS: dict[str, Term] = {
    "CSF": Term(codes.SCT.BodySubstance, codes.SCT.CerebrospinalFluid, "Cerebrospinal fluid"),
    "GM": Term(codes.SCT.Tissue, codes.SCT.GrayMatter, "Grey matter"),
    "WM": Term(codes.SCT.Tissue, codes.SCT.WhiteMatter, "White matter"),
    "NCR": Term(_LESION, codes.SCT.Necrosis, "Necrotic and non-enhancing tumor core"),
    "ED": Term(_LESION, codes.SCT.Edema, "Edema around the tumor"),
    # SNOMED CT has no enhancing lesion (CID 7168 takes NCI's C113842): the description names the part
    "ET": Term(_LESION, codes.SCT.Neoplasm, "Enhancing tumor"),
}
TERMS |= {name: _structure(code, name, colour) for code, (name, colour) in freesurfer.names_and_colours().items()}
TERMS |= {name: _area(code, name, colour) for code, (name, colour) in cortical_areas.names_and_colours().items()}
OTHER = Term(codes.SCT.Tissue, codes.SCT.Tissue, "A label without a coded term")
