"""A small simulated Task01_BrainTumour, as the Medical Segmentation Decathlon lays it out (custom.samples.tumor)."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np

from custom.datasets.brain_tumors import CODES, TASK01_CHANNELS
from custom.datasets.brats import CHANNELS
from custom.files import sample_written_whole
from custom.samples.brats import LABELLED, UNLABELLED, check
from custom.samples.iseg import tissue_maps
from custom.samples.tumor import patient


def write(folder: str | Path, spacing: int = 3, labelled: int = LABELLED, seed: int = 0) -> Path:
    """Writes the same patients as custom.samples.brats in Task01's layout and codes; arguments as there."""
    check(spacing, labelled)
    recipe = {"sample": "msd", "spacing": spacing, "labelled": labelled, "seed": seed}
    with sample_written_whole(folder, recipe) as partial:
        if partial:
            maps, voxel_size = tissue_maps(spacing)
            affine = np.diag([*voxel_size, 1.0])
            for name in ("imagesTr", "labelsTr", "imagesTs"):
                (partial / name).mkdir()
            training, test = [], []
            for number in range(1, labelled + UNLABELLED + 1):
                files = patient(maps, voxel_size, np.random.default_rng([seed, number]))
                name = f"BRATS_{number:03d}.nii.gz"
                part = "Tr" if number <= labelled else "Ts"
                scans = np.stack([files[channel] for channel in CHANNELS], axis=-1)
                nibabel.save(nibabel.Nifti1Image(scans, affine), partial / f"images{part}" / name)
                if number > labelled:
                    test.append(f"./imagesTs/{name}")
                    continue
                label = np.asarray(CODES["msd"], dtype=np.uint8)[files["label"]]
                nibabel.save(nibabel.Nifti1Image(label, affine), partial / "labelsTr" / name)
                training.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
            content = {
                "name": "BRATS",
                "description": "Simulated. Not the Decathlon's data.",
                "tensorImageSize": "4D",
                "modality": {str(index): name for index, name in enumerate(TASK01_CHANNELS)},
                "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
                "numTraining": len(training),
                "numTest": len(test),
                "training": training,
                "test": test,
            }
            (partial / "dataset.json").write_text(json.dumps(content, indent=1) + "\n")
    return Path(folder).expanduser()
