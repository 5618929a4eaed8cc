"""A small simulated set of label maps: one template's tissues, deformed, with a skull around them.

The anatomy is the MNI152 template's (see the iSeg sample), as FreeSurfer's codes: 2 WM, 3 cortex for all GM, 24 for
all CSF, 515 around the brain. Good for trying the training, useless for weights: it knows one brain and four codes.
"""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

from custom.datasets.iseg import CODES as ISEG_CODES
from custom.errors import ConfigError
from custom.files import sample_written_whole
from custom.samples.iseg import subject, tissue_maps
from custom.samples.whole_numbers import is_whole_number

CODES = np.asarray([0, 24, 3, 2], dtype=np.int16)  # of background, CSF, GM, WM
SKULL, THICKNESS = 515, 8


def write(folder: str | Path, detail: int = 2, maps: int = 6, seed: int = 0) -> Path:
    """Writes sub-01_dseg.nii.gz, ...: maps of 1 mm whose anatomy has a detail of `detail` mm.

    Args:
        folder: one that doesn't exist yet, is empty, or holds this very sample (then nothing is done).
        detail: 1 to 4 mm.
        maps: how many, 5 at least (four of them validate).
        seed: of the deformations.

    Returns:
        The folder.

    Raises:
        ConfigError: an unknown detail, or too few maps.
        DataError: the folder holds something else.
    """
    if detail not in (1, 2, 3, 4) or not is_whole_number(maps, 5):
        raise ConfigError(f"detail must be 1, 2, 3 or 4 mm and maps 5 or more, got {detail!r} and {maps!r}.")
    recipe = {"sample": "synthseg_labels", "detail": detail, "maps": maps, "seed": seed}
    with sample_written_whole(folder, recipe) as partial:
        if partial:
            fractions, voxel_size = tissue_maps(detail)
            for number in range(1, maps + 1):
                files = subject(fractions, voxel_size, "adult", np.random.default_rng([seed, number]))
                codes = CODES[np.searchsorted(ISEG_CODES, files["label"])]
                head = ndimage.binary_dilation(codes > 0, iterations=max(1, THICKNESS // detail))
                codes = np.where(head & (codes == 0), np.int16(SKULL), codes)
                codes = np.kron(codes, np.ones((detail,) * 3, dtype=np.int16))
                nibabel.save(nibabel.Nifti1Image(codes, np.eye(4)), partial / f"sub-{number:02d}_dseg.nii.gz")
    return Path(folder).expanduser()
