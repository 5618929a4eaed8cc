"""The input of a network's last convolution."""

from __future__ import annotations

import math

import torch
from matplotlib.figure import Figure


def feature_maps_figure(network: torch.nn.Module, image: torch.Tensor, most: int = 16) -> Figure:
    """Axial slices of the input of the network's last convolution, a picture for each channel.

    Args:
        network: any network whose last convolution makes its output.
        image: (1, C, x, y, z) or (1, C, x, y), as the network takes it.
        most: the number of channels to show, those with the greatest standard deviation.

    Raises:
        ValueError: the network has no convolution.
    """
    kinds = (torch.nn.Conv3d, torch.nn.ConvTranspose3d, torch.nn.Conv2d, torch.nn.ConvTranspose2d)
    convolutions = [module for module in network.modules() if isinstance(module, kinds)]
    if not convolutions:
        raise ValueError(f"{type(network).__name__} has no convolution.")
    inputs: list[torch.Tensor] = []
    hooks = [layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0])) for layer in convolutions]
    try:
        with torch.no_grad():
            network.eval()(image)
    finally:
        for hook in hooks:
            hook.remove()
    features = inputs[-1][0].float().cpu()
    order = features.flatten(1).std(dim=1).argsort(descending=True)[:most].tolist()
    columns = math.ceil(math.sqrt(len(order)))
    figure = Figure(figsize=(2.2 * columns, 2.4 * math.ceil(len(order) / columns)), layout="constrained")
    for ax, channel in zip(
        figure.subplots(math.ceil(len(order) / columns), columns, squeeze=False).flat, order, strict=False
    ):
        shown = features[channel, :, :, features.shape[-1] // 2] if features.ndim == 4 else features[channel]
        ax.imshow(shown.T, origin="lower", cmap="gray")
        ax.set_title(f"channel {channel}", fontsize=8)
    for ax in figure.axes:
        ax.set_axis_off()
    figure.suptitle(f"Input of the last convolution, {len(order)} of {len(features)} channels")
    return figure
