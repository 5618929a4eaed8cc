"""Areas of the cortex in scans simulated from label maps that took no part in the training: Dice, volumes, baselines.

    python scripts/benchmarks/cortical_areas.py MAPS [--scans 40] [--seed 2] [--people DK_MAPS] [--votes 4]
    python scripts/benchmarks/cortical_areas.py MAPS --whole FILE ... [--scans 20]
    python scripts/benchmarks/cortical_areas.py MAPS --contrasts 10

MAPS is the folder of scripts/parcellate_maps.py: SynthSeg's maps with areas. The last four are drawn from, in turn, or
the label maps named by --whole (FreeSurfer's aparc+aseg, with its own areas). Draws are as hard as in training: all
contrasts, slabs, thick slices, lesions, noise. Printed are, for each area, Dice over scans (mean and standard
deviation) in the cortex that was found, and inside the true cortex. --people adds two baselines for the same scans:
the areas of its first person by an affine map of the structures that were found, and, for so many scans as --votes
says, the votes of all of its people (custom.baselines.area_votes; a minute or more each). --contrasts draws each of so
many whole heads as T1w, T2w, FLAIR and PD, and prints how far the volumes of areas differ between them. Ctrl-C prints
the table of the scans so far.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from scipy import ndimage

from custom.baselines.area_votes import affine_registration, carried, dice_of_areas, person_of, register, votes
from custom.datasets import cortical_areas, freesurfer
from custom.datasets import synthseg_labels as maps
from custom.running import Predictor
from custom.running.bundles import config_files
from custom.transforms import FillSulcid, FindAreasd, LabelAreasd, Structures, SynthesizeScand
from custom.transforms.label_areas import WANTED
from custom.transforms.resample_scan import with_meta_of
from custom.transforms.synthesize_scan import CONTRASTS

LEAST = 100  # voxels of 1.5 mm of an area that a scan must show: slabs cut some
SPACING = 1.5
NAMES = {code: name for code, (name, _) in cortical_areas.names_and_colours().items()}


class Drawn:
    """Scans simulated from label maps with areas, in turn, and what the bundle finds in them."""

    def __init__(self, paths: Sequence[Path], predictor: Predictor, seed: int, **options: Any) -> None:
        labels = cortical_areas.drawn_labels(maps.labels_by_code(freesurfer.LABELS))
        structures = Structures(labels, maps.STRUCTURES, maps.BRIGHT_AS, maps.SIDES)
        self.transform = SynthesizeScand("label", structures, **options)
        self.transform.set_random_state(seed)
        self.predictor = predictor
        self.items = [self._item(path) for path in paths]

    def _item(self, path: Path) -> dict[str, Any]:
        image = nibabel.as_closest_canonical(nibabel.load(path))
        codes = torch.as_tensor(np.asarray(image.dataobj).astype(np.int16))[None]
        return FillSulcid("label", maps.EXTRACEREBRAL)({"label": codes})

    def draw(self, number: int) -> dict[str, Any]:
        """The item of one scan after the bundle, with the reference's "true" (codes) and "true_areas" (1001, ...)."""
        drawn = self.transform(dict(self.items[number % len(self.items)]))
        labels, side = np.asarray(drawn["label"]).astype(int)
        areas = np.maximum(labels - cortical_areas.CLASSES, 0)
        outputs = np.where(labels < cortical_areas.CLASSES, labels, cortical_areas.CORTEX)
        codes = np.where(side == 1, np.take(freesurfer.LEFT_CODES, outputs), np.take(freesurfer.RIGHT_CODES, outputs))
        first = np.where(side == 1, cortical_areas.LEFT, cortical_areas.RIGHT)
        with torch.inference_mode():
            logits = self.predictor.inferer(drawn["image"][None], self.predictor.network)[0].float()
            item = {"pred": logits, "scan": drawn["image"], "image": drawn["image"], WANTED: True}
            found = _step(self.predictor, FindAreasd)(dict(item))
            result: dict[str, Any] = self.predictor.labelling(item)
            true = with_meta_of(drawn["image"], torch.as_tensor(codes)[None])
            inside = _step(self.predictor, LabelAreasd)(found | {"structures": true})
        return result | {
            "true": codes,
            "true_areas": np.where(areas > 0, areas + first, 0),
            "inside": np.asarray(inside["areas"])[0].astype(int),
        }


def _step(predictor: Predictor, kind: type) -> Any:
    return next(step for step in predictor.labelling.transforms if isinstance(step, kind))


def at_one_mm(codes: np.ndarray) -> np.ndarray:
    """Codes of voxels of 1.5 mm as voxels of 1 mm, nearest neighbour, as the registration expects them."""
    return ndimage.zoom(codes, SPACING, order=0, grid_mode=True, mode="nearest")


def baseline(item: Mapping[str, Any], people: Sequence[Any], with_votes: bool) -> dict[str, dict[int, float]]:
    """Dice of one person's areas by an affine map and, if wished, of the votes of all, in the cortex that was found."""
    target = person_of(at_one_mm(np.asarray(item["structures"])[0]))
    true = at_one_mm(item["true_areas"])
    least = round(LEAST * SPACING**3)
    ways = {"affine": carried(affine_registration(target, people[0]), target, people[0])}
    if with_votes:
        ways["votes"] = votes(target, [carried(register(target, person), target, person) for person in people])
    result = {}
    for name, numbers in ways.items():
        whole = np.zeros(true.shape, dtype=int)
        first = np.where(target.codes == 3, cortical_areas.LEFT, cortical_areas.RIGHT)
        place = tuple(slice(start, start + n) for start, n in zip(target.corner, numbers.shape, strict=True))
        whole[place] = np.where(numbers > 0, numbers + first, 0)
        result[name] = dice_of_areas(whole, true, least)
    return result


def scored(item: Mapping[str, Any], people: Sequence[Any], with_votes: bool) -> dict[str, dict[int, float]]:
    """Dice of each area in view, by way; {} for a slab without one."""
    found = np.asarray(item["areas"])[0].astype(int)
    each = {
        "network": dice_of_areas(found, item["true_areas"], LEAST),
        "inside the true cortex": dice_of_areas(item["inside"], item["true_areas"], LEAST),
    }
    if not each["network"]:
        return {}
    return each | baseline(item, people, with_votes) if people else each


def table(drawn: Drawn, scans: int, people: Sequence[Any], with_votes: int) -> None:
    dices: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    means: dict[str, list[float]] = defaultdict(list)
    with contextlib.suppress(KeyboardInterrupt):
        for number in range(scans):
            start = time.perf_counter()
            each = scored(drawn.draw(number), people, number < with_votes)
            for way, of_areas in each.items():
                for code, value in of_areas.items():
                    dices[way][code].append(value)
                means[way].append(float(np.mean(list(of_areas.values()))))
            line = ", ".join(f"{way} {means[way][-1]:.3f}" for way in each) or "no area in view"
            print(f"{number + 1} of {scans}: {line} ({time.perf_counter() - start:.0f} s)", flush=True)
    ways = list(dices)
    print(f"\n| area | n left, right | {' | '.join(ways)} |\n|---|---|{'---|' * len(ways)}")
    for area in cortical_areas.AREAS:
        codes = [first + area.number for first in (cortical_areas.LEFT, cortical_areas.RIGHT)]
        both = {way: [value for code in codes for value in dices[way][code]] for way in ways}
        counts = ", ".join(str(len(dices["network"][code])) for code in codes)
        print(f"| {area.name} | {counts} | {' | '.join(_mean(both[way]) for way in ways)} |")
    print("\n| Dice, mean over areas | n scans | mean over scans (standard deviation) | median |\n|---|---|---|---|")
    for way, values in means.items():
        print(f"| {way} | {len(values)} | {_mean(values)} | {np.median(values):.3f} |")
    shown = means["network"][:with_votes]
    if with_votes and shown:
        print(f"\nThe network on the scans with votes: {_mean(shown)}, n = {len(shown)}")


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ({np.std(values):.3f})" if values else "-"


def contrasts(paths: Sequence[Path], predictor: Predictor, heads: int, seed: int) -> None:
    names = list(CONTRASTS)
    volumes: dict[int, list[list[float]]] = defaultdict(list)
    for number in range(heads):
        items = []
        for name in names:
            source = Drawn(paths, predictor, seed + number, stripped=0, cut=0, contrast=name)
            items.append(source.draw(number)["area_measures"])
        for code in NAMES:
            volumes[code].append([float(measures.voxels[code]) for measures in items])
        print(f"{number + 1} of {heads}", end="\r", flush=True)
    values = np.array(list(volumes.values()))  # (areas, heads, contrasts)
    relative = np.abs(values / values.mean(axis=2, keepdims=True).clip(1e-6) - 1)
    pairs = [
        np.abs(values[..., i] - values[..., j]) / (0.5 * (values[..., i] + values[..., j])).clip(1e-6)
        for i in range(len(names))
        for j in range(i)
    ]
    print(f"{heads} heads, {len(NAMES)} areas, contrasts {', '.join(names)}:")
    print(
        f"difference of two contrasts: median {100 * np.median(pairs):.1f}%, 90% {100 * np.quantile(pairs, 0.9):.1f}%"
    )
    print(f"difference from a head's mean: median {100 * np.median(relative):.1f}%")
    for index, name in enumerate(names):
        change = values[..., index] / values.mean(axis=2).clip(1e-6) - 1
        print(f"{name}: mean {100 * change.mean():+.1f}% of a head's mean over contrasts")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maps", type=Path)
    parser.add_argument("--scans", type=int, default=40)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--whole", type=Path, nargs="*")
    parser.add_argument("--people", type=Path)
    parser.add_argument("--votes", type=int, default=0)
    parser.add_argument("--contrasts", type=int, default=0)
    parser.add_argument("--areas_path")
    options = parser.parse_args()
    settings = {"areas_path": options.areas_path} if options.areas_path else {}
    predictor = Predictor(config_files("brain_mri_tissue", "inference.json"), device="cpu", **settings)
    paths = options.whole or [Path(item["label"]) for item in maps.datalist(options.maps, "validation")]
    print(f"seed {options.seed}, {', '.join(path.name for path in paths)}\n", flush=True)
    if options.contrasts:
        contrasts(paths, predictor, options.contrasts, options.seed)
        return
    files = sorted(options.people.glob("*aparc+aseg.*")) if options.people else []
    people = [
        person_of(np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj))
        for path in files
        if path not in paths
    ]
    table(Drawn(paths, predictor, options.seed), options.scans, people, options.votes)


if __name__ == "__main__":
    main()
