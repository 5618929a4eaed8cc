"""The inferers."""

from __future__ import annotations

import pytest
import torch
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import DynUNet
from torch import nn

from custom.errors import DataError, is_out_of_memory
from custom.inferers import CPUAutocastInferer, ForegroundInferer
from custom.inferers.foreground import network_stride

torch.manual_seed(0)
BFLOAT16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # a CPU without AVX-512 stays in float32
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
        assert (0 < error < 0.1) if low_precision and BFLOAT16 else error < 1e-5


def test_windows_are_stitched_in_float32() -> None:
    image = torch.randn((1, 1, 40, 32, 32), generator=torch.Generator().manual_seed(0))
    windows = SlidingWindowInferer((32, 32, 32), overlap=0.5, mode="gaussian")
    with torch.no_grad():
        exact, low = (CPUAutocastInferer(windows, amp=amp)(image, NETWORK.eval()) for amp in (False, True))
    assert exact.dtype == low.dtype == torch.float32
    error = float((exact - low).norm() / exact.norm())
    assert (0 < error < 0.05) if BFLOAT16 else error == 0


def test_other_devices_are_left_alone() -> None:
    image = torch.empty((1, 1, 32, 32, 32), device="meta")
    seen = []
    CPUAutocastInferer()(image, lambda x: seen.append(torch.is_autocast_enabled("cpu")))
    assert seen == [False]


class Doubled(torch.nn.Module):
    """Two logits, -x and x, and a count of the voxels that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.down = torch.nn.Conv3d(1, 1, 2, stride=8)
        self.seen: list[tuple[int, ...]] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.down(image)
        self.seen.append(tuple(image.shape[2:]))
        return torch.cat([-image, image], dim=1)


def scan_with_a_head() -> torch.Tensor:
    scan = torch.zeros(1, 1, 60, 50, 40)
    scan[:, :, 10:31, 5:40, 8:30] = torch.rand(21, 35, 22, generator=torch.Generator().manual_seed(0)) + 0.1
    return scan


@pytest.mark.parametrize("one_pass_voxels", [10**6, 0])
def test_foreground_result_is_the_networks(one_pass_voxels: int) -> None:
    """A network without context gives the same in one pass and in windows, and label 0 elsewhere."""
    scan, network = scan_with_a_head(), Doubled()
    infer = ForegroundInferer((16, 16, 16), one_pass_voxels=one_pass_voxels, margin=2, amp=False)
    with torch.no_grad():
        logits = infer(scan, network)
    head = scan[0, 0] > 0
    torch.testing.assert_close(logits[0, 1][head], scan[0, 0][head])
    assert torch.equal(logits.argmax(dim=1)[0] == 1, head)


def test_one_pass_is_the_padded_box() -> None:
    """The head is 21x35x22 and gets a margin of 2: 25x39x26, padded to multiples of the stride, 8."""
    network = Doubled()
    assert network_stride(network, 1) == 8
    with torch.no_grad():
        ForegroundInferer((16, 16, 16), margin=2, amp=False)(scan_with_a_head(), network)
    assert network.seen[-1] == (32, 40, 32)


def test_a_network_with_a_window_of_its_own() -> None:
    """It is never asked for another size."""

    class Fixed(Doubled):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            if image.shape[2:] != (16, 16, 16):
                raise RuntimeError("only 16 cubed")
            return super().forward(image)

    scan = scan_with_a_head()
    with torch.no_grad():
        logits = ForegroundInferer((16, 16, 16), margin=2, amp=False)(scan, Fixed())
    assert torch.equal(logits.argmax(dim=1)[0] == 1, scan[0, 0] > 0)


def test_windows_of_background_are_left_out() -> None:
    """Two small things in opposite corners: of the 8 windows between them only two are run."""
    scan = torch.zeros(1, 1, 32, 32, 32)
    scan[..., 2:6, 2:6, 2:6] = scan[..., 26:30, 26:30, 26:30] = 1
    network = Doubled()
    with torch.no_grad():
        logits = ForegroundInferer((16, 16, 16), overlap=0, one_pass_voxels=0, margin=2, amp=False)(scan, network)
    assert network.seen == [(16, 16, 16)] * 2
    assert torch.equal(logits.argmax(dim=1)[0] == 1, scan[0, 0] > 0)


def test_windows_agree_with_monais_where_there_is_a_head() -> None:
    """The same windows and weights as SlidingWindowInferer's; what only empty windows cover is certain background."""
    scan, network = scan_with_a_head(), torch.nn.Conv3d(1, 3, 5, padding=2)
    scan[..., 55:58, 44:47, 33:36] = 1
    head = scan[0, 0] != 0
    windows = {"roi_size": (16, 24, 16), "overlap": 0.5}
    with torch.no_grad():
        expected = SlidingWindowInferer(**windows, mode="gaussian")(scan, network)
        logits = ForegroundInferer(**windows, one_pass_voxels=0, margin=60, amp=False)(scan, network)
    torch.testing.assert_close(logits[0][:, head], expected[0][:, head], rtol=0, atol=1e-4)
    torch.testing.assert_close(logits[0, :, 59, 0, 0], torch.tensor([10.0, -10, -10]))


def test_an_empty_scan_is_background() -> None:
    with torch.no_grad():
        logits = ForegroundInferer((16, 16, 16), amp=False)(torch.zeros(2, 1, 20, 20, 20), Doubled())
    assert logits.shape == (2, 2, 20, 20, 20)
    assert not logits.argmax(dim=1).any()
    with pytest.raises(ValueError, match=r"overlap must be 0 to below 1, got 1\.0"):
        ForegroundInferer((16, 16, 16), overlap=1.0)


@pytest.mark.parametrize("one_pass_voxels", [0, 8_000_000])
@pytest.mark.parametrize(("channel", "outside"), [(0, [10, -10, -10]), (2, [-10, -10, 10]), (None, [-10, -10, -10])])
def test_outside_of_the_head_is_background(channel: int | None, outside: list[int], one_pass_voxels: int) -> None:
    """Where no channel means background, as with regions' sigmoids, none is there."""
    image = torch.zeros(1, 1, 48, 40, 40)
    image[..., 16:24, 16:24, 16:24] = 1
    network = torch.nn.Conv3d(1, 3, 3, padding=1)
    inferer = ForegroundInferer(
        (16, 16, 16), margin=2, amp=False, one_pass_voxels=one_pass_voxels, background_channel=channel
    )
    with torch.no_grad():
        logits = inferer(image, network)
        torch.testing.assert_close(logits[..., 20, 20, 20], network(image)[..., 20, 20, 20])
    assert logits[0, :, 0, 0, 0].tolist() == outside
    assert inferer(torch.zeros_like(image), network)[0, :, 30, 30, 30].tolist() == outside


class Limited(nn.Module):
    """A network on a device whose memory holds so many voxels."""

    def __init__(self, voxels: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv3d(1, 2, 3, padding=1)
        self.voxels, self.largest = voxels, 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if image[0, 0].numel() > self.voxels:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        self.largest = max(self.largest, image[0, 0].numel())
        return self.layer(image)


def test_memory_that_is_not_enough_for_one_pass_is_used_for_windows() -> None:
    image, network = torch.rand(1, 1, 40, 24, 24) + 1, Limited(10**9)
    infer = ForegroundInferer((16, 16, 16), amp=False)
    infer(image, network)
    assert network.largest > 16**3
    network.voxels, network.largest = 16**3, 0
    with pytest.warns(UserWarning, match=r"^The memory is not enough in one pass\. Going on in windows\.$"):
        found = infer(image, network)
    assert network.largest == 16**3
    torch.testing.assert_close(found, ForegroundInferer((16, 16, 16), one_pass_voxels=0, amp=False)(image, network))


def test_memory_that_is_not_enough_at_all() -> None:
    image, network = torch.rand(1, 1, 40, 24, 24) + 1, Limited(10**9)
    infer = ForegroundInferer((16, 16, 16), amp=False)
    infer(image, network)
    network.voxels = 100
    with (
        pytest.warns(UserWarning, match="Going on in windows"),
        pytest.raises(DataError, match=r"The memory is not enough for this scan\..*device=cpu"),
    ):
        infer(image, network)


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_errors_of_memory(error: RuntimeError, memory: bool) -> None:
    assert is_out_of_memory(error) == memory
