"""python -m custom.serving.batch: segments the studies of a PACS that have no result yet, one after another.

Each result is OUTPUT/<StudyInstanceUID>.dcm, a DICOM SEG; with --store it goes to the PACS, with a report of volumes.
studies.csv says what became of each study. A study with a result of the bundle, in the folder or on the PACS, is not
segmented again: after a stop the same command goes on.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "shims"))  # before MONAI Label

from highdicom.seg import Segmentation, segread
from pydicom.datadict import tag_for_keyword

import custom
from custom.checkpoints.find import check_for_patients
from custom.errors import ConfigError, DataError, MissingDataError, find_cause
from custom.files import temporary_folder, written_whole
from custom.serving.batch_settings import batch_arguments, filters_of
from custom.serving.bundles import ServedBundle, load_bundles
from custom.serving.contrasts import ORDER
from custom.serving.label_app import PASSWORD, USER, check_for_pacs
from custom.serving.pacs import UID, Pacs
from custom.serving.segmentation import SegmentationTask

REPORT = "studies.csv"
COLUMNS = ("study", "date", "state", "why", "series", "file", "seconds")


def main() -> None:
    """Segments what the options ask for. Exit code 1 if a study failed, or for invalid options."""
    options = batch_arguments().parse_args()
    try:
        rows = segment_studies(options)
    except Exception as error:
        if cause := find_cause(error):
            sys.exit(f"brainmri: {cause}")
        raise
    states = [row["state"] for row in rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("done", "skipped", "failed"))
    print(f"{counts}. {Path(options.output_dir) / REPORT} lists them. {custom.RESEARCH_USE_ONLY}")
    if "failed" in states:
        sys.exit("brainmri: Some studies could not be segmented, as listed above.")


def segment_studies(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Segments the matching studies; returns the rows of the report, with COLUMNS as keys.

    Raises:
        ConfigError: an invalid option, or a bundle that cannot be used for patients.
        PacsError: the PACS does not list its studies.
    """
    filters = filters_of(options.query)
    if unknown := [name for name in filters if tag_for_keyword(name) is None]:
        raise ConfigError(f"--query has {unknown[0]!r}, which is no name of DICOM. Use one such as StudyDate.")
    output_dir = Path(options.output_dir).expanduser().absolute()
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"Cannot write to {output_dir} ({error.strerror}). Use another --output_dir.") from error
    bundle = _load(options)
    with temporary_folder(output_dir, "dicomweb") as cache:  # scans of patients do not stay
        login = os.environ.get(USER, ""), os.environ.get(PASSWORD, "")
        batch = Batch(bundle, options, output_dir, Pacs(options.studies.rstrip("/"), cache, True, True, *login))
        studies = batch.pacs.web.studies(filters)
        print(f"{len(studies)} studies match. Segmenting with {bundle.name}.", flush=True)
        rows: list[dict[str, Any]] = []
        for number, study in enumerate(studies, start=1):
            row = dict.fromkeys(COLUMNS, "") | batch.one(study)
            rows.append(row)
            print(f"{number}/{len(studies)} {row['study']}: {row['state']} {row['why']}".rstrip(), flush=True)
            write_report(output_dir / REPORT, rows)
    write_report(output_dir / REPORT, rows)
    return rows


def _load(options: argparse.Namespace) -> ServedBundle:
    def check(bundle: ServedBundle) -> None:
        check_for_pacs(bundle)
        weights = bundle.choose_weights()
        if not options.allow_simulated:
            check_for_patients(weights, bundle.name)
        bundle.check(weights)

    models = load_bundles([options.bundle], Path(options.runs), options.weights, check)
    return next(iter(models.values()))  # of a bundle with structures, its tissues


class Batch:
    """One bundle for the studies of one PACS.

    Args:
        bundle: segments them.
        options: of the command.
        output_dir: for results.
        pacs: has the studies.
    """

    def __init__(self, bundle: ServedBundle, options: argparse.Namespace, output_dir: Path, pacs: Pacs) -> None:
        self.bundle, self.options, self.output_dir, self.pacs = bundle, options, output_dir, pacs
        self.task = SegmentationTask(bundle)

    def one(self, study: Mapping[str, str]) -> dict[str, Any]:
        """The row of one study, which is segmented if it has no result yet. A study that fails stops no others."""
        began = time.monotonic()
        row: dict[str, Any] = {"study": study["uid"], "date": study["date"]}
        try:
            row |= self._work(study["uid"])
        except Exception as error:
            if not (cause := find_cause(error)):
                raise
            row |= {"state": "failed", "why": str(cause)}
        return row | {"seconds": round(time.monotonic() - began, 1)}

    def _work(self, uid: str) -> dict[str, Any]:
        if not UID.fullmatch(uid) or len(uid) > 64:  # it becomes the name of a file
            raise DataError(f"The PACS names a study {uid[:100]!r}, which is no UID.")
        target = self.output_dir / f"{uid}.dcm"
        in_study = self.pacs.web.search(study_instance_uid=uid)
        if any(self._made(series) for series in in_study if series["modality"] == "SEG"):
            return {"state": "skipped", "why": f"it has a result of {self.bundle.name} on the PACS"}
        if target.is_file():
            seg = self._read_result(target, uid)
            if not self.options.store:
                return {"state": "skipped", "why": "its result is in the folder already", "file": target.name}
        else:
            seg = self._segment(self._choose(uid, in_study))
            with written_whole(target) as partial:
                seg.save_as(partial)
        series = str(seg.ReferencedSeriesSequence[0].SeriesInstanceUID)
        if self.options.store:
            self.pacs.store_results(series, seg)
        return {"state": "done", "file": target.name, "series": series}

    def _read_result(self, target: Path, uid: str) -> Segmentation:
        """A result of an earlier call. Raises DataError if the file is something else, or of another bundle."""
        try:
            seg = segread(target)
        except Exception as error:  # pydicom and highdicom raise many kinds of errors
            raise DataError(f"{target} is no DICOM SEG that can be read ({error}). Move it away.") from error
        made_by = str(seg.get("ManufacturerModelName", ""))
        if made_by != self.bundle.name or seg.StudyInstanceUID != uid:
            raise DataError(
                f"{target} is a result of {made_by or 'another program'} for the study {seg.StudyInstanceUID}. Use "
                "another --output_dir."
            )
        return seg

    def _choose(self, uid: str, in_study: Sequence[Mapping[str, Any]]) -> str:
        """The UID of the series on whose grid the result lies."""
        if None in self.bundle.channels:
            return self.pacs.best_series(uid)[0]
        return longest_series(in_study, [contrast for contrast in ORDER if contrast in self.bundle.channels])

    def _made(self, series: Mapping[str, Any]) -> bool:
        """Whether a SEG series is a result of this bundle."""
        return str(self.pacs.web.metadata(series).get("ManufacturerModelName", "")) == self.bundle.name

    def _segment(self, image_id: str) -> Segmentation:
        files = self.pacs.files_of(image_id, self.bundle.channels)
        request = {"files": files, "reference": self.pacs.reference(image_id), "device": self.options.device or None}
        labels, params = self.task(request)
        try:
            return self.pacs.seg_of_result(image_id, Path(labels), self.bundle, params)
        finally:
            Path(labels).unlink(missing_ok=True)


def longest_series(in_study: Sequence[Mapping[str, Any]], wanted: Sequence[str]) -> str:
    """The UID of a series of a study: of the first of these contrasts that it has, the one with the most slices.

    Raises:
        MissingDataError: the study has no MR series of these contrasts.
    """
    fitting = [series for series in in_study if series["modality"] == "MR" and series["contrast"] in wanted]
    if not fitting:
        raise MissingDataError(f"It has no MR series of {', '.join(wanted)} by its descriptions.")
    return str(min(fitting, key=lambda series: (wanted.index(series["contrast"]), -series["instances"]))["uid"])


def write_report(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes studies.csv: a row for each study of this call."""
    with written_whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main()
