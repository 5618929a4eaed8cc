"""The 20 label maps that SynthSeg was trained on: real people's anatomy, without images.

Billot et al. 2023, SynthSeg: segmentation of brain MRI scans of any contrast and resolution without retraining,
Medical Image Analysis 86, 102789. The maps are data/training_label_maps of https://github.com/BBillot/SynthSeg,
Apache-2.0; SHA256 says which version was used here.

Files: sub-01_dseg.nii.gz to sub-20_dseg.nii.gz (the repository's own names are read too, in natural order), about
165x220x220 voxels of 1 mm, RAS, FreeSurfer's codes and, from 500, codes for what lies around the brain.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from custom.datasets import freesurfer
from custom.errors import ConfigError, DataError, MissingDataError
from custom.reading.labels import LabelCodes
from custom.reading.volumes import existing_folder, natural_order, open_volume, read_problem

CHANNELS = ("any MRI contrast",)
LABELS = {0: "background", 1: "CSF", 2: "GM", 3: "WM"}

# Structures that have an intensity of their own and count to another one, or to none, in what a network predicts.
_APART = {
    (0,): ("background", "background"),
    (25, 57, 77, 78, 79): ("white matter lesion", "WM"),
    (30, 62): ("vessel", "CSF"),
    (85,): ("optic chiasm", "background"),
}
PART_OF = {"white matter lesion": "cerebral white matter", "vessel": "CSF around the brain"}
EXTRACEREBRAL = (502, 506, 507, 508, 509, 511, 512, 514, 515, 516, 530)  # skull, skin, eyes, ...: background
STRUCTURES = freesurfer.CODES | {code: name for codes, (name, _) in _APART.items() for code in codes}
TISSUE_OF = freesurfer.TISSUES | dict(_APART.values())  # by name
TISSUES = {code: TISSUE_OF[name] for code, name in STRUCTURES.items()}
BRIGHT_AS = TISSUE_OF | {"optic chiasm": "WM"}  # which tissue's intensity a structure has
SIDES = freesurfer.SIDES  # {code: 1 on the left, 2 on the right}
CODES = (*sorted(TISSUES), *EXTRACEREBRAL)
VALIDATION = 4  # the last four maps validate

HOW_TO_GET = (
    "Take data/training_label_maps from https://github.com/BBillot/SynthSeg (20 files, about 20 MB, Apache-2.0). "
    "Train on your own labelled scans with brainmri train DIR (docs/own-data.md)."
)
SHA256 = {
    "sub-01_dseg.nii.gz": "060374e12d3b42678a26d707964d0813123338cbe967e9053eb1bd7733166936",
    "sub-02_dseg.nii.gz": "71f612322563a96fef3be9608f869923359d8c3ce2788d07f976642fb1933461",
    "sub-03_dseg.nii.gz": "938ced49834793eaca9b45792be40c06f581fde3807693077032842be9b64457",
    "sub-04_dseg.nii.gz": "fe9f1923bc971fbeaf07c494a35fffa209423ab3e329ce60251cf34e3ff13c38",
    "sub-05_dseg.nii.gz": "64ed9c4e88884cbef03f11292f0c23e35afebbb80ee02ec830dd421cf2c61c54",
    "sub-06_dseg.nii.gz": "e3602b2486ed8ce7ca4016b5bc82e2bc98ccc627adbd63efa5c8a525d8ae064f",
    "sub-07_dseg.nii.gz": "159e1d72f90191462f85941e78b512fe36ab911f931821c08a2fd0ea8732a7d1",
    "sub-08_dseg.nii.gz": "75fa758cfd55976fbb18713e857531f7dfeb86b6f3b633a65a8fbdf74c81bc39",
    "sub-09_dseg.nii.gz": "6a6772fb1b79c1a1b01f50885720df28dd7f3125eaa98fa5902db79a3113e1f7",
    "sub-10_dseg.nii.gz": "aca1377b8168f5efb738e72c9ae18b1a692dd314f746af95b1253e97d971f64b",
    "sub-11_dseg.nii.gz": "2069054fd40bba9ec18ca94d355a14f30d18543b1265efb5542064ff042603f1",
    "sub-12_dseg.nii.gz": "666f64746cc85c2e789ee78f03e00a8ce744ca55a244e99ca618d16b39760c27",
    "sub-13_dseg.nii.gz": "d3607320146caa64cee243109be292d14a252a77b76894551c4add2fbcf4fb11",
    "sub-14_dseg.nii.gz": "ba7cde728337634a9e65dd47d8d037b43350e999f8247c4f26812cdbf9752e05",
    "sub-15_dseg.nii.gz": "c713b5932b4a89c685a0f8ffed4cbada5723d5ec155d172686ec6936db5920a1",
    "sub-16_dseg.nii.gz": "b7e802f6279fba4106373679c402f11388d530b8e69080e40fe50111b58ef5ab",
    "sub-17_dseg.nii.gz": "becc697e1c5194a611df7058770c29a1a656cc59eefe865d89074f2f8ad82e85",
    "sub-18_dseg.nii.gz": "b570864759a4f4d24a2ccba5a629e6f44f23b6bb78aeb3330823f38b74215ae8",
    "sub-19_dseg.nii.gz": "f9b1b6d3e8406dcb1ed31b4f7fa3de045728714a86e301e7f32eebfed23ae08c",
    "sub-20_dseg.nii.gz": "bfd9ea4f783fca16a3747026c95f6a757ff8b2d080c16bc207db75a479c86a00",
}


def labels_by_code(labels: dict[int, str]) -> dict[int, int]:
    """{code in the files: label}, for labels named as tissues (LABELS), structures, or some of each; others become 0.

    Args:
        labels: {0: "background", 1: "thalamus", 2: "WM"}: the thalamus apart, and all white matter.

    Raises:
        ConfigError: a name that is neither a tissue's nor a structure's.
    """
    number = {name: label for label, name in labels.items()}
    if unknown := sorted(set(number) - set(TISSUES.values()) - set(STRUCTURES.values())):
        known = sorted(set(TISSUES.values()) | set(STRUCTURES.values()))
        raise ConfigError(f"labels has the unknown names {unknown}. Use some of {known}.")
    labels_of: dict[int, int] = {}
    for code in CODES:
        name = STRUCTURES.get(code, "")
        names = (name, PART_OF.get(name, ""), TISSUES.get(code, ""))
        labels_of[code] = next((number[name] for name in names if name in number), 0)
    return labels_of


def datalist(dataset_dir: str | Path, split: str, draws: int = 1) -> list[dict]:
    """The maps of one split, split by participant.

    Args:
        dataset_dir: the folder of the maps.
        split: "training" (all but the last four in natural order) or "validation" (the last four).
        draws: how often each map is listed, with "draw" counting from 0, for as many scans drawn from it.

    Returns:
        [{"subject": "sub-01_dseg", "label": its path, "draw": 0}, ...]

    Raises:
        ConfigError: an unknown split.
        DataError: no folder, too few maps, or a file cut short.
    """
    if split not in ("training", "validation"):
        raise ConfigError(f'split must be "training" or "validation", got {split!r}.')
    paths = _maps(dataset_dir)
    if len(paths) <= VALIDATION:
        raise MissingDataError(f"{dataset_dir} holds {len(paths)} label maps, fewer than 5. {HOW_TO_GET}")
    chosen = paths[:-VALIDATION] if split == "training" else paths[-VALIDATION:]
    for path in chosen:
        open_volume(path)
    return [
        {"subject": path.name.removesuffix(".nii.gz"), "label": str(path), "draw": draw}
        for draw in range(draws)
        for path in chosen
    ]


def _maps(dataset_dir: str | Path) -> list[Path]:
    folder = existing_folder(dataset_dir, HOW_TO_GET)
    return sorted(folder.glob("*.nii.gz"), key=natural_order)


def verify(dataset_dir: str | Path) -> list[str]:
    """Reads every map; returns every problem, a changed file among them, each a sentence that names it."""
    try:
        paths = _maps(dataset_dir)
    except DataError as error:
        return [str(error)]
    codes = LabelCodes(CODES, may_be_empty=False)
    problems = [read_problem(path, codes) for path in paths]
    for path in paths:
        known = SHA256.get(path.name)
        if known and hashlib.sha256(path.read_bytes()).hexdigest() != known:
            problems.append(f"{path} differs from the file that this project was tested with. {HOW_TO_GET}")
    return [problem for problem in problems if problem] or ([] if paths else [f"{dataset_dir} is empty. {HOW_TO_GET}"])
