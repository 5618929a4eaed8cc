"""Start weights of a vision transformer, from another one's: MONAI's, timm's, or this project's.

timm's names are those of its VisionTransformer, as most ImageNet weights have them (Dosovitskiy et al. 2020,
arXiv:2010.11929): cls_token, pos_embed, patch_embed.proj, blocks.0.attn.qkv, ...
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from custom.checkpoints.load import load_checkpoint, plain_weights
from custom.checkpoints.start import start_from
from custom.errors import CheckpointError
from custom.networks import ViT, ViTClassifier

logger = logging.getLogger(__name__)

# One part of a transformer: its name in custom.networks.ViT, in MONAI's ViT, and in timm's.
_PARTS = (
    ("class_token", "cls_token", "cls_token"),
    ("positions", "patch_embedding.position_embeddings", "pos_embed"),
    ("patches.", "patch_embedding.patch_embeddings.", "patch_embed.proj."),
    ("norm.", "norm.", "norm."),
)
_LAYER_PARTS = (
    ("self_attn.in_proj_", "attn.qkv.", "attn.qkv."),
    ("self_attn.out_proj.", "attn.out_proj.", "attn.proj."),
    ("linear1.", "mlp.linear1.", "mlp.fc1."),
    ("linear2.", "mlp.linear2.", "mlp.fc2."),
    ("norm1.", "norm1.", "norm1."),
    ("norm2.", "norm2.", "norm2."),
)
_LAYERS = ("layers.", "blocks.", "blocks.")
_FORMS = ("this project's", "MONAI's", "timm's")


def start_classifier(network: nn.Module, source: str | None, roi_size: Sequence[int], bundle_root: str) -> None:
    """Gives a classifier the weights of another training; of a vision transformer all but the output layers.

    Positions are interpolated to the grid of `roi_size` (bicubic). If the number of channels differs, the patch
    embedding is averaged over them, so that a grey image gives the same tokens.

    Args:
        network: the classifier, whose output layers start afresh if it is a vision transformer.
        source: None for a fresh start, or the path of a file that torch.save wrote.
        roi_size: (H, W) of the network's images.
        bundle_root: the bundle's folder.

    Raises:
        CheckpointError: the file does not exist, is damaged, or holds weights that do not fit.
    """
    if source in (None, "None"):
        return
    vit = network.vit if isinstance(network, ViTClassifier) else network
    form = 1 if isinstance(network, ViTClassifier) else 0
    if not isinstance(network, ViT | ViTClassifier):
        start_from(network, source, bundle_root)
        return
    path, own = Path(str(source)).expanduser(), vit.state_dict()
    given, kind = _parts_of(plain_weights(load_checkpoint(path)), path)
    state = _fitted(given, _named(own, form), roi_size, path)
    if form == 1:
        state["class_token"] = state["class_token"] + state["positions"][:, :1]
        state["positions"] = state["positions"][:, 1:]
    back = {part: name for name, part in _part_names(own, form).items()}
    vit.load_state_dict(own | {back[part]: tensor for part, tensor in state.items()})
    logger.info("Started from %s (a vision transformer of %s form); the output layers start afresh", path, kind)


def _parts_of(weights: Mapping[str, torch.Tensor], path: Path) -> tuple[dict[str, torch.Tensor], str]:
    """A file's tensors by the names of custom.networks.ViT, with positions for the class token too; and their form."""
    plain = {_without_wrapper(name): tensor for name, tensor in weights.items()}
    form = next(
        (number for number, names in enumerate(zip(*_PARTS, strict=True)) if f"{names[2]}weight" in plain), None
    )
    if form is None:
        raise CheckpointError(
            f"{path} holds no vision transformer of this project, MONAI or timm: it has no patches.weight, "
            "patch_embedding.patch_embeddings.weight or patch_embed.proj.weight. Give other weights."
        )
    return _named(plain, form), _FORMS[form]


def _without_wrapper(name: str) -> str:
    """Of ViTClassifier's vit.norm.weight norm.weight; of a masked autoencoder's blocks.12.weight norm.weight."""
    return re.sub(r"^blocks\.\d+\.(weight|bias)$", r"norm.\1", name.removeprefix("vit."))


def _named(weights: Mapping[str, torch.Tensor], form: int) -> dict[str, torch.Tensor]:
    parts = {part: weights[name] for name, part in _part_names(weights, form).items()}
    if form == 1:  # MONAI adds positions to the patches only
        positions = parts["positions"]
        parts["positions"] = torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)
    return parts


def _part_names(weights: Mapping[str, torch.Tensor], form: int) -> dict[str, str]:
    """{a tensor's name: its name in custom.networks.ViT}, without those that no transformer shares, as the heads."""
    names = {}
    for name in weights:
        layer = re.match(rf"{re.escape(_LAYERS[form])}(\d+)\.", name)
        start, rest = (f"layers.{layer[1]}.", name[layer.end() :]) if layer else ("", name)
        for part in _LAYER_PARTS if layer else _PARTS:
            if rest.startswith(part[form]):
                names[name] = f"{start}{part[0]}{rest.removeprefix(part[form])}"
    return names


def _fitted(
    given: dict[str, torch.Tensor], own: dict[str, torch.Tensor], roi_size: Sequence[int], path: Path
) -> dict[str, torch.Tensor]:
    """The given parts in the shapes of the network's own, by the names of custom.networks.ViT."""
    sizes = [(_layers(parts), parts["patches.weight"].shape[0]) for parts in (given, own)]
    if sizes[0] != sizes[1]:
        (layers, width), (own_layers, own_width) = sizes
        raise CheckpointError(
            f"{path} has {layers} layers of width {width}, but the network has {own_layers} of width {own_width}. "
            f"Set --network_def#num_layers {layers} --network_def#hidden_size {width}, and mlp_dim and num_heads too."
        )
    patch, own_patch = (parts["patches.weight"].shape[2:] for parts in (given, own))
    if patch != own_patch:
        raise CheckpointError(
            f"{path} has patches of {list(patch)} pixels, but the network has {list(own_patch)}. Set patch_size alike."
        )
    bias = [name for name in given if name.endswith("in_proj_bias")]
    if bias and bias[0] not in own:
        raise CheckpointError(
            f"{path} has a bias of queries, keys and values, but the network has none. Set --network_def#qkv_bias True."
        )
    channels = own["patches.weight"].shape[1]
    if given["patches.weight"].shape[1] != channels:
        mean = given["patches.weight"].sum(dim=1, keepdim=True) / channels
        given["patches.weight"] = mean.expand(-1, channels, -1, -1).clone()
    given["positions"] = _resized(given["positions"], [n // p for n, p in zip(roi_size, own_patch, strict=True)], path)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in own.items() if name.endswith("in_proj_bias")}
    state = zeros | {name: tensor.to(own[name]) for name, tensor in given.items() if name in own}
    unfit = [name for name in own if name not in state or state[name].shape != own[name].shape]
    if unfit:
        found = list(state[unfit[0]].shape) if unfit[0] in state else "no such tensor"
        raise CheckpointError(
            f"{path} does not fit the network: {unfit[0]} has the shape {list(own[unfit[0]].shape)}, the file has "
            f"{found}. Set mlp_dim and num_heads of the network (--network_def#mlp_dim), or give other weights."
        )
    return state


def _layers(parts: Mapping[str, torch.Tensor]) -> int:
    return len({name.split(".")[1] for name in parts if name.startswith("layers.")})


def _resized(positions: torch.Tensor, grid: Sequence[int], path: Path) -> torch.Tensor:
    """Positions (1, 1 + patches, width) for another grid of patches; the given one is a square, or equal to it."""
    token, patches = positions[:, :1], positions[:, 1:]
    if patches.shape[1] == grid[0] * grid[1]:
        return positions
    side = round(patches.shape[1] ** 0.5)
    if side**2 != patches.shape[1]:
        raise CheckpointError(
            f"{path} has positions of {patches.shape[1]} patches, which is no square. Set roi_size as in its training."
        )
    image = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2).float()
    image = nn.functional.interpolate(image, tuple(grid), mode="bicubic", align_corners=False, antialias=True)
    return torch.cat([token, image.flatten(2).transpose(1, 2).to(token.dtype)], dim=1)
