"""`custom.segment`: brain tissues and structures of scans that are files, or arrays in memory."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, overload

import nibabel
import numpy as np

from custom.errors import DataError, find_cause
from custom.running.bundles import config_files
from custom.running.confidence import read_fits
from custom.running.predictor import Predictor
from custom.running.segmentation import Segmentation

BUNDLE = "brain_mri_tissue"
Scan = str | Path | nibabel.spatialimages.SpatialImage | tuple[np.ndarray, np.ndarray]


@overload
def segment(scan: Scan, probabilities: bool = ..., areas: bool = ..., **settings: Any) -> Segmentation: ...
@overload
def segment(
    scan: Iterable[Scan], probabilities: bool = ..., areas: bool = ..., **settings: Any
) -> Iterator[Segmentation]: ...
def segment(
    scan: Any, probabilities: bool = False, areas: bool = False, **settings: Any
) -> Segmentation | Iterator[Segmentation]:
    """Brain tissues and structures of a scan of any contrast, on its own grid. Research use only.

        result = custom.segment("t1.nii.gz")
        result.volumes["GM"], result.confidence["scan"], result.labels.shape
        for result in custom.segment(paths): ...

    Args:
        scan: a path (all formats of `brainmri segment`, a folder of DICOM files too), a nibabel image, or an array
            (x, y, z) with its affine (4, 4), voxels to mm, RAS+. Of a list or another iterable of these, each is
            segmented when its result is asked for.
        probabilities: give result.probabilities too, (3, x, y, z) float16: CSF, GM, WM. They take memory.
        areas: give result.area_codes, result.areas and result.lobes too: the areas of the cortex.
        settings: of the bundle's inference.json, such as device="cpu" or ckpt_path="model.pt".

    Returns:
        custom.running.segmentation.Segmentation: labels (x, y, z) (1 CSF, 2 GM, 3 WM), codes (x, y, z) (FreeSurfer's
        structures), affine, volumes, structures, asymmetry, confidence, warnings, brain and intracranial masks. Of an
        iterable, an iterator of these.

    Raises:
        DataError: a scan that cannot be used, or that shows no head.
        ConfigError: an unknown setting.
        TypeError: something that is no scan.
    """
    if isinstance(scan, tuple) and len(scan) == 2 and isinstance(scan[0], np.ndarray):
        return _segment_one(scan, probabilities, areas, settings)
    if isinstance(scan, (str, Path, nibabel.spatialimages.SpatialImage)):
        return _segment_one(scan, probabilities, areas, settings)
    if isinstance(scan, Iterable) and not isinstance(scan, np.ndarray):
        return (_segment_one(one, probabilities, areas, settings) for one in scan)
    raise TypeError(
        f"A scan is a path, a nibabel image, or a tuple of an array (x, y, z) and its affine (4, 4), "
        f"got {type(scan).__name__}."
    )


def _segment_one(scan: Scan, probabilities: bool, areas: bool, settings: dict[str, Any]) -> Segmentation:
    predictor = _predictor(tuple(sorted(settings.items())))
    try:
        if isinstance(scan, (str, Path)):
            item = predictor(Path(scan).expanduser(), probabilities=probabilities, areas=areas)
        else:
            with tempfile.TemporaryDirectory() as folder:
                item = predictor(_written(scan, Path(folder)), probabilities=probabilities, areas=areas)
    except RuntimeError as error:  # MONAI wraps what a transform raises
        if cause := find_cause(error):
            raise cause from error
        raise
    return Segmentation(item, predictor.labels, read_fits(predictor.path, predictor.sha256))


@functools.lru_cache(maxsize=1)
def _predictor(settings: tuple[tuple[str, Any], ...]) -> Predictor:
    """Kept for the next scan with the same settings."""
    return Predictor(config_files(BUNDLE, "inference.json"), **dict(settings))


def _written(scan: nibabel.spatialimages.SpatialImage | tuple[np.ndarray, np.ndarray], folder: Path) -> Path:
    """The scan as a file, for the checks and transforms that every scan goes through."""
    array, affine = scan if isinstance(scan, tuple) else (np.asanyarray(scan.dataobj), scan.affine)
    if affine is None or np.shape(affine) != (4, 4):
        raise DataError(f"An array needs its affine (4, 4), voxels to mm, got {np.shape(affine)}.")
    image = nibabel.Nifti1Image(np.asarray(array, dtype=np.float32), affine)
    image.header.set_xyzt_units("mm")
    path = folder / "scan.nii"
    nibabel.save(image, path)
    return path
