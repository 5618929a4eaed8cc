"""The files of one segmentation: their names, and how each is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from custom.commands.bids import SIDECARS, sidecar_of
from custom.datasets import cortical_areas, freesurfer
from custom.errors import ConfigError
from custom.files import written_whole
from custom.reading.nifti import save_nifti
from custom.reading.scans import BIDS, stem
from custom.running.segmentation import Segmentation

OUTPUTS = ("tissues", "structures", "areas", "mask", "brain", "probabilities")
TISSUE_COLOURS = {"CSF": (60, 60, 60), "GM": (205, 62, 78), "WM": (245, 245, 245)}


def check_outputs(outputs: Any) -> list[str]:
    """The names of what to write, from a list or "a,b". Raises ConfigError for another name, or none."""
    given = outputs if isinstance(outputs, (list, tuple)) else str(outputs).split(",")
    names = [str(name).strip() for name in given if str(name).strip()]
    if unknown := [name for name in names if name not in OUTPUTS]:
        raise ConfigError(f"There is no output {unknown[0]!r}. Use some of {', '.join(OUTPUTS)}.")
    if not names:
        raise ConfigError(f"outputs names nothing to write. Use some of {', '.join(OUTPUTS)}.")
    return names


def results_of(scan: Path, inside: Path, output_dir: Path) -> dict[str, Path]:
    """The names of one scan's results: BIDS derivatives' for a BIDS name, beside the same folders as the scan's."""
    name = stem(scan)
    folder = output_dir / inside.parent
    if match := BIDS.fullmatch(name):
        entities, _, described = match["entities"].partition("_desc-")  # desc comes last in BIDS
        suffix = described + match["suffix"]
        names = {
            "tissues": f"{entities}_desc-{suffix}_dseg.nii.gz",
            "tissues table": f"{entities}_desc-{suffix}_dseg.tsv",
            "structures": f"{entities}_seg-structures_desc-{suffix}_dseg.nii.gz",
            "structures table": f"{entities}_seg-structures_desc-{suffix}_dseg.tsv",
            "areas": f"{entities}_seg-areas_desc-{suffix}_dseg.nii.gz",
            "areas table": f"{entities}_seg-areas_desc-{suffix}_dseg.tsv",
            "mask": f"{entities}_desc-{suffix}brain_mask.nii.gz",
            "intracranial mask": f"{entities}_desc-{suffix}intracranial_mask.nii.gz",
            "brain": f"{entities}_desc-{described}brain_{match['suffix']}.nii.gz",
            "probabilities": f"{entities}_desc-{suffix}_probseg.nii.gz",
            "figure": f"{entities}_desc-{suffix}_dseg.png",
            "record": f"{entities}_desc-{suffix}_dseg.json",
        }
        names |= {f"{what} sidecar": names[what].replace(".nii.gz", ".json") for what in SIDECARS}
    else:
        names = {
            "tissues": f"{name}_seg.nii.gz",
            "tissues table": f"{name}_seg.tsv",
            "structures": f"{name}_structures.nii.gz",
            "structures table": f"{name}_structures.tsv",
            "areas": f"{name}_areas.nii.gz",
            "areas table": f"{name}_areas.tsv",
            "mask": f"{name}_mask.nii.gz",
            "intracranial mask": f"{name}_intracranial.nii.gz",
            "brain": f"{name}_skullstripped.nii.gz",
            "probabilities": f"{name}_probabilities.nii.gz",
            "figure": f"{name}_seg.png",
            "record": f"{name}_seg.json",
        }
    return {what: folder / name for what, name in names.items()}


def wanted_files(outputs: list[str], figure: bool) -> list[str]:
    """Which of results_of are written, but the record, which is written last."""
    with_them = {
        "tissues": ["tissues table"],
        "structures": ["structures table"],
        "areas": ["areas table"],
        "mask": ["intracranial mask"],
    }
    wanted = [name for output in outputs for name in (output, *with_them.get(output, ()))]
    return [*wanted, *(["figure"] if figure else [])]


def write_files(segmentation: Segmentation, paths: Mapping[str, Path], wanted: list[str], title: str) -> None:
    """Writes the wanted files of one segmentation, each whole or not at all."""
    affine = segmentation.affine
    masks = {"mask": segmentation.brain, "intracranial mask": segmentation.intracranial}
    tissues = {code: (name, TISSUE_COLOURS.get(name)) for code, name in segmentation.names.items() if code}
    for what in wanted:
        path = paths[what]
        if sidecar := paths.get(f"{what} sidecar"):
            with written_whole(sidecar) as partial:
                partial.write_text(sidecar_of(what), encoding="utf-8")
        if what == "tissues":
            save_nifti(segmentation.labels, affine, path)
        elif what == "structures":
            save_nifti(np.asarray(segmentation.codes), affine, path)
        elif what == "areas":
            save_nifti(np.asarray(segmentation.area_codes), affine, path)
        elif what in masks:
            save_nifti(masks[what].astype(np.uint8), affine, path)
        elif what == "brain":
            scan = np.asarray(segmentation.item["scan"])[0]
            save_nifti(np.where(segmentation.brain, scan, np.float32(0)), affine, path)
        elif what == "probabilities":
            _save_probabilities(segmentation.item["probabilities"], affine, path)
        elif what == "tissues table":
            _save_table(tissues, path)
        elif what == "structures table":
            _save_table(freesurfer.names_and_colours(), path)
        elif what == "areas table":
            _save_table(cortical_areas.names_and_colours(), path)
        else:
            _save_figure(segmentation, path, title, "structures" in wanted)


def _save_probabilities(probabilities: torch.Tensor, affine: np.ndarray, path: Path) -> None:
    """(C, x, y, z) as (x, y, z, C), 16 bits a value with a scale: float32 would take twice the memory."""
    values = torch.as_tensor(probabilities).as_subclass(torch.Tensor)
    scaled = np.empty((*values.shape[1:], len(values)), dtype=np.int16)
    for number, channel in enumerate(values):
        scaled[..., number] = (channel.cpu().float() * 32767).round().to(torch.int16).numpy()
    save_nifti(scaled, affine, path, slope=1 / 32767)


def _save_table(rows: Mapping[int, tuple[str, tuple[int, int, int] | None]], path: Path) -> None:
    """BIDS's table of a discrete segmentation: index, name, colour."""
    lines = ["index\tname\tcolor"]
    for code, (name, colour) in rows.items():
        lines.append(f"{code}\t{name}\t{'#{:02x}{:02x}{:02x}'.format(*colour) if colour else 'n/a'}")
    with written_whole(path) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _save_figure(segmentation: Segmentation, path: Path, title: str, structures: bool) -> None:
    """The scan as the network saw it, and the outlines of tissues or structures brought to that grid."""
    from custom.reports import contour_figure
    from custom.reports.of_run import save_figure
    from custom.transforms.grids import align

    image, names, labels = segmentation.item["image"], segmentation.names, segmentation.labels
    if structures and segmentation.codes is not None:
        names, labels = freesurfer.names_without_sides(), segmentation.codes
    alignment = align(np.asarray(image.affine, dtype=np.float64), segmentation.affine)
    turned = labels.transpose(alignment.axes)
    nearest = []
    for axis, n in enumerate(image.shape[1:]):
        at = np.rint(alignment.positions(axis, np.arange(n))).astype(int)
        nearest.append(np.clip(at, 0, turned.shape[axis] - 1))
    spacing = np.linalg.norm(np.asarray(image.affine, dtype=np.float64)[:3, :3], axis=0).tolist()
    figure = contour_figure(np.asarray(image[0].cpu()), turned[np.ix_(*nearest)], names, spacing, title)
    save_figure(figure, path, colours=128)
