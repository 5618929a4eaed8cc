"""How much the attention gates of a U-Net choose: their level, contrast and entropy, by place."""

from __future__ import annotations

import pandas
import torch

from custom.networks import AttentionUNet


def gate_table(network: AttentionUNet, image: torch.Tensor, tumor: torch.Tensor) -> pandas.DataFrame:
    """A row for each gate, the deepest first, over all slices that hold a tumor.

    Args:
        network: a network with attention_maps.
        image: (C, H, W, slices), as the network takes it; the brain is where some channel
            differs from the slice's corner.
        tumor: (H, W, slices), nonzero in the tumor.

    Returns:
        gate (its size, such as 16x16), n slices, mean; contrast, the 95th less the 5th percentile of a map; entropy
        of a map as a distribution over its pixels, over that of a uniform one: 1 is a uniform map; and the means
        in_tumor, in_brain (without the tumor) and outside of maps enlarged to the image. All are means over slices.
    """
    numbers = [n for n in range(image.shape[-1]) if (tumor[..., n] > 0).any()]
    slices = image[..., numbers].permute(3, 0, 1, 2).contiguous()
    inside = tumor[..., numbers].permute(2, 0, 1)[:, None] > 0
    brain = (slices != slices[:, :, :1, :1]).any(dim=1, keepdim=True)
    places = {"in_tumor": inside, "in_brain": brain & ~inside, "outside": ~brain & ~inside}
    with torch.no_grad():
        maps = network.eval().attention_maps(slices)
    rows = []
    for gate in maps:
        flat = gate.float().flatten(1)
        low, high = torch.quantile(flat, torch.tensor([0.05, 0.95], device=flat.device), dim=1)
        share = flat / flat.sum(dim=1, keepdim=True).clamp(min=1e-12)
        entropy = torch.special.entr(share).sum(dim=1) / torch.log(torch.tensor(float(flat.shape[1])))
        large = torch.nn.functional.interpolate(gate.float(), tuple(slices.shape[2:]), mode="bilinear")
        row = {"gate": "x".join(map(str, gate.shape[2:])), "n": len(numbers), "mean": float(flat.mean())}
        row |= {"contrast": float((high - low).mean()), "entropy": float(entropy.mean())}
        rows.append(row | {name: float(large[where].mean()) for name, where in places.items()})
    return pandas.DataFrame(rows)
