"""Heat maps: which parts of an image a classifier's answer depends on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from monai.visualize import CAM, GradCAM

from custom import RESEARCH_USE_ONLY
from custom.reports.segmentation import PLANES

LEAST = 5  # voxels along each axis of a map worth enlarging


def grad_cam(network: torch.nn.Module, image: torch.Tensor, code: int) -> np.ndarray:
    """Grad-CAM (Selvaraju et al. 2017) of the deepest layer whose maps have 5 voxels or more along each axis.

    Args:
        network: a classifier; it does not change.
        image: (1, C, *spatial), as the network takes it.
        code: of the class, or 0 for a network with one output.

    Returns:
        (*spatial), 0 to 1, its greatest value.

    Raises:
        ValueError: no layer has maps of that size.
    """
    twin = _twin(network)
    names: list[str] = []
    hooks = [
        layer.register_forward_hook(_note(names, name, image.ndim)) for name, layer in twin.named_modules() if name
    ]
    with torch.no_grad():
        twin(image)
    for hook in hooks:
        hook.remove()
    if not names:
        raise ValueError(f"{type(network).__name__} has no layer whose maps have {LEAST} voxels or more a side.")
    cam = GradCAM(twin, target_layers=names[-1], postprocessing=_as_it_is)
    return _scaled(cam(image, class_idx=code))


def cam(network: torch.nn.Module, image: torch.Tensor, code: int) -> np.ndarray:
    """The class activation map (Zhou et al. 2016) of MONAI's DenseNets, which end in a pooling and a linear layer.

    Takes and returns the same as grad_cam. It is coarse for small images, because it shows the last map.
    """
    cam_of = CAM(_twin(network), "class_layers.relu", fc_layers="class_layers.out", postprocessing=_as_it_is)
    with torch.no_grad():
        return _scaled(cam_of(image, class_idx=torch.tensor([code])).clamp_min(0))


def heat_maps_figure(images: Sequence[np.ndarray], maps: Sequence[np.ndarray], names: Sequence[str]) -> Figure:
    """Images with their heat maps over them: volumes in three planes through the brain's hottest voxel.

    Args:
        images: (C, *spatial) each, of which the first channel is shown; volumes are 0 around the brain.
        maps: (*spatial) each, 0 to 1.
        names: the titles.
    """
    columns = len(PLANES) if maps[0].ndim == 3 else 2
    figure = Figure(figsize=(2.6 * columns, 0.6 + 2.7 * len(maps)), layout="constrained")
    for axes, image, heat, name in zip(
        figure.subplots(len(maps), columns, squeeze=False), images, maps, names, strict=True
    ):
        if heat.ndim == 3:
            brain = image[0] != 0
            shown, over = np.where(brain, image[0], image[0].min()), np.where(brain, heat, 0)
            hottest = np.unravel_index(over.argmax(), over.shape)
            slices = [
                (np.take(shown, where, axis=axis).T, np.take(over, where, axis=axis).T)
                for axis, where in enumerate(hottest)
            ]
        else:
            slices = [(image[0], np.zeros_like(heat)), (image[0], heat)]
        for ax, (shown, over) in zip(axes, slices, strict=True):
            origin = "lower" if heat.ndim == 3 else "upper"
            ax.imshow(shown, cmap="gray", origin=origin)
            ax.imshow(over, cmap="inferno", alpha=0.6 * over, vmin=0, vmax=1, origin=origin)
            ax.set(xticks=[], yticks=[])
        axes[0].set_title(name, fontsize=8, loc="left")
    figure.supxlabel(RESEARCH_USE_ONLY, fontsize=8)
    return figure


def layers_figure(network: torch.nn.Module, image: torch.Tensor, most: int = 8) -> Figure:
    """Outputs of up to twelve convolutions through the network, a row for each, with the channels that vary most.

    Args:
        network: any network with convolutions.
        image: (1, C, *spatial), as the network takes it.
        most: channels in a row.
    """
    twin = _twin(network)
    outputs: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_layer: torch.nn.Module, _args: object, output: torch.Tensor) -> None:
            outputs[name] = output[0].float().cpu()

        return hook

    for name, layer in twin.named_modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Conv3d)):
            layer.register_forward_hook(keep(name))
    with torch.no_grad():
        twin(image)
    numbers = np.unique(np.linspace(0, len(outputs) - 1, 12).round().astype(int))
    chosen = [list(outputs)[number] for number in numbers]
    figure = Figure(figsize=(1.3 * most + 1, 1.4 * len(chosen)), layout="constrained")
    for axes, name in zip(figure.subplots(len(chosen), most, squeeze=False), chosen, strict=True):
        maps = outputs[name]
        order = maps.flatten(1).std(dim=1).argsort(descending=True)[:most].tolist()
        for ax in axes:
            ax.set_axis_off()
        for ax, channel in zip(axes, order, strict=False):
            ax.imshow(maps[channel, ..., maps.shape[-1] // 2].T if maps.ndim == 4 else maps[channel], cmap="gray")
        size = " x ".join(map(str, maps.shape[1:]))
        axes[0].set_title(f"{name}, {size}", fontsize=7, loc="left")
    return figure


def shown_names(
    items: Sequence[Mapping[str, Any]], probabilities: Sequence[np.ndarray], classes: Mapping[int, str]
) -> list[str]:
    """Titles: subject, reference class, predicted class, probability; of a regression the predicted number."""
    if len(classes) == 1:
        return [f"{item['subject']}: {float(output[0]):.3g}" for item, output in zip(items, probabilities, strict=True)]
    titles = []
    for item, output in zip(items, probabilities, strict=True):
        reference, predicted = classes[int(item["label"])], classes[int(output.argmax())]
        titles.append(f"{item['subject']}: {reference}, predicted {predicted} ({output.max():.2f})")
    return titles


def _twin(network: torch.nn.Module) -> torch.nn.Module:
    """A copy in evaluation mode whose layers do not work in place, so that hooks see their outputs."""
    twin = copy.deepcopy(getattr(network, "module", network)).eval()
    for layer in twin.modules():
        if hasattr(layer, "inplace"):
            layer.inplace = False
    return twin


def _note(names: list[str], name: str, ndim: int) -> Callable[..., None]:
    def note(_layer: torch.nn.Module, _args: object, output: object) -> None:
        if isinstance(output, torch.Tensor) and output.ndim == ndim and min(output.shape[2:]) >= LEAST:
            names.append(name)

    return note


def _as_it_is(maps: torch.Tensor) -> torch.Tensor:
    return maps


def _scaled(maps: torch.Tensor) -> np.ndarray:
    heat = maps[0, 0].detach().float().cpu().numpy()
    scaled: np.ndarray = heat / heat.max() if heat.max() > 0 else heat
    return scaled
