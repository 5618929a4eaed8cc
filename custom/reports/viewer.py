"""One scan with its labels as two pictures, small enough that a page holds hundreds of them.

The pictures are mosaics of sagittal slices, as the viewer brainsprite reads them.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping

import nibabel
import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation, map_coordinates

from custom.reports.segmentation import limits_of

SIZE = 2.0  # mm of a voxel in the viewer
MARGIN = 6  # mm around the labels
QUALITY = 40  # of WebP, to 100
Colours = Mapping[int, tuple[str, tuple[int, int, int]]]


def view(scan: np.ndarray | None, labels: np.ndarray, affine: np.ndarray, names: Colours) -> str:
    """A scan and its labels for the viewer of custom.reports.cohort, as JSON; "" if there is no label.

    Args:
        scan: (x, y, z), any values; None for labels alone.
        labels: (x, y, z), codes of `names` and 0 for background.
        affine: (4, 4) of both, voxels to mm.
        names: {code: (name, (red, green, blue))}. Colours that occur twice are changed a little, because the viewer
            finds the name by the colour.
    """
    box = [
        np.flatnonzero((labels > 0).any(axis=tuple(other for other in range(3) if other != axis))) for axis in range(3)
    ]
    if not len(box[0]):
        return ""
    orientation = nibabel.io_orientation(affine)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    places = []  # of each axis of the scan: where the viewer's voxels lie, in voxels
    for found, size, n in zip(box, spacing, labels.shape, strict=True):
        first, last = (max(found[0] - MARGIN / size, 0), min(found[-1] + MARGIN / size, n - 1))
        places.append(np.arange(first, last + 1e-6, SIZE / size))
    codes = _turned(labels[np.ix_(*(place.round().astype(int) for place in places))], orientation)
    if scan is None:
        grey = np.zeros(codes.shape, dtype=np.uint8)
    else:
        low, high = limits_of(scan)
        sampled = map_coordinates(scan.astype(np.float32), np.meshgrid(*places, indexing="ij"), order=1, mode="nearest")
        grey = _turned((255 * np.clip((sampled - low) / max(high - low, 1e-6), 0, 1)).astype(np.uint8), orientation)
        grey[~binary_dilation(codes > 0, iterations=round(MARGIN / SIZE))] = 0  # no face
    numbers, colours, titles = _numbered(codes, names)
    overlay = Image.fromarray(_mosaic(numbers), "P")
    overlay.putpalette([0, 0, 0, *(value for colour in colours for value in colour)])
    overlay.info["transparency"] = 0
    return json.dumps(
        {
            "size": list(codes.shape),
            "scan": _data_url(Image.fromarray(_mosaic(grey), "L"), quality=QUALITY),
            "labels": _data_url(overlay.convert("RGBA"), lossless=True),
            "names": {
                "#{:02x}{:02x}{:02x}".format(*colour): title for colour, title in zip(colours, titles, strict=True)
            },
        }
    )


def _turned(volume: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    turned: np.ndarray = nibabel.apply_orientation(volume, orientation)
    return turned


def _numbered(codes: np.ndarray, names: Colours) -> tuple[np.ndarray, list[tuple[int, int, int]], list[str]]:
    """The codes as numbers from 1, and colours, each once, and names of these numbers. Other codes become 0."""
    numbers, colours, titles = np.zeros(codes.shape, dtype=np.uint8), list[tuple[int, int, int]](), list[str]()
    for code, (name, (red, green, blue)) in names.items():
        while (red, green, blue) in colours or (red, green, blue) == (0, 0, 0):
            blue = blue - 1 if blue > 127 else blue + 1
        colours.append((red, green, blue))
        titles.append(name)
        numbers[codes == code] = len(colours)
    return numbers, colours, titles


def _mosaic(volume: np.ndarray) -> np.ndarray:
    """(x, y, z) as sagittal slices in rows, up and the front as a person looks at them from the left side.

    Slice x is in row x // columns and column x % columns; y goes to the right and z upwards.
    """
    n, width, height = volume.shape
    columns = int(np.ceil(n / np.ceil(np.sqrt(n))))
    rows = int(np.ceil(n / columns))
    padded = np.zeros((rows * columns, height, width), dtype=volume.dtype)
    padded[:n] = volume[:, :, ::-1].transpose(0, 2, 1)
    tiles = padded.reshape(rows, columns, height, width).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(tiles.reshape(rows * height, columns * width))


def _data_url(picture: Image.Image, **options: object) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", **options)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
