"""The inferers."""

from __future__ import annotations

import pytest
import torch
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import DynUNet

from custom.inferers import CPUAutocastInferer

torch.manual_seed(0)
NETWORK = DynUNet(3, 1, 2, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=[32, 32, 64, 64])


def fill_memory_with_nan() -> None:
    """So that memory which is read before it is written gives NaN."""
    sizes = torch.logspace(1, 6, 50).tolist()
    for tensor in [torch.full((int(size),), float("nan")) for size in sizes for _ in range(3)]:
        del tensor


def gradients(amp: bool, image: torch.Tensor) -> torch.Tensor:
    NETWORK.zero_grad()
    CPUAutocastInferer(amp=amp)(image, NETWORK).square().mean().backward()
    return torch.cat([weight.grad.flatten() for weight in NETWORK.parameters() if weight.grad is not None])


@pytest.mark.parametrize(("side", "low_precision"), [(16, False), (32, True)])
def test_gradients_are_right_where_few_voxels_are_left(side: int, low_precision: bool) -> None:
    """At 16 the deepest convolution sees 2x2x2 voxels, where bfloat16 gradients are wrong in torch 2.13."""
    image = torch.randn((1, 1, side, side, side), generator=torch.Generator().manual_seed(0))
    expected = gradients(False, image)
    for _ in range(5):
        fill_memory_with_nan()
        found = gradients(True, image)
        error = float((found - expected).norm() / expected.norm())
        assert (0 < error < 0.1) if low_precision else error < 1e-5


def test_windows_are_stitched_in_float32() -> None:
    image = torch.randn((1, 1, 40, 32, 32), generator=torch.Generator().manual_seed(0))
    windows = SlidingWindowInferer((32, 32, 32), overlap=0.5, mode="gaussian")
    with torch.no_grad():
        exact, low = (CPUAutocastInferer(windows, amp=amp)(image, NETWORK.eval()) for amp in (False, True))
    assert exact.dtype == low.dtype == torch.float32
    assert 0 < float((exact - low).norm() / exact.norm()) < 0.05


def test_other_devices_are_left_alone() -> None:
    image = torch.empty((1, 1, 32, 32, 32), device="meta")
    seen = []
    CPUAutocastInferer()(image, lambda x: seen.append(torch.is_autocast_enabled("cpu")))
    assert seen == [False]
