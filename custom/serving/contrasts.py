"""Which MR contrast a name speaks of: a file's, a DICOM series' or a bundle's channel."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from custom.errors import DataError, MissingDataError

ORDER = ("T1", "T1ce", "T2", "FLAIR")  # the first that a study has stands for it, whatever bundles are served
_ENDINGS = (".nii.gz", ".nii")
_SUBJECT = re.compile(r"(?:sub|ses)-[a-zA-Z0-9]+_?")  # whose name may look like an agent's
_BIDS_AGENT = re.compile(r"_ce-[a-zA-Z0-9]+(?=_)")

# Vendors write planes, dimensions and sT1W before a weighting, without a space.
_BEFORE = r"(?<![a-z0-9])(?:[23]d|ax|sag|cor|tra|fs|ir|[ft]?se|ce|gad?o?|gd|km|post|pre|s|e)?"
_T1 = r"t1(?!\d(?!d))"
_T2 = r"t2(?!\d(?!d))"
# Siemens: MPRAGE, MEMPRAGE, MP2RAGE, TFL, FLASH, VIBE. GE: BRAVO, SPGR, FSPGR, LAVA. Philips: TFE, THRIVE. SPACE, CUBE,
# VISTA, TSE and FSE are run with every weighting, so that they name none.
_T1_SEQUENCE = r"(?:me?)?mp.?rage|bravo|(?:ir)?e?f?spgr|tfe|tfl(?:3d)?|turbo.?flash|flash|vibe|lava|thrive"
_FLAIR = r"flair|(?:dark|black|da).?(?:fluid|fl)(?![a-z])|fluid.?att|t2f(?![a-z])|(?:t2 ?)?tirm"
_STIR = r"(?<![a-z])(?:stir|fs|fat|orbit)"
_T2_STAR = r"t2.?(?:w.?)?(?:star|\*|ffe|fl[23]d|gre|ha?emo|merge|medic)|swi(?![a-z])|swip|swan"
_PROTON_DENSITY = r"(?:pd|dp|proton|rho)w?(?![a-z])"
_NO_SCAN = re.compile(
    r"locali[sz]er|\bloc\b|scout|survey|smart ?brain|calib|ref(?:erence)? ?scan|screen ?save|dwi|\bdti\b|diffusion|ep2d"
    r"|\badc\b|trace|bold|perfusion|\basl\b|field ?map|angio|\btof\b|\bmra\b|\bmrv\b|\bmip\b|subtr|spectro|phase"
    r"|map(?:s|ping)?(?![a-z])|mp2rage.*\binv ?[12]\b|\binv ?[12]\b.*mp2rage|t[12] ?rho"
)
# What "pre" and "post" mean beside the contrast agent: surgery, saturation, the posterior fossa, ...
_OTHER_TIMES = re.compile(
    r"(?<![a-z])(?:pre|post)[ .]?(?:op|surg|treat|rt(?![a-z])|radi|chemo|biops|trauma|therap|resect|embol|stroke|ictal"
    r"|partum|fossa|sat|scan|proc)[a-z]*|(?<![a-z])c ?spine|(?<![a-z])c ?[1-7] ?(?:c ?[1-7])?(?![a-z0-9])"
)
_MEDIUM = r"gad[a-z]*|gd(?:dtpa|dota)?|km|[ck]ontras[tc][a-z]*|cte|mdc|m\.d\.c|pdc|inj(?!ur)[a-z]*|con|cm|k"
_BRANDS = (
    r"ablavar|artirem|clariscan|cyclolux|dotagraf|dotarem|dtpa|elucirem|eovist|magnevist|magnegita|multihance|omniscan"
    r"|optimark|pixxoscan|primovist|prohance|vasovist|vueway"
)
_AGENT = re.compile(
    rf"(?<![a-z])(?:ce|gad[a-z]*|gd(?:dtpa|dota)?|m?km|[ck]ontras[tc][a-z]*|cte|mdc|m\.d\.c|pdc|gbca|contr|inj(?!ur)[a-z]*"
    rf"|enh(?:anced)?|post(?:{_MEDIUM})?|{_BRANDS})(?![a-z])|(?<![a-z])c ?\+|\+ ?(?:c|k|gad[a-z]*|gd|km|mdc)(?![a-z])"
    r"|t1w? ?\+(?! ?[a-z0-9])|(?<![a-z])(?:ce|gad?o?|gd|km|post)t1|t1w?(?:ce|gado?|gd|km|post)(?![a-z])"
    r"|增强|造影|조영|контраст"
)
_WITHOUT = re.compile(
    rf"(?<![a-z])(?:pre(?:{_MEDIUM})?|non(?:{_MEDIUM}|ce|enh[a-z]*)?|no(?= ?(?:{_MEDIUM}|c|ce)(?![a-z]))|nativ[a-z]*"
    r"|without|w/?o|sans|avant|ohne|vor|o\.? ?km|sin|sem|senza|zonder|blanco|basale?(?! gang)|bez|uten|utan|uden|before"
    r"|unenhanced|plain|kontrast(?:siz|los)[a-z]*|s/ ?c[a-z]*)(?![a-z])"
    r"|(?<![a-z])pret1|平扫|平掃|单纯|単純|造影前|без|km ?-(?![a-z0-9])"
)
_MINUS = re.compile(
    r"(?<![a-z0-9])(?:c|gd|gad|km) ?[-\u2212](?![a-z0-9])|(?:^|[\s_(])[-\u2212](?:c|gd|gad|km)(?![a-z0-9])"
)


def contrast_of(text: str) -> str | None:
    """T1, T1ce, T2, FLAIR or T2* where a text names one; None where it names none, or several.

    Reads what scanners and technicians write: the weighting, or a sequence that is run with one weighting only, and
    with T1 the contrast agent by its names in several languages and its brands.

    Args:
        text: "T1w", "AX T1 POST GAD", "t2_tse_tra", "Sag MPRAGE", "t1_tfl3d nach KM", ...
    """
    plain = "".join(sign for sign in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(sign))
    plain = unicodedata.normalize("NFC", plain)  # Hangul, which NFKD takes apart
    plain = plain.replace("\u0131", "i")  # the Turkish i without a dot
    minus = _MINUS.search(plain) is not None
    low = re.sub(r"[_\-\u2212]", " ", _MINUS.sub(" ", plain))

    def says(rule: str) -> bool:
        return re.search(f"{_BEFORE}(?:{rule})", low) is not None

    weightings = [says(_T1), says(_T2), says(_PROTON_DENSITY)]
    if _NO_SCAN.search(low) or sum(weightings) > 1:
        return None
    if says(_FLAIR) and not ("tirm" in low and re.search(_STIR, low)):
        return None if says(_T1) else "FLAIR"  # a T1 FLAIR shows fluid dark and is neither
    if says(_T2_STAR):
        return "T2*"
    if says(_T2):
        return "T2"
    if says(_T1) or (says(_T1_SEQUENCE) and not says(_PROTON_DENSITY)):
        return "T1ce" if not minus and _has_agent(_OTHER_TIMES.sub(" ", low)) else "T1"
    return None


def _has_agent(low: str) -> bool:
    if _WITHOUT.search(low):
        return False
    return _AGENT.search(low) is not None or re.search(r"t1.?(?:w.?)?c(?![a-z])", low) is not None


def scan_name(file: str | Path) -> str:
    """A file's name without NIfTI's ending."""
    name = Path(file).name
    return next((name[: -len(end)] for end in _ENDINGS if name.endswith(end)), name)


def study_and_contrast(file: str | Path) -> tuple[str, str | None]:
    """What the files of one study share, and the contrast that this file's last word on it names.

    BIDS's ce-gadolinium counts as the agent.
    sub-01_acq-mprage_T1w.nii.gz gives (sub-01_acq-mprage, T1), BraTS20_001_flair.nii.gz (BraTS20_001, FLAIR),
    brain.nii.gz (brain, None).
    """
    name = scan_name(file)
    agent = _BIDS_AGENT.search(name)
    name = _BIDS_AGENT.sub("", name)
    parts = re.split(r"([_\-\s.]+)", name)
    for place in range(len(parts) - 1, -1, -1):
        if contrast := contrast_of(parts[place]):
            last = place
            if contrast == "T1" and contrast_of("".join(parts[place : place + 3])) == "T1ce":  # T1_post
                contrast, last = "T1ce", place + 2
            if contrast == "T1" and (agent or contrast_of(_SUBJECT.sub("", name)) == "T1ce"):  # POST_T1
                contrast = "T1ce"
            rest = parts[: max(0, place - 1)] + parts[last + 1 :]
            return "".join(rest).strip("_-. ") or scan_name(file), contrast
    return scan_name(file), None


def check_one(scans: Sequence[str], contrast: str | None, study: str, advice: str) -> None:
    """Checks that a study has exactly one scan of a contrast.

    Raises:
        MissingDataError: it has none.
        DataError: it has several.
    """
    if not scans:
        raise MissingDataError(f"{study} has no {contrast} scan, which this model needs. {advice}.")
    if len(scans) > 1:
        names = ", ".join(sorted(Path(scan).name for scan in scans))
        raise DataError(f"{study} has {len(scans)} {contrast} scans: {names}. Keep one, or rename the others.")
