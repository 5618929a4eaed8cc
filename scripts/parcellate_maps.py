#!/usr/bin/env python
"""Areas of the cortex for label maps that have none, by the votes of people whose areas FreeSurfer found.

    python scripts/parcellate_maps.py MAPS PEOPLE OUT [--leave_one_out]

MAPS holds label maps with FreeSurfer's codes (SynthSeg's, custom.datasets.synthseg_labels); PEOPLE holds segmentations
of FreeSurfer (*aparc+aseg.mgz or .nii.gz). For each map OUT gets <name>_aparc+aseg.nii.gz, the map with the codes of
areas (1001, ...) in its cortex, and a figure .png beside it. That folder is the dataset_dir of train_areas.json. What
exists is kept, so that a run that was stopped goes on. A minute or more a map on two cores.

--leave_one_out writes nothing. It takes the areas from each of PEOPLE in turn, and prints how well the votes of the
others find them: mean Dice over areas inside FreeSurfer's own cortex, of all sources together, with votes weighted by
the overlap of the structures around each voxel, and of each source alone.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import nibabel
import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage

from custom.baselines import area_votes
from custom.baselines.area_votes import Person
from custom.datasets import cortical_areas
from custom.files import written_whole

LEAST = 150  # voxels of an area that is scored
NEAR = 5.0  # mm: how far around a voxel the overlap of structures counts for a weighted vote


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Codes (x, y, z) and affine of a label map, in RAS. Raises SystemExit if its voxels are not 1 mm."""
    image = nibabel.as_closest_canonical(nibabel.load(path))
    if not np.allclose(nibabel.affines.voxel_sizes(image.affine), 1, atol=0.02):
        raise SystemExit(f"{path} has voxels of {image.header.get_zooms()[:3]} mm. Resample it to 1 mm.")
    return np.asarray(image.dataobj).astype(np.int16), image.affine


def coded(person: Person, numbers: np.ndarray) -> np.ndarray:
    """Numbers of areas as FreeSurfer's codes (1001, ...), 0 elsewhere."""
    first = np.where(person.codes == area_votes.LEFT, cortical_areas.LEFT, cortical_areas.RIGHT)
    return np.where(numbers > 0, numbers + first, 0).astype(np.int16)


def ballots_of(target: Person, people: list[Person]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Each source's areas at the target's cortex, and where its structures agree with the target's, smoothed."""
    ballots, agreement = [], []
    for person in people:
        registration = area_votes.register(target, person)
        ballots.append(area_votes.carried(registration, target, person))
        voxels = np.argwhere(target.codes > 0)
        places = np.clip(np.rint(registration(voxels)).astype(int), 0, np.array(person.codes.shape) - 1)
        same = np.zeros(target.codes.shape, dtype=np.float32)
        same[tuple(voxels.T)] = person.codes[tuple(places.T)] == target.codes[tuple(voxels.T)]
        agreement.append(ndimage.gaussian_filter(same, NEAR))
    return ballots, agreement


def figure(codes: np.ndarray) -> Figure:
    """Three slices of each plane, in FreeSurfer's colours."""
    colours = np.full((2100, 3), 0.0)
    colours[1:1000] = 0.25
    for code, (_, colour) in cortical_areas.names_and_colours().items():
        colours[code] = np.array(colour) / 255
    drawing = Figure(figsize=(9, 9), facecolor="black", layout="tight")
    where = np.argwhere(codes >= cortical_areas.LEFT)
    for number, axes in enumerate(drawing.subplots(3, 3).flat):
        axis, place = number // 3, (0.3, 0.5, 0.75)[number % 3]
        low, high = where[:, axis].min(), where[:, axis].max()
        plane = np.take(codes, int(low + place * (high - low)), axis)
        axes.imshow(colours[np.where(plane < 1000, plane > 0, plane)].transpose(1, 0, 2), origin="lower")
        axes.axis("off")
    return drawing


def parcellate(maps: list[Path], people: list[Person], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for path in maps:
        name = path.name.removesuffix(".nii.gz").removesuffix("_dseg")
        target = out / f"{name}_aparc+aseg.nii.gz"
        if target.is_file() and target.with_name(f"{name}.png").is_file():
            continue
        start = time.perf_counter()
        codes, affine = read(path)
        person = area_votes.person_of(codes)
        ballots, _ = ballots_of(person, people)
        winner = area_votes.votes(person, ballots)
        labelled = codes.copy()
        place = tuple(slice(first, first + n) for first, n in zip(person.corner, winner.shape, strict=True))
        labelled[place] = np.where(winner > 0, coded(person, winner), codes[place])
        with written_whole(target) as partial:
            nibabel.save(nibabel.Nifti1Image(labelled, affine), partial)
        with written_whole(target.with_name(f"{name}.png")) as partial:
            figure(labelled).savefig(partial, dpi=80, facecolor="black", format="png")
        agreement = np.mean([(ballot == winner)[winner > 0].mean() for ballot in ballots])
        print(
            f"{target}: sources agree with the votes at {agreement:.3f} ({time.perf_counter() - start:.0f} s)",
            flush=True,
        )


def leave_one_out(paths: list[Path], people: list[Person]) -> None:
    for left, (path, person) in enumerate(zip(paths, people, strict=True)):
        assert person.areas is not None
        target = Person(person.codes, None, person.corner)
        ballots, agreement = ballots_of(target, [other for number, other in enumerate(people) if number != left])
        found = {
            "votes": area_votes.votes(target, ballots),
            "weighted votes": area_votes.votes(target, ballots, agreement),
            **{f"source {number}": ballot for number, ballot in enumerate(ballots, start=1)},
        }
        truth = coded(person, person.areas)
        dices = {
            name: np.mean(list(area_votes.dice_of_areas(coded(person, numbers), truth, LEAST).values()))
            for name, numbers in found.items()
        }
        print(f"{path.name}: {', '.join(f'{name} {dice:.3f}' for name, dice in dices.items())}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maps", type=Path)
    parser.add_argument("people", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--leave_one_out", action="store_true")
    options = parser.parse_args()
    paths = sorted(path for path in options.people.glob("*aparc+aseg.*") if path.suffix in (".mgz", ".gz", ".nii"))
    if not paths:
        raise SystemExit(f"{options.people} holds no *aparc+aseg.mgz or .nii.gz.")
    people = [area_votes.person_of(read(path)[0]) for path in paths]
    if options.leave_one_out:
        leave_one_out(paths, people)
        return
    maps = sorted(options.maps.glob("*.nii.gz"))
    if not maps:
        raise SystemExit(f"{options.maps} holds no .nii.gz.")
    parcellate(maps, people, options.out)


if __name__ == "__main__":
    main()
