"""A NIfTI file appears under its name only when it is whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai.data import NibabelWriter

from custom.files import written_whole


class AtomicNibabelWriter(NibabelWriter):
    """monai.data.NibabelWriter that writes to a temporary name in the same folder and renames.

    A file that has the name already, which may have been corrected by hand, is kept in earlier/<its time>. Without
    `resample` the affine is taken as it is: MONAI 1.6.1's writer brings it through a resampling in two dimensions,
    which fails where the first two axes aren't the patient's x and y in some order (sagittal and coronal scans).
    """

    def set_metadata(self, meta_dict: Mapping | None, resample: bool = True, **options: Any) -> None:
        """Takes the affine of the image that the labels belong to; without `resample`, as it is."""
        if resample:
            super().set_metadata(meta_dict, resample, **options)
            return
        _, self.affine, _ = self.get_meta_info(meta_dict)

    def write(self, filename: Any, verbose: bool = False, **kwargs: Any) -> None:
        """Writes the file under another name first, and renames it when it is whole."""
        with written_whole(filename, keep_old=True) as partial:
            super().write(partial, verbose=verbose, **kwargs)
