"""The pictures of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from monai.bundle import ConfigWorkflow
from monai.transforms import ResizeWithPadOrCrop

from custom.files import written_whole
from custom.reports.curves import curves_figure
from custom.reports.feature_maps import feature_maps_figure
from custom.reports.segmentation import segmentation_figure


def evaluated_subject(workflow: ConfigWorkflow) -> dict[str, Any]:
    """The last subject that an evaluation saw: "image" (C, x, y, z), one-hot "label" and "pred", in RAS."""
    return workflow.parser.get_parsed_content("validate#evaluator").state.output[0]


def labels_of(workflow: ConfigWorkflow) -> dict[int, str]:
    """The bundle's label names, as its metadata has them."""
    channels = workflow.parser["_meta_#network_data_format#outputs#pred#channel_def"]
    return {int(code): name for code, name in channels.items()}


def subject_figure(workflow: ConfigWorkflow) -> Figure:
    """Scan, truth and prediction of the subject that an evaluation saw last."""
    subject = evaluated_subject(workflow)
    volumes = {key: np.asarray(subject[key].cpu()) for key in ("image", "label", "pred")}
    scan = volumes["image"][0]
    return segmentation_figure(
        np.where(scan == 0, scan.min(), scan),  # what was stripped is 0 among z-scores: show it black
        volumes["label"].argmax(axis=0),
        volumes["pred"].argmax(axis=0),
        labels_of(workflow),
        [float(size) for size in subject["label"].pixdim],
        str(workflow.parser.get_parsed_content("validate#evaluator").state.batch[0]["subject"]),
    )


def save_report(workflow: ConfigWorkflow) -> list[Path]:
    """Writes curves.png, segmentation.png and feature_maps.png to output_dir/report, and returns their paths.

    Args:
        workflow: an evaluation that has run.
    """
    folder = Path(workflow.parser.get_parsed_content("output_dir"))
    network = workflow.parser.get_parsed_content("network")
    size = workflow.parser.get_parsed_content("roi_size")
    middle = ResizeWithPadOrCrop(size)(evaluated_subject(workflow)["image"])
    figures = {
        "curves": curves_figure(folder / "tensorboard"),
        "segmentation": subject_figure(workflow),
        "feature_maps": feature_maps_figure(network, torch.as_tensor(middle)[None]),
    }
    return [save_figure(figure, folder / "report" / f"{name}.png") for name, figure in figures.items()]


def save_figure(figure: Figure, path: Path) -> Path:
    """Writes a PNG whole or not at all."""
    with written_whole(path) as partial:
        figure.savefig(partial, dpi=110, format="png")
    return path
