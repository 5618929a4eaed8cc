"""The figures of a finished run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from matplotlib.figure import Figure
from monai.bundle import ConfigWorkflow
from monai.transforms import ResizeWithPadOrCrop
from PIL import Image

from custom.files import written_whole
from custom.reports.attention_gates import gate_table
from custom.reports.curves import curves_figure
from custom.reports.feature_maps import feature_maps_figure
from custom.reports.of_classification import classification_figures
from custom.reports.overlay import animation, overlay_figure, save_animation
from custom.reports.segmentation import PLANES, segmentation_figure
from custom.reports.slices import attention_animation, attention_figure, channels_figure
from custom.running.bundles import channels_of_run, labels_of_run


def evaluated_subject(workflow: ConfigWorkflow) -> dict[str, Any]:
    """The last subject of an evaluation: "image" (C, x, y, z), one-hot "label" and "pred"."""
    subject: dict[str, Any] = workflow.parser.get_parsed_content("validate#evaluator").state.output[0]
    return subject


def scan_and_labels(workflow: ConfigWorkflow) -> tuple[np.ndarray, dict[str, np.ndarray], dict[int, str]]:
    """Image (C, x, y, z), label maps "label" and "pred", and label names of the last subject of an evaluation, in RAS.

    Evaluations may have additional channels for regions after those of the labels; they are not shown.
    """
    subject, names = evaluated_subject(workflow), labels_of_run(workflow.parser)
    to_ras = nibabel.io_orientation(subject["label"].affine)

    def in_ras(volume: np.ndarray) -> np.ndarray:
        turned: np.ndarray = nibabel.apply_orientation(volume, to_ras)
        return turned

    volumes = {key: in_ras(np.asarray(subject[key].cpu())[: len(names)].argmax(axis=0)) for key in ("label", "pred")}
    image = np.stack([in_ras(channel) for channel in np.asarray(subject["image"].cpu())])
    # Stripped voxels are 0 among z-scores: show them black.
    return np.where(image == 0, image.min(axis=(1, 2, 3), keepdims=True), image), volumes, names


def subject_figure(workflow: ConfigWorkflow) -> Figure:
    """Scan, reference and prediction of the last subject of an evaluation."""
    image, volumes, names = scan_and_labels(workflow)
    return segmentation_figure(
        image[0], volumes["label"], volumes["pred"], names, spacing_of(workflow), subject_of(workflow)
    )


def _all_slices(workflow: ConfigWorkflow, size: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (C, *size, slices) and tumors (*size, slices) of all subjects of an evaluation, one after another."""
    images, tumors = [], []
    for item in workflow.parser.get_parsed_content("validate#dataset"):
        image, label = (torch.as_tensor(item[key]).as_subclass(torch.Tensor).cpu() for key in ("image", "label"))
        fit = ResizeWithPadOrCrop((*size, image.shape[-1]))
        images.append(torch.as_tensor(fit(image)).as_subclass(torch.Tensor))
        tumors.append(torch.as_tensor(fit((label > 0).any(dim=0, keepdim=True).float())).as_subclass(torch.Tensor)[0])
    return torch.cat(images, dim=-1), torch.cat(tumors, dim=-1)


def spacing_of(workflow: ConfigWorkflow) -> list[float]:
    """Voxel size of the last subject of an evaluation, in mm."""
    return [float(size) for size in evaluated_subject(workflow)["label"].pixdim]


def subject_of(workflow: ConfigWorkflow) -> str:
    """The name of the last subject of an evaluation."""
    return str(workflow.parser.get_parsed_content("validate#evaluator").state.batch[0]["subject"])


def save_report(workflow: ConfigWorkflow) -> list[Path]:
    """Writes the figures of a run to output_dir/report, and returns their paths.

    curves.png, segmentation.png, overlay.png, feature_maps.png and an animation along each axis; for images of more
    than two channels channels.png, a slice; for networks with attention gates attention.png, attention.gif and
    attention.csv (custom.reports.attention_gates).
    Networks that predict classes or numbers get the figures of custom.reports.of_classification.

    Args:
        workflow: an evaluation that has run.
    """
    root = Path(workflow.parser.get_parsed_content("output_dir"))
    folder, network = root / "report", workflow.parser.get_parsed_content("network")
    if workflow.parser["_meta_#kind"] == "classification":
        return [
            save_figure(figure, folder / f"{name}.png") for name, figure in classification_figures(workflow).items()
        ]
    size = workflow.parser.get_parsed_content("roi_size")
    shown, volumes, names = scan_and_labels(workflow)
    prediction, spacing = volumes["pred"], spacing_of(workflow)
    image = torch.as_tensor(evaluated_subject(workflow)["image"]).as_subclass(torch.Tensor)
    device = next(network.parameters()).device
    fullest = int((volumes["label"] > 0).sum((0, 1)).argmax())
    window = ResizeWithPadOrCrop(size)(image[..., fullest] if len(size) == 2 else image)
    window = torch.as_tensor(window).as_subclass(torch.Tensor).to(device)
    figures = {
        "curves": curves_figure(root / "tensorboard"),
        "segmentation": subject_figure(workflow),
        "overlay": overlay_figure(shown[0], prediction, names, spacing, title=f"{subject_of(workflow)}, prediction"),
        "feature_maps": feature_maps_figure(network, window[None]),
    }
    if len(image) > 2:
        masks = {
            source: np.stack([volumes[key][..., fullest] == code for code in names if code])
            for source, key in (("reference", "label"), ("prediction", "pred"))
        }
        title = f"{subject_of(workflow)}, slice {fullest}"
        figures["channels"] = channels_figure(
            shown[..., fullest], masks, list(channels_of_run(workflow.parser)), list(names.values())[1:], title
        )
    frames = {plane: animation(shown[0], prediction, axis, spacing) for axis, plane in enumerate(PLANES)}
    if hasattr(network, "attention_maps"):
        figures["attention"] = attention_figure(network, window)
        slices = ResizeWithPadOrCrop((*size, image.shape[-1]))(image)
        slices = torch.as_tensor(slices).as_subclass(torch.Tensor).to(device)
        frames["attention"] = attention_animation(network, slices)
        everything = (part.to(device) for part in _all_slices(workflow, size))
        with written_whole(folder / "attention.csv") as partial:
            gate_table(network, *everything).to_csv(partial, index=False, float_format="%.4f")
    written = [save_figure(figure, folder / f"{name}.png") for name, figure in figures.items()]
    return written + [save_animation(images, folder / f"{name}.gif") for name, images in frames.items()]


def save_figure(figure: Figure, path: Path, colours: int | None = None) -> Path:
    """Writes a PNG atomically; with `colours`, at most 256, of that many colours, a third as large."""
    with written_whole(path) as partial:
        figure.savefig(partial, dpi=110, format="png")
        if colours:
            with Image.open(partial) as picture:
                fewer = picture.convert("RGB").quantize(colours, method=Image.Quantize.FASTOCTREE)
            fewer.save(partial, format="PNG", optimize=True)
    return path
