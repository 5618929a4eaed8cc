"""Which MR contrast a name speaks of: a file's, a DICOM series' or a bundle's channel."""

from __future__ import annotations

import re
from pathlib import Path

ORDER = ("T1", "T1ce", "T2", "FLAIR")  # the first that a study has stands for it, whatever bundles are served
_T1 = r"t1|mp.?rage|bravo|spgr|tfl3d|vibe"
_AGENT = r"(?<![a-z])(ce|gad|gado|gd|km|post|contrast)(?![a-z])|(?<![a-z])c ?\+|\+ ?(c|gad|gd)(?![a-z])"
_WITHOUT = r"(?<![a-z])(pre|non?|nativ\w*|without|w/?o|post ?-?op\w*|surgery)(?![a-z])"
_NO_SCAN = re.compile(r"localizer|scout|survey|dwi|\badc\b|bold|perfusion|fieldmap|angio|\btof\b")
_ENDINGS = (".nii.gz", ".nii")


def contrast_of(text: str) -> str | None:
    """T1, T1ce, T2, FLAIR or T2* where a text names one; None where it names none.

    Args:
        text: "T1w", "AX T1 POST GAD", "t2_tse_tra", "Sag MPRAGE", ...
    """
    low = re.sub(r"[_\-]", " ", text.lower())

    def says(rule: str) -> bool:
        return re.search(rf"(?<![a-z0-9])s?({rule})", low) is not None  # Philips writes sT1W

    if _NO_SCAN.search(low):
        return None
    if says("flair|(dark|black).?fluid|t2f(?![a-z])"):
        return None if says("t1") else "FLAIR"  # a T1 FLAIR shows fluid dark and is neither
    if says(r"t2.?(star|\*)|swi(?![a-z])"):
        return "T2*"
    if says(_T1):
        with_agent = re.search(_AGENT, low) and not re.search(_WITHOUT, low)
        return "T1ce" if says(r"t1.?(w.?)?(ce|gd|gad|c|km)(?![a-z])") or with_agent else "T1"
    return "T2" if says("t2") else None


def scan_name(file: str | Path) -> str:
    """A file's name without NIfTI's ending."""
    name = Path(file).name
    return next((name[: -len(end)] for end in _ENDINGS if name.endswith(end)), name)


def study_and_contrast(file: str | Path) -> tuple[str, str | None]:
    """What the files of one study share, and the contrast that this file's last word on it names.

    sub-01_acq-mprage_T1w.nii.gz gives (sub-01_acq-mprage, T1), BraTS20_001_flair.nii.gz (BraTS20_001, FLAIR),
    brain.nii.gz (brain, None).
    """
    parts = re.split(r"([_\-\s.]+)", scan_name(file))
    for place in range(len(parts) - 1, -1, -1):
        if contrast := contrast_of(parts[place]):
            rest = parts[: max(0, place - 1)] + parts[place + 1 :]
            return "".join(rest).strip("_-. ") or scan_name(file), contrast
    return scan_name(file), None
