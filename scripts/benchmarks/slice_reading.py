"""Reading of slices: gzip HDF5 as it is downloaded, against the prepared form, in one process.

    python scripts/benchmarks/slice_reading.py [--spacing 1] [--slices 200] [--repeats 5]

Writes the sample (two of its three patients' slices are read; 240x240 at 1 mm) to a temporary folder, prepares it, and
reads the same slices in the same random order both ways, as custom.transforms.LoadSliced does, image and mask. Both are
in the system's file cache. Prints milliseconds a slice (median of the repeats, least, greatest) and their ratio.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

from custom.datasets import brats_slices as slices
from custom.samples import brats_slices as sample
from custom.transforms import LoadSliced


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--spacing", type=int, default=1)
    arguments.add_argument("--slices", type=int, default=200)
    arguments.add_argument("--repeats", type=int, default=5)
    options = arguments.parse_args()
    load = LoadSliced(["image", "label"], slices.read_slice, slices.CHANNEL_ORDER, slices.CHANNELS)
    with tempfile.TemporaryDirectory() as temporary:
        source = sample.write(Path(temporary) / "slices", options.spacing, labelled=3)
        prepared = slices.prepare(source, Path(temporary) / "prepared")
        items = [slices.datalist(folder, "training") for folder in (source, prepared)]
        order = random.Random(0).sample(range(len(items[0])), min(options.slices, len(items[0])))
        shape = tuple(load(items[0][0])["image"].shape)
        for item in (items[way][index] for way in (0, 1) for index in order):
            load(item)
        times: list[list[float]] = [[], []]
        for _ in range(options.repeats):
            for way in (0, 1):
                start = time.perf_counter()
                for index in order:
                    load(items[way][index])
                times[way].append((time.perf_counter() - start) / len(order))
    ratios = [slow / fast for slow, fast in zip(*times, strict=True)]
    print(f"{len(order)} slices of {shape}, n = {options.repeats}")
    for name, values, factor in (("HDF5, ms", times[0], 1e3), ("prepared, ms", times[1], 1e3), ("ratio", ratios, 1)):
        values = [factor * value for value in values]
        print(f"{name}: {statistics.median(values):.2f} ({min(values):.2f}, {max(values):.2f})")


if __name__ == "__main__":
    main()
