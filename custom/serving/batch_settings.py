"""The options of `brainmri segment --studies`. Reading them needs no library."""

from __future__ import annotations

import argparse

from custom.errors import ConfigError


def batch_arguments() -> argparse.ArgumentParser:
    """The command line of `python -m custom.serving.batch`."""
    parser = argparse.ArgumentParser("brainmri segment --studies", description="Segments the studies of a PACS.")
    parser.add_argument("--studies", required=True, help="the URL of a DICOMweb server")
    parser.add_argument("--query", default="", help="which studies, as DICOMweb asks: StudyDate=20260101-&PatientID=7*")
    parser.add_argument("--store", action="store_true", help="send results to the PACS")
    parser.add_argument("--bundle", default="brain_mri_tissue", help="a bundle, by name or folder")
    parser.add_argument("--output_dir", default="segmentations", help="the folder of results and of studies.csv")
    parser.add_argument("--runs", default="runs", help="the folder of trainings")
    parser.add_argument("--weights", default="newest", help="newest, shipped, trained, or the time of a training")
    parser.add_argument("--device", default="", help="cpu, cuda or cuda:0; default: a GPU where there is one")
    parser.add_argument("--allow_simulated", action="store_true", help="use weights that were trained on a sample")
    return parser


def batch_meanings() -> dict[str, str]:
    """{option: its help text}, of those that `brainmri segment` does not explain itself."""
    own = ("help", "studies", "query", "store", "bundle", "output_dir")
    return {action.dest: action.help or "" for action in batch_arguments()._actions if action.dest not in own}


def filters_of(query: str) -> dict[str, str]:
    """{"StudyDate": "20260101-"} of StudyDate=20260101-; several are joined by "&".

    Raises:
        ConfigError: a part without "=", or without a value.
    """
    filters = {}
    for part in filter(None, query.split("&")):
        name, equals, value = (text.strip() for text in part.partition("="))
        if not (name.isalnum() and equals and value):
            raise ConfigError(f"--query has {part!r}. Write it like StudyDate=20260101-&PatientID=sub-*.")
        filters[name] = value
    return filters
