"""Getting data sets: the one that may be had freely, and where to ask for the others."""

from __future__ import annotations

from pathlib import Path

from monai.apps import DecathlonDataset, download_and_extract

from custom.datasets import brats, brats_slices, hcp, iseg, ixi, mrbrains, synthseg_labels, tumor_images
from custom.errors import ConfigError, DataError

TASK = "Task01_BrainTumour"
ELSEWHERE = {
    "brats": brats.HOW_TO_GET,
    "brats_slices": brats_slices.HOW_TO_GET,
    "hcp": hcp.HOW_TO_GET,
    "iseg": iseg.HOW_TO_GET,
    "ixi": ixi.HOW_TO_GET,
    "mrbrains": mrbrains.HOW_TO_GET,
    "synthseg_labels": synthseg_labels.HOW_TO_GET,
    "tumor_images": tumor_images.HOW_TO_GET,
}


def download(name: str, folder: str | Path) -> str:
    """Downloads the Decathlon's brain tumors, checked by their md5.

    Args:
        name: "msd", or another data set's name.
        folder: where the set's own folder is made.

    Returns:
        What to tell the user.

    Raises:
        ConfigError: an unknown data set.
        DataError: the download failed; what came of it is kept, and checked the next time. Also for a data set that
            asks for registration: the message says where.
    """
    if name in ELSEWHERE:
        raise DataError(f"brainmri cannot download {name}. {ELSEWHERE[name]}")
    if name != "msd":
        raise ConfigError(f"There is no data set {name!r}. Use one of: {', '.join(['msd', *ELSEWHERE])}.")
    place = Path(folder).expanduser()
    if not (place / TASK / "dataset.json").is_file():
        try:
            download_and_extract(
                url=DecathlonDataset.resource[TASK],
                filepath=place / f"{TASK}.tar",
                output_dir=place,
                hash_val=DecathlonDataset.md5[TASK],
                hash_type="md5",
            )
        except Exception as error:
            raise DataError(
                f"{DecathlonDataset.resource[TASK]} couldn't be downloaded ({error}). Try again, or get {TASK}.tar at "
                f"http://medicaldecathlon.com and unpack it in {place}."
            ) from error
    return f"Use {place / TASK} as --dataset_dir. Cite Antonelli et al. 2022 (CC BY-SA 4.0)."
