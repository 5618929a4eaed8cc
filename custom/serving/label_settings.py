"""The server's settings; no library is needed to read them."""

from __future__ import annotations

import argparse

TOKEN = "BRAINMRI_LABEL_TOKEN"  # an environment variable: other users of a machine see command lines


def arguments() -> argparse.ArgumentParser:
    """The command line of `python -m custom.serving`, and of `brainmri label`."""
    parser = argparse.ArgumentParser("brainmri label", description="MONAI Label with this project's bundles.")
    parser.add_argument("--studies", required=True, help="a folder of NIfTI files, or a DICOMweb server's URL")
    parser.add_argument("--bundles", default="", help="iseg,brats_mri_tumor, or iseg:vnet for another network")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", default=8000, type=int, help="the port to listen on")
    parser.add_argument("--token", default="", help=f"what every request must carry (or {TOKEN})")
    parser.add_argument("--origins", default="", help="further origins that pages may come from, with commas")
    parser.add_argument("--public_url", default="", help="the https address of a proxy in front, which needs a token")
    parser.add_argument("--weights", default="newest", help="newest, shipped, trained, a time, or iseg=shipped,...")
    parser.add_argument("--runs", default="runs", help="where trainings wrote, and new weights go")
    parser.add_argument("--allow_simulated", action="store_true", help="serve weights of a sample to a PACS")
    parser.add_argument("--largest_upload_mb", default=512, type=int, help="the largest upload in megabytes")
    return parser


def meanings() -> dict[str, str]:
    """The meaning of each setting except those that `brainmri label` explains itself."""
    actions = arguments()._actions
    return {action.dest: action.help or "" for action in actions if action.dest not in ("help", "studies", "bundles")}
