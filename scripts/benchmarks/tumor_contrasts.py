"""Do labels of a patient's T1ce, T2 and FLAIR agree with those of T1, away from the tumor?

    python scripts/benchmarks/tumor_contrasts.py DIR [--ckpt_path model.pt]

DIR holds one patient of TCGA-LGG in BraTS's space: <patient>_t1.nii.gz, _t1ce, _t2, _flair and _seg-autofused (labels
of the tumor). Prints Dice of CSF, GM and WM between each contrast's labels and those of T1 (reference labels do not
exist), outside the tumor grown by 3 voxels; n = 1.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

from custom.metrics import dice_by_name
from custom.running import Predictor
from custom.running.bundles import config_files
from custom.samples.mni152 import LABELS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ckpt_path")
    options = parser.parse_args()
    settings = {"ckpt_path": options.ckpt_path} if options.ckpt_path else {}
    predictor = Predictor(config_files("brain_mri_tissue", "inference.json"), **settings)
    (tumor_file,) = options.folder.glob("*_seg-autofused.nii.gz")
    image = nibabel.load(tumor_file)
    assert isinstance(image, nibabel.Nifti1Image)
    tumor = np.asarray(image.dataobj) > 0
    away = ~ndimage.binary_dilation(tumor, iterations=3)
    name = tumor_file.name.removesuffix("_seg-autofused.nii.gz")
    reference = predictor(options.folder / f"{name}_t1.nii.gz")["pred"] * away
    print("| contrast | CSF | GM | WM |\n|---|---|---|---|")
    for contrast in ("t1ce", "t2", "flair"):
        labels = predictor(options.folder / f"{name}_{contrast}.nii.gz")["pred"] * away
        dice = dice_by_name(labels, reference, LABELS)
        print(f"| {contrast} | {' | '.join(f'{dice[tissue]:.3f}' for tissue in ('CSF', 'GM', 'WM'))} |", flush=True)


if __name__ == "__main__":
    main()
