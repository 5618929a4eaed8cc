"""SNOMED CT terms for the segments of a DICOM SEG.

Source: DICOM PS3.16, CID 7150 (categories), CID 7166 and 7168 (tissues and lesions).
"""

from __future__ import annotations

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

_LESION = codes.SCT.MorphologicallyAbnormalStructure

# label of a bundle: category, type, description
TERMS: dict[str, tuple[Code, Code, str]] = {
    "CSF": (codes.SCT.BodySubstance, codes.SCT.CerebrospinalFluid, "Cerebrospinal fluid"),
    "GM": (codes.SCT.Tissue, codes.SCT.GrayMatter, "Grey matter"),
    "WM": (codes.SCT.Tissue, codes.SCT.WhiteMatter, "White matter"),
    "NCR": (_LESION, codes.SCT.Necrosis, "Necrotic and non-enhancing tumor core"),
    "ED": (_LESION, codes.SCT.Edema, "Edema around the tumor"),
    # SNOMED CT has no enhancing lesion (CID 7168 takes NCI's C113842): the description names the part
    "ET": (_LESION, codes.SCT.Neoplasm, "Enhancing tumor"),
}
OTHER = (codes.SCT.Tissue, codes.SCT.Tissue, "A label without a coded term")
