"""Which MR contrast a name speaks of: a file's, a DICOM series' or a bundle's channel."""

from __future__ import annotations

import re
from pathlib import Path

# The first rule that fits says it.
_RULES = (
    ("FLAIR", r"flair|(dark|black).?fluid|t2f(?![a-z])"),
    ("T2*", r"t2.?(star|\*)|swi(?![a-z])"),
    (
        "T1ce",
        r"t1.?(w.?)?(ce|gd|c|km)(?![a-z])|(post|gad|gd).*t1|t1.*(post|gad|contrast|c\+|\+.?c)",
    ),
    ("T1", r"t1|mp.?rage|bravo|spgr|tfl3d"),
    ("T2", r"t2"),
)
_NO_SCAN = re.compile(r"localizer|scout|survey|dwi|\badc\b|bold|perfusion|fieldmap|angio|\btof\b")
_ENDINGS = (".nii.gz", ".nii")


def contrast_of(text: str) -> str | None:
    """T1, T1ce, T2, FLAIR or T2* where a text names one; None where it names none.

    Args:
        text: "T1w", "AX T1 POST GAD", "t2_tse_tra", "Sag MPRAGE", ...
    """
    low = re.sub(r"[_\-]", " ", text.lower())
    if _NO_SCAN.search(low):
        return None
    return next((name for name, rule in _RULES if re.search(rf"(?<![a-z0-9])({rule})", low)), None)


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
