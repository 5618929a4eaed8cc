"""`brainmri segment` as it is called: checks, weights, the scans, and what is printed at the end."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from custom import RESEARCH_USE_ONLY
from custom.commands.cohort_report import write_report
from custom.commands.segment import segment
from custom.commands.segment_jobs import Options, check_places, find_jobs
from custom.commands.trained import trained_call
from custom.errors import DataError
from custom.running import Predictor, log
from custom.running.processes import local_device
from custom.running.volume_tables import read_records
from custom.running.workflow import silence_duplicates


def segment_call(
    scans: Sequence[Any], output_dir: Path, options: Options, bundle: str, overrides: Mapping[str, Any]
) -> None:
    """Segments scans, folders and lists with a bundle's trained network.

    Raises:
        DataError: some scans could not be segmented, or see custom.commands.segment.
    """
    places = check_places(scans)
    find_jobs(places, output_dir, options)  # a missing file or two results of one name show before weights are loaded
    files, settings = trained_call("inferring", bundle, None, None, {"output_dir": str(output_dir), **overrides})
    if "LOCAL_RANK" in os.environ:
        settings.setdefault("device", str(local_device()))
    silence_duplicates()
    with log.run_log(output_dir):
        predictor = Predictor(files, **(settings | {"output_dir": str(output_dir)}))
        print(f"Weights: {predictor.path}", flush=True)
        failed = segment(predictor, places, output_dir, options)
        if options.report and read_records(output_dir):
            print(f"Report: {write_report(output_dir)}")
        has_table = (output_dir / "volumes.csv").is_file()
        where = f"Labels, figures and volumes.csv are in {output_dir}. " if has_table else ""
        print(f"{where}{RESEARCH_USE_ONLY}")
    if failed and "WORLD_SIZE" not in os.environ:  # there, an exit code would make torchrun stop the other shares
        raise DataError(f"{failed} of the scans couldn't be segmented, as listed above.")
