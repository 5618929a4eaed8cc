"""Images that are one image nearly: copies in another size, quality or brightness, found by a perceptual hash.

The hash is ImageHash's phash of 256 bits: which of the 16x16 lowest frequencies of a 64x64 version lie above their
median. THRESHOLD was chosen on 657 contrast-enhanced slices of J. Cheng's set (figshare 1512427). Of every third one,
copies were made: JPEG of quality 75 or 30, 64x64 to 512x512, stretched, 1.2 times as bright, 1.3 times the contrast,
noise (standard deviation 5), turned by 1 degree: 28 bits or less from their original, all but the turned ones 16 or
less. The 190,781 pairs of slices of two patients: 36 bits or more. What it doesn't find: mirrored copies, other margins
(a margin of 5% moves 80 bits), and neighbouring slices of one patient (half of them differ by more than 102 bits, two
patients' by 124). Those need to be named, in groups.csv.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagehash
import numpy as np
from scipy.sparse import csr_matrix
from sklearn.neighbors import NearestNeighbors
from tqdm import tqdm

from custom.errors import DataError
from custom.files import NO_JSON, stamp_of, written_whole
from custom.reading.images import read_image

SIDE = 16  # bits along each axis of the hash
THRESHOLD = 32  # bits, of 256, that a copy may differ by


def hashes(folder: Path, images: Sequence[str], cache_dir: str | Path | None) -> tuple[dict[str, str], list[str]]:
    """Perceptual hashes of a folder's images, each computed once.

    Args:
        folder: of the data set.
        images: paths below it.
        cache_dir: where a file of hashes is kept, which is not in the data set; None for none. A file that was changed
            since it was read is read again.

    Returns:
        {image: 64 hexadecimal digits}, in the images' order, and a sentence for each image that can't be used.
    """
    place = hashlib.sha1(str(folder.resolve()).encode(), usedforsecurity=False).hexdigest()[:8]
    cache = Path(cache_dir).expanduser() / f"{folder.resolve().name}-{place}-phash{SIDE}.json" if cache_dir else None
    known = _read_cache(cache)
    stamps = {image: list(stamp_of(folder / image)) for image in images}
    new = [image for image in images if known.get(image, [])[:-1] != stamps[image]]
    with ThreadPoolExecutor() as pool:  # Pillow decodes and resizes outside Python's lock
        results = pool.map(_hash, [folder / image for image in new])
        hash_or_error = dict(
            zip(new, tqdm(results, total=len(new), desc="hashing", unit="image", disable=not new), strict=True)
        )
    problems = [str(result) for result in hash_or_error.values() if isinstance(result, DataError)]
    known |= {image: [*stamps[image], result] for image, result in hash_or_error.items() if isinstance(result, str)}
    if cache and new:
        with written_whole(cache) as partial:
            partial.write_text(json.dumps(known), encoding="utf-8")
    broken = {image for image, result in hash_or_error.items() if isinstance(result, DataError)}
    return {image: known[image][-1] for image in images if image not in broken}, problems


def _read_cache(cache: Path | None) -> dict[str, list]:
    try:
        return json.loads(cache.read_text(encoding="utf-8")) if cache else {}
    except (OSError, *NO_JSON):
        return {}  # none yet, or cut short: all is computed anew


def _hash(path: Path) -> str | DataError:
    try:
        return str(imagehash.phash(read_image(path), hash_size=SIDE))
    except DataError as error:
        return error


def near_duplicates(hashes_of: Sequence[str], threshold: int = THRESHOLD) -> csr_matrix:
    """Which images are near-duplicates of which: (N, N), sparse, symmetric, 1 also from each to itself.

    Args:
        hashes_of: N hashes as `hashes` gives them.
        threshold: the most bits that differ.
    """
    digits = np.array([list(bytes.fromhex(text)) for text in hashes_of], dtype=np.uint8)
    bits = np.unpackbits(digits, axis=1).astype(np.float32)
    # Of 0 and 1, the squared distance is the number of those that differ; Euclid's goes by matrix products.
    search = NearestNeighbors(radius=float(np.sqrt(threshold + 0.5)), algorithm="brute", metric="euclidean")
    return search.fit(bits).radius_neighbors_graph(bits)
