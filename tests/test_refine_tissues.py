"""Probabilities that are made to agree with a scan's intensities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from custom.transforms import RefineTissuesd

SIZE = 48
AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])


def phantom(contrast: tuple[float, ...], bias: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """A ball of fluid, grey and white shells: the scan (1, x, y, z) and its labels (x, y, z)."""
    axes = torch.meshgrid(*[torch.linspace(-1, 1, SIZE)] * 3, indexing="ij")
    radius = torch.stack(axes).norm(dim=0)
    label = torch.zeros(SIZE, SIZE, SIZE, dtype=torch.long)
    for limit, code in ((0.9, 1), (0.75, 2), (0.5, 3)):
        label[radius < limit] = code
    scan = torch.tensor((0.0, *contrast))[label]
    noise = 0.04 * torch.randn(label.shape, generator=torch.Generator().manual_seed(0))
    return MetaTensor((scan * torch.exp(bias * axes[0]) + noise)[None], affine=AFFINE), label


def vague(label: torch.Tensor, shift: int = 3) -> MetaTensor:
    """The probabilities (4, x, y, z), voxels of 4 mm, of a network that sees boundaries at the wrong place."""
    seen = torch.where(label > 0, torch.roll(label, shift, dims=0).clamp_min(1), 0)
    probabilities = 0.6 * torch.nn.functional.one_hot(seen, 4).movedim(-1, 0) + 0.1
    return MetaTensor(probabilities, affine=AFFINE)


def right(probabilities: torch.Tensor, label: torch.Tensor) -> float:
    inside = label > 0
    return float((probabilities.argmax(dim=0) == label)[inside].double().mean())


@pytest.mark.parametrize("contrast", [(0.2, 0.5, 0.8), (0.9, 0.5, 0.3), (0.1, 0.7, 0.5)], ids=["T1", "T2", "FLAIR"])
@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_boundaries_move_to_where_the_intensities_change(contrast: tuple[float, ...], bias: float) -> None:
    scan, label = phantom(contrast, bias)
    before = vague(label)
    assert right(before, label) < 0.9
    after = RefineTissuesd("pred")({"pred": before, "image": scan})["pred"]
    assert right(after, label) > 0.94
    torch.testing.assert_close(after.sum(dim=0), before.sum(dim=0), atol=1e-4, rtol=0)
    torch.testing.assert_close(after[0], before[0])  # the brain's outline stays
    torch.testing.assert_close(before, vague(label))  # and so does what was given


def test_trust_in_the_network() -> None:
    scan, label = phantom((0.5, 0.5, 0.5))
    before = vague(label)
    after = RefineTissuesd("pred", trust=1.0)({"pred": before, "image": scan})["pred"]
    assert (after.argmax(dim=0) == before.argmax(dim=0)).double().mean() > 0.95  # no contrast says nothing new


def test_no_brain_and_metadata() -> None:
    nothing = torch.zeros(4, 8, 8, 8)
    nothing[0] = 1
    transform = RefineTissuesd("pred")
    assert torch.equal(transform({"pred": nothing, "image": torch.rand(1, 8, 8, 8)})["pred"], nothing)
    scan, label = phantom((0.2, 0.5, 0.8))
    result = transform({"pred": vague(label), "image": scan})["pred"]
    np.testing.assert_array_equal(result.affine, AFFINE)
