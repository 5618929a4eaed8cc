"""The options of the server. Reading them needs no library."""

from __future__ import annotations

import argparse
from pathlib import Path

from custom.errors import ConfigError

TOKEN = "BRAINMRI_LABEL_TOKEN"  # environment variable; other users of a machine can see command lines


def arguments() -> argparse.ArgumentParser:
    """The command line of `python -m custom.serving`, and of `brainmri label`."""
    parser = argparse.ArgumentParser("brainmri label", description="MONAI Label with the bundles of this project.")
    parser.add_argument("--studies", required=True, help="a folder of NIfTI files, or the URL of a DICOMweb server")
    parser.add_argument(
        "--bundles",
        default="",
        help="for example iseg,brats_mri_tumor, or iseg:vnet for another network; default: all with weights",
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", default=8000, type=int, help="the port to listen on")
    parser.add_argument("--token", default="", help=f"a secret that every request must carry (or set {TOKEN})")
    parser.add_argument(
        "--origins", default="", help="further origins whose web pages may use the server, separated by commas"
    )
    parser.add_argument(
        "--public_url", default="", help="the https address of a proxy in front of the server; needs a token"
    )
    parser.add_argument(
        "--weights", default="newest", help="newest, shipped, trained, the time of a training, or iseg=shipped,..."
    )
    parser.add_argument("--runs", default="runs", help="the folder of trainings, old and new")
    parser.add_argument(
        "--allow_simulated", action="store_true", help="serve weights that were trained on a simulated sample to a PACS"
    )
    parser.add_argument(
        "--format",
        default="seg",
        choices=("seg", "labelmap"),
        help="of results on a PACS: DICOM SEG or its newer label map",
    )
    parser.add_argument(
        "--store_to", default="", help="a DICOM node that takes results by C-STORE, like ORTHANC@127.0.0.1:4242"
    )
    parser.add_argument("--largest_upload_mb", default=512, type=int, help="larger requests are refused")
    parser.add_argument(
        "--max_voxels", default=None, type=int, help="larger scans are refused; default 150 million, a head at 0.5 mm"
    )
    return parser


def meanings() -> dict[str, str]:
    """{option: its help text}, without the options that `brainmri label` explains itself."""
    actions = arguments()._actions
    return {action.dest: action.help or "" for action in actions if action.dest not in ("help", "studies", "bundles")}


def checked_studies(studies: str) -> str:
    """The URL, or the full path of the folder. Raises ConfigError if the folder does not exist."""
    if studies.startswith(("http://", "https://")):
        return studies
    folder = Path(studies).expanduser()
    if not folder.is_dir():
        raise ConfigError(
            f"The folder {studies} does not exist. Give a folder with NIfTI files, or the URL of a DICOMweb server."
        )
    return str(folder.resolve())
