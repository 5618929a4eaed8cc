"""The sub-pixel U-Net: what is computed by hand, any size, any form."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import interpolate

from custom.networks import SubpixelUNet
from custom.networks.cost import count_parameters
from custom.networks.subpixel_unet import cells_of_voxels, twice_as_fine, voxels_of_cells


@pytest.fixture(scope="module")
def network() -> SubpixelUNet:
    torch.manual_seed(0)
    return SubpixelUNet(1, 5, (4, 8, 8), (1, 1, 1), (1, 1)).eval()


def test_parameters_of_the_shipped_one() -> None:
    assert count_parameters(SubpixelUNet(1, 18)) == 9_737_616


def test_cells_and_back_by_hand() -> None:
    image = torch.arange(2 * 2 * 4.0).view(1, 1, 2, 2, 4)
    cells = cells_of_voxels(image)
    assert cells.shape == (1, 8, 1, 1, 2)
    assert cells[0, :, 0, 0, 0].tolist() == [0, 1, 4, 5, 8, 9, 12, 13]
    torch.testing.assert_close(voxels_of_cells(cells), image)


def test_interpolation_by_slices_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(2, 3, 4, 5, 6)
    expected = interpolate(x, scale_factor=2, mode="trilinear")
    torch.testing.assert_close(twice_as_fine(x), expected)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)  # the way that CUDA takes
    torch.testing.assert_close(twice_as_fine(x), expected)


@pytest.mark.parametrize("size", [(16, 16, 16), (17, 9, 30), (1, 40, 8)])
def test_any_size_and_torchscript(network: SubpixelUNet, size: tuple[int, ...]) -> None:
    image = torch.rand(1, 1, *size)
    with torch.no_grad():
        logits = network(image)
        scripted = torch.jit.script(network)(image)
    assert logits.shape == (1, 5, *size)
    torch.testing.assert_close(logits, scripted)


def test_each_scan_of_a_batch_has_its_own_statistics(network: SubpixelUNet) -> None:
    batch = torch.stack([torch.rand(1, 16, 16, 16), 5 + 3 * torch.rand(1, 16, 16, 16)])
    with torch.no_grad():
        together, alone = network(batch), torch.cat([network(one[None]) for one in batch])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_blocks_must_fit_the_levels() -> None:
    with pytest.raises(ValueError, match=r"3 levels need 3 blocks_down and 2 blocks_up, got \[1\] and"):
        SubpixelUNet(1, 2, (4, 8, 8), (1,), (1, 1))
