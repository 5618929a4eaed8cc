"""The coded terms of a segment in DICOM, SNOMED CT's.

DICOM PS3.16: CID 7150 gives the categories, CID 7166 and 7168 tissues and lesions.
"""

from __future__ import annotations

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

_LESION = codes.SCT.MorphologicallyAbnormalStructure

# by the bundles' own names: category, type, and what a reader should know
TERMS: dict[str, tuple[Code, Code, str]] = {
    "CSF": (codes.SCT.BodySubstance, codes.SCT.CerebrospinalFluid, "Cerebrospinal fluid"),
    "GM": (codes.SCT.Tissue, codes.SCT.GrayMatter, "Grey matter"),
    "WM": (codes.SCT.Tissue, codes.SCT.WhiteMatter, "White matter"),
    "NCR": (_LESION, codes.SCT.Necrosis, "Necrotic and non-enhancing tumor core"),
    "ED": (_LESION, codes.SCT.Edema, "Edema around the tumor"),
    # SNOMED CT has no enhancing lesion (CID 7168 takes NCI's C113842): the description says which part it is
    "ET": (_LESION, codes.SCT.Neoplasm, "Enhancing tumor"),
}
OTHER = (codes.SCT.Tissue, codes.SCT.Tissue, "A label of one's own")
