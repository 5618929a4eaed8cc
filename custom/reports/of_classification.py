"""The figures of a finished run that predicts classes or a number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import torch
from matplotlib.figure import Figure
from monai.bundle import ConfigWorkflow

from custom.reports.attention_rollout import ATTENTION, attention_rollout
from custom.reports.classification import (
    confusion_figure,
    images_figure,
    predicted_figure,
    reliability_figure,
    roc_figure,
)
from custom.reports.curves import curves_figure
from custom.reports.heat_maps import cam, grad_cam, heat_maps_figure, layers_figure, shown_names

SHOWN = 4  # persons or images in the heat maps
MISTAKES = 16
HeatMap = Callable[[torch.nn.Module, torch.Tensor, int], np.ndarray]  # of an image (1, C, *spatial) and a class


def classification_figures(workflow: ConfigWorkflow) -> dict[str, Figure]:
    """Curves, confusion, roc, reliability and mistakes (of a regression: predicted), heat maps, layers; by name.

    Heat maps show the predicted class of the first persons of the split: Grad-CAM, for DenseNets also CAM, for
    transformers attention rollout.

    Args:
        workflow: an evaluation that has run.
    """
    parser = workflow.parser
    root, classes = Path(parser.get_parsed_content("output_dir")), parser.get_parsed_content("classes")
    network = parser.get_parsed_content("network")
    names_as_text = {"subject": str, "label": str, "prediction": str}
    table = pandas.read_csv(root / "evaluation/predictions.csv", dtype=names_as_text, keep_default_na=False)
    figures = {"curves": curves_figure(root / "tensorboard")}
    if len(classes) == 1:
        values, predicted = (table[name].to_numpy(dtype=float) for name in ("label", "prediction"))
        figures["predicted"] = predicted_figure(values, predicted, classes[0])
        outputs = predicted[:, None]
    else:
        codes = {name: code for code, name in classes.items()}
        labels = table["label"].map(codes).to_numpy()
        outputs = table[[f"p_{name}" for name in classes.values()]].to_numpy()
        figures |= {
            "confusion": confusion_figure(labels, outputs, classes),
            "roc": roc_figure(labels, outputs, classes),
            "reliability": reliability_figure(labels, outputs),
        }
        if mistakes := _mistakes(workflow, table):
            figures["mistakes"] = mistakes
    dataset = parser.get_parsed_content("validate#dataset")
    items = [dataset[number] for number in range(min(SHOWN, len(dataset)))]
    device = next(network.parameters()).device
    images = [torch.as_tensor(item["image"]).as_subclass(torch.Tensor)[None].to(device) for item in items]
    names = shown_names(items, list(outputs[: len(items)]), classes)
    shown = [image[0].cpu().numpy() for image in images]
    for kind, draw in _heat_maps_of(network).items():
        maps = [draw(network, image, int(np.argmax(output))) for image, output in zip(images, outputs, strict=False)]
        figures[kind] = heat_maps_figure(shown, maps, names)
    return figures | {"layers": layers_figure(network, images[0])}


def _heat_maps_of(network: torch.nn.Module) -> dict[str, HeatMap]:
    """The heat maps that suit a network, by name."""
    if any(isinstance(layer, ATTENTION) for layer in network.modules()):
        return {"attention_rollout": _attention_rollout}
    return {"grad_cam": grad_cam} | ({"cam": cam} if hasattr(network, "class_layers") else {})


def _attention_rollout(network: torch.nn.Module, image: torch.Tensor, _code: int) -> np.ndarray:
    heat: np.ndarray = attention_rollout(network, image).cpu().numpy()
    return heat


def _mistakes(workflow: ConfigWorkflow, table: pandas.DataFrame) -> Figure | None:
    """The wrong predictions with the greatest confidence, in descending order."""
    wrong = table[table["prediction"] != table["label"]].sort_values("probability", ascending=False).head(MISTAKES)
    dataset = workflow.parser.get_parsed_content("validate#dataset")
    place = {str(item["subject"]): number for number, item in enumerate(dataset.data)}
    if wrong.empty:
        return None
    shown = [np.asarray(dataset[place[subject]]["image"]) for subject in wrong["subject"]]
    names = [f"{row.label}, predicted {row.prediction} ({row.probability:.2f})" for row in wrong.itertuples()]
    return images_figure(shown, names, f"mistakes with the greatest confidence, of {len(table)} predictions")
