"""Where a vision transformer looks: attention rollout."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from monai.networks.blocks import SABlock
from torch import nn

ATTENTION = (SABlock, nn.TransformerEncoderLayer)


def rollout(attentions: Sequence[torch.Tensor]) -> torch.Tensor:
    """How much each token of the last layer takes from each of the first.

    Abnar, Zuidema 2020, "Quantifying Attention Flow in Transformers" (arXiv:2005.00928), section 3.1: of each layer the
    heads' mean and the identity, for the residual connection, half and half; multiplied from the last layer to the
    first.

    Args:
        attentions: of each layer, the first one first, (heads, N, N), rows that sum to 1.

    Returns:
        (N, N), rows that sum to 1.

    Raises:
        ValueError: no layers, or another shape.
    """
    if not attentions or any(a.ndim != 3 or a.shape[1] != a.shape[2] for a in attentions):
        raise ValueError(f"rollout takes (heads, N, N) of each layer, got {[tuple(a.shape) for a in attentions]}.")
    tokens = attentions[0].shape[-1]
    eye = torch.eye(tokens, dtype=attentions[0].dtype, device=attentions[0].device)
    flow = eye
    for attention in attentions:
        flow = (attention.mean(dim=0) + eye) / 2 @ flow
    return flow


def attention_rollout(network: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """How much the class token takes from each patch, over all layers.

    Args:
        network: custom.networks.ViT or monai.networks.nets.ViT (with classification=True), or a module around one.
            Patches as long as they are wide, a class token first.
        image: (1, C, *spatial), as the network takes it.

    Returns:
        (*spatial), interpolated linearly between the patches' centres, scaled to 0 to 1; all 0 if the patches are
        equal.

    Raises:
        ValueError: another shape, a network without attention layers, or without a class token.
    """
    size = tuple(image.shape[2:])
    if len(size) not in (2, 3) or image.shape[0] != 1:
        raise ValueError(f"attention_rollout takes one image (1, C, *spatial), got the shape {tuple(image.shape)}.")
    with torch.no_grad():
        from_patches = rollout(attentions_of(network, image))[0, 1:]
        side = (math.prod(size) / max(1, len(from_patches))) ** (1 / len(size))
        grid = [round(n / side) for n in size]
        if math.prod(grid) != len(from_patches) or any(
            abs(n / count - side) > 1e-6 for n, count in zip(size, grid, strict=True)
        ):
            raise ValueError(
                f"{type(network).__name__} has {len(from_patches) + 1} tokens, not a class token and square "
                f"patches of {'x'.join(map(str, size))} pixels: build it with classification=True."
            )
        mode = "bilinear" if len(size) == 2 else "trilinear"
        grid_map = from_patches.reshape(1, 1, *grid)
        enlarged = nn.functional.interpolate(grid_map, size, mode=mode, align_corners=False)[0, 0]
        enlarged = enlarged - enlarged.min()
        return enlarged / enlarged.max().clamp(min=torch.finfo(enlarged.dtype).tiny)


def attentions_of(network: nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
    """The attention of each layer, the first one first, (heads, N, N), of one run in evaluation mode.

    Raises:
        ValueError: the network has none of MONAI's SABlock and none of torch's TransformerEncoderLayer.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, ATTENTION)]
    if not layers:
        raise ValueError(f"{type(network).__name__} has no attention layers: attention rollout is for a ViT.")
    attentions: list[torch.Tensor] = []
    saved = {layer: layer.save_attn for layer in layers if isinstance(layer, SABlock)}

    def of_torch(layer: nn.TransformerEncoderLayer, args: tuple[torch.Tensor, ...]) -> None:
        tokens = layer.norm1(args[0]) if layer.norm_first else args[0]
        attentions.append(layer.self_attn(tokens, tokens, tokens, average_attn_weights=False)[1][0])

    hooks = []
    for layer in layers:
        if isinstance(layer, SABlock):
            layer.save_attn = True
            hooks.append(layer.register_forward_hook(lambda block, *_: attentions.append(block.att_mat[0])))
        else:
            hooks.append(layer.register_forward_pre_hook(of_torch))
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(image)
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
        for block, before in saved.items():
            block.save_attn = before
            block.att_mat = torch.Tensor() if not before else block.att_mat
    return attentions
