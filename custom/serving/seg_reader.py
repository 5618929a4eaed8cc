"""From a DICOM SEG, which a person may have corrected, to a label map on the grid of its series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import nibabel
import numpy as np
from highdicom.seg import Segmentation
from pydicom import Dataset

from custom.errors import DataError
from custom.serving.source_images import SourceImages, source_images

_TOLERANCE = 0.01  # mm and directions; some programs round positions


def read_seg(seg: Dataset, series: Sequence[Dataset], labels: Mapping[str, int]) -> nibabel.Nifti1Image:
    """The label map of a SEG. The names of the segments decide which labels they are.

    Frames that show slices of the series are taken slice by slice, so that the slices may be tilted or uneven. Other
    frames must lie on the same voxels, in another order or direction.

    Args:
        seg: the DICOM object.
        series: the images that it labels.
        labels: {"CSF": 1, ...}, the codes of the bundle.

    Returns:
        The codes of the bundle, uint8, on the grid that custom.reading.dicom gives the series.

    Raises:
        DataError: an object that cannot be read, unknown or overlapping segments, or another grid.
    """
    try:
        segmentation = Segmentation.from_dataset(seg, copy=False)
        SourceImages([segmentation], ()).positions()  # fails where frames have no place
        numbered = [
            (str(segmentation.get_segment_description(n).SegmentLabel), n) for n in segmentation.segment_numbers
        ]
    except Exception as error:  # highdicom raises many kinds of errors
        raise DataError(f"The segmentation cannot be read ({error}). Export it again.") from error
    numbers = dict(numbered)
    if len(numbers) < len(numbered):
        raise DataError(
            f"Two segments of the segmentation have the same name ({sorted(numbers)}). Join or rename them."
        )
    if unknown := sorted(set(numbers) - set(labels)):
        raise DataError(f"The segmentation has unknown segments: {', '.join(unknown)}. Known are: {', '.join(labels)}.")
    source = source_images(series)
    longest = max(source.shape)  # the frames may show other planes of the same voxels
    frames = len(segmentation.PerFrameFunctionalGroupsSequence)
    if frames > len(numbers) * longest or max(segmentation.Rows, segmentation.Columns) > longest:
        raise DataError("The segmentation has more frames or pixels than its series. Export it again.")
    try:
        voxels = _by_slices(segmentation, source)
        if voxels is None:
            voxels = _by_voxels(segmentation, source)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"The segmentation is not on the grid of its series, or segments overlap ({error}).") from error
    codes = np.zeros(1 + max([*numbers.values(), int(voxels.max())]), dtype=np.uint8)
    codes[list(numbers.values())] = [labels[name] for name in numbers]
    if undescribed := sorted(set(np.unique(voxels).tolist()) - {0, *numbers.values()}):
        raise DataError(f"The segmentation does not describe its segment {undescribed[0]}. Export it again.")
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ source.affine()  # LPS to RAS
    return nibabel.Nifti1Image(codes[voxels], affine)


def _by_slices(seg: Segmentation, source: SourceImages) -> np.ndarray | None:
    """The numbers of the segments (x, y, z), slice by slice; None if a frame is no slice of the series."""
    own = SourceImages([seg], ())
    if seg.SegmentationType not in ("BINARY", "LABELMAP") or not own.has_slices_like(source):
        return None
    away = np.linalg.norm(own.positions()[:, None] - source.positions()[None], axis=2)
    if away.min(axis=1).max() > _TOLERANCE:
        return None
    shared = seg.SharedFunctionalGroupsSequence[0]
    frames = np.zeros((len(source.positions()), seg.Rows, seg.Columns), dtype=np.uint16)
    pixels = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    for frame, group, at in zip(pixels, seg.PerFrameFunctionalGroupsSequence, away.argmin(axis=1), strict=True):
        drawn = frame > 0
        if frames[at][drawn].any():
            raise DataError("Segments of the segmentation overlap. Give each voxel to one of them.")
        if seg.SegmentationType == "BINARY":
            known = group if "SegmentIdentificationSequence" in group else shared
            frames[at][drawn] = known.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        else:
            frames[at][drawn] = frame[drawn]
    voxels: np.ndarray = frames[source.order()].transpose(2, 1, 0)
    return voxels


def _by_voxels(seg: Segmentation, source: SourceImages) -> np.ndarray:
    """The numbers of the segments (x, y, z), from frames of another orientation on the same voxels."""
    grid = source.geometry()
    volume = seg.get_volume(combine_segments=True, dtype=np.uint16, allow_missing_positions=True)
    matched: np.ndarray = volume.match_geometry(grid, tol=_TOLERANCE).array
    return matched.transpose(2, 1, 0)
