"""Which MR series of a study is the best one to segment with a bundle that takes any single scan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydicom import Dataset

from custom.errors import MissingDataError
from custom.reading.volumes import natural_order
from custom.serving.contrasts import ORDER

_THIN = 2.0  # mm: slices up to this are as good as 3D ones
_UNKNOWN = 99.0  # mm


def best_series(
    study: Sequence[Mapping[str, Any]], header_of: Callable[[Mapping[str, Any]], Dataset]
) -> tuple[Mapping[str, Any], str]:
    """The best series of a study, and a sentence that names it with the reason.

    An original image comes before a derived one; 3D or thin slices before thick ones; then T1, T1 with a contrast
    agent, T2, FLAIR; then the thinner slices.

    Args:
        study: its MR series, as custom.serving.dicomweb.DicomWeb.search describes them.
        header_of: the header of a series' first image.

    Raises:
        MissingDataError: no series says that it is T1, T2 or FLAIR.
    """
    known = [series for series in study if series["contrast"] in ORDER]
    if not known:
        texts = ", ".join(sorted(str(series["text"]) for series in study)) or "none"
        raise MissingDataError(
            f"The study has no MR series that is T1, T2 or FLAIR by its description; it has: {texts}. "
            "Choose one of its series, by its SeriesInstanceUID."
        )
    headers = {series["uid"]: header_of(series) for series in known}
    best = min(known, key=lambda series: _rank(series, headers[series["uid"]]))
    thickness = _thickness(headers[best["uid"]])
    kind = "3D" if _is_3d(headers[best["uid"]]) else "2D"
    slices = "" if thickness == _UNKNOWN else f", slices of {thickness:g} mm"
    reason = f"{best['contrast']}, {kind}{slices}"
    return best, f"{best['text']} ({best['uid']}) was chosen of {len(study)} MR series: {reason}."


def _rank(series: Mapping[str, Any], header: Dataset) -> tuple[Any, ...]:
    """Smaller is better."""
    thickness = _thickness(header)
    return (
        "DERIVED" in (header.get("ImageType") or []),
        not _is_3d(header) and thickness > _THIN,
        ORDER.index(series["contrast"]),
        thickness,
        natural_order(series["uid"]),
    )


def _is_3d(header: Dataset) -> bool:
    return str(header.get("MRAcquisitionType", "")) == "3D"


def _thickness(header: Dataset) -> float:
    """The distance of slices in mm, else their thickness; 99 if the header tells neither."""
    groups = [
        *(header.get("SharedFunctionalGroupsSequence") or []),
        *(header.get("PerFrameFunctionalGroupsSequence") or []),
    ]
    places = [header, *(item for group in groups[:2] for item in group.get("PixelMeasuresSequence") or [])]
    for name in ("SpacingBetweenSlices", "SliceThickness"):
        for place in places:
            if value := place.get(name):
                return abs(float(value))
    return _UNKNOWN
