"""The convolution through FFTs against the direct one, and the network that needs it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from torch.nn.functional import conv3d, pad

from custom.errors import ConfigError
from custom.networks import FFTConv3d, HCPNet, check_covariates, fit_covariates
from custom.networks.cost import count_parameters
from custom.networks.fft_conv3d import circular_size, fft_conv3d, fft_pays
from custom.networks.hcp_net import TALK


def pair(shape: tuple[int, ...], kernel: tuple[int, ...], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=draw, dtype=dtype), torch.randn(kernel, generator=draw, dtype=dtype)


def results(convolve, image: torch.Tensor, kernel: torch.Tensor) -> list[torch.Tensor]:
    """Output, and both gradients of a sum that weighs every voxel differently."""
    image, kernel = image.clone().requires_grad_(), kernel.clone().requires_grad_()
    output = convolve(image, kernel)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=output.dtype)
    return [output.detach(), *torch.autograd.grad((output * weights).sum(), [image, kernel])]


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


side = st.integers(1, 7)


@settings(max_examples=40, deadline=None)
@given(st.tuples(side, side, side), st.tuples(*[st.integers(1, 9)] * 3), st.integers(1, 2), st.integers(1, 3))
def test_any_sizes(size: tuple[int, ...], taps: tuple[int, ...], batch: int, channels: int) -> None:
    """Odd and even kernels, larger ones than the image too; output and gradients in float64."""
    image, kernel = pair((batch, channels, *size), (2, channels, *taps), torch.float64)
    direct = results(lambda x, w: conv3d(x, w, padding="same"), image, kernel)
    assert len(direct) == 3
    for found, expected in zip(results(fft_conv3d, image, kernel), direct, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("taps", [15, 10])
def test_precision(dtype: torch.dtype, tolerance: float, taps: int) -> None:
    """A kernel larger than the image along each axis, and a smaller one."""
    image, kernel = pair((1, 2, 13, 11, 14), (3, 2, taps, taps, taps), dtype)
    direct = results(lambda x, w: conv3d(x, w, padding="same"), image, kernel)
    assert len(direct) == 3
    for found, expected in zip(results(fft_conv3d, image, kernel), direct, strict=True):
        assert found.dtype == dtype
        assert relative(found, expected) < tolerance


def test_numerical_gradient() -> None:
    image, kernel = pair((1, 2, 3, 4, 2), (2, 2, 2, 3, 5), torch.float64)
    assert torch.autograd.gradcheck(fft_conv3d, (image.requires_grad_(), kernel.requires_grad_()))


def test_even_kernels_are_padded_as_keras_does() -> None:
    """Of four taps one lies before the voxel and two behind: a kernel of ones sums three neighbours at the start."""
    image = torch.arange(1.0, 6.0).reshape(1, 1, 5, 1, 1)
    kernel = torch.ones(1, 1, 4, 1, 1)
    expected = [1 + 2 + 3, 1 + 2 + 3 + 4, 2 + 3 + 4 + 5, 3 + 4 + 5, 4 + 5]
    for found in (fft_conv3d(image, kernel), conv3d(pad(image, (0, 0, 0, 0, 1, 2)), kernel)):
        torch.testing.assert_close(found.flatten(), torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize(
    ("size", "taps", "least"),
    [(155, 60, 155 + 30), (51, 25, 51 + 12), (12, 10, 12 + 5), (3, 10, 10), (7, 1, 7)],
)
def test_the_circle_is_as_short_as_it_may_be(size: int, taps: int, least: int) -> None:
    """n + k - 1 - min(before, behind), never less than the kernel, then the next fast length."""
    (found,) = circular_size([size], [taps])
    assert least <= found < 1.15 * least + 1


def test_the_way_is_chosen_by_size() -> None:
    """The talk's first three stages go through FFTs; small kernels and small volumes don't."""
    stages = [((1, 1, 155, 165, 195), 8, 60), ((1, 8, 51, 55, 65), 16, 25), ((1, 16, 25, 27, 32), 32, 15)]
    assert all(fft_pays(image, (leaving, image[1], k, k, k)) for image, leaving, k in stages)
    small = [((1, 1, 155, 165, 195), 8, 3), ((1, 64, 6, 6, 8), 128, 5)]
    assert not any(fft_pays(image, (leaving, image[1], k, k, k)) for image, leaving, k in small)


def test_layer_gives_the_direct_layers_values() -> None:
    """Either way, with bias; and in TorchScript."""
    image = torch.randn(1, 2, 16, 15, 14, generator=torch.Generator().manual_seed(0))
    for taps in (3, 13):
        torch.manual_seed(0)
        layer = FFTConv3d(2, 4, taps)
        assert fft_pays(image.shape, layer.weight.shape) == (taps == 13)
        with torch.no_grad():
            expected = conv3d(image, layer.weight, layer.bias, padding="same")
            assert relative(layer(image), expected) < 1e-5
            assert relative(torch.jit.script(layer)(image), expected) < 1e-5
            assert relative(torch.jit.trace(layer, image)(image), expected) < 1e-5
            with torch.autocast("cpu", torch.bfloat16):
                assert relative(layer(image).float(), expected) < (0.02 if taps == 3 else 1e-5)


def test_takes_what_monai_loads() -> None:
    layer, image = FFTConv3d(1, 2, 15), torch.randn(1, 1, 20, 20, 20)
    assert fft_pays(image.shape, layer.weight.shape)
    torch.testing.assert_close(layer(MetaTensor(image)), layer(image))


def test_the_talks_network_layer_by_layer() -> None:
    with torch.device("meta"):
        network = HCPNet(1, 1, (155, 165, 195), TALK)
        assert count_parameters(network) == 19_017_081
        layers = [*network.stages[::3], network.dense[1], network.dense[4], network.head]
        assert [count_parameters(layer) for layer in layers] == [
            1_728_008,
            2_000_016,
            1_728_032,
            2_048_064,
            1_024_128,
            9_439_232,
            1_049_088,
            513,
        ]
        sizes, x = [], torch.empty(1, 1, 155, 165, 195)
        for start in range(0, 15, 3):
            x = network.stages[start : start + 3](x)
            sizes.append(tuple(x.shape[1:]))
    assert sizes == [(8, 51, 55, 65), (16, 25, 27, 32), (32, 12, 13, 16), (64, 6, 6, 8), (128, 3, 3, 4)]


def test_small_kernels_by_default_and_covariates() -> None:
    torch.manual_seed(0)
    network = HCPNet(1, 2, (50, 50, 50), covariates=2).train()
    image, people = torch.randn(3, 1, 50, 50, 50), torch.randn(3, 2)
    logits = network(image, people)
    assert logits.shape == (3, 2)
    logits.square().sum().backward()
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in network.parameters())
    assert not torch.allclose(network.eval()(image, people), network(image, people + 5))
    scripted = torch.jit.script(network)
    torch.testing.assert_close(scripted(image, people), network(image, people))
    with pytest.raises(ValueError, match=r"built for 2 covariates: pass \(B, 2\)"):
        network(image, people[:, :1])
    fit_covariates(network, np.array([[1.0, 5.0], [3.0, 5.0]]))
    assert network.covariate_mean.tolist() == [2, 5]
    assert network.covariate_std.tolist() == [1, float("inf")]  # alike for all: it says nothing
    torch.testing.assert_close(network(image), network(image, torch.tensor([[2.0, 9.0]]).expand(3, 2)))


def test_the_unit_of_a_covariate_changes_nothing() -> None:
    """Years or days: the network keeps the mean and the deviation of those that it was trained on."""
    torch.manual_seed(0)
    network, image = HCPNet(1, 2, (48, 48, 48), covariates=1), torch.randn(4, 1, 48, 48, 48)
    age, logits = np.array([[22.0], [25.0], [31.0], [36.0]]), []
    for unit in (1, 365):
        fit_covariates(network, age * unit)
        logits.append(network(image, torch.as_tensor(age * unit, dtype=torch.float32)))
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-5)


def test_covariates_need_a_network_that_takes_them() -> None:
    check_covariates(HCPNet(1, 2, (48, 48, 48), covariates=1), ["age"])
    check_covariates(torch.nn.Linear(1, 1), [])
    with pytest.raises(ConfigError, match=r"Linear takes no covariates: leave \['age'\] out, or take HCPNet"):
        check_covariates(torch.nn.Linear(1, 1), ["age"])


def test_features_of_the_stages() -> None:
    """By hand: five kernels of 3, one voxel of 5 channels at the end, dense layers of 2048, 512 and 1."""
    widths = (1, 2, 3, 4, 5)
    network = HCPNet(1, 1, (48, 48, 48), (3,) * 5, features=widths)
    convolutions = sum(27 * before * width + width for before, width in zip((1, 1, 2, 3, 4), widths, strict=True))
    dense = (5 * 2048 + 2048) + (2048 * 512 + 512) + 513
    assert count_parameters(network) == convolutions + dense
    with pytest.raises(ConfigError, match=r"5 stages: got 2 features \(1, 2\)"):
        HCPNet(1, 1, (48, 48, 48), (3,) * 5, features=(1, 2))


@pytest.mark.parametrize(
    ("size", "kernels", "sentence"),
    [
        ((50, 50, 40), (3,) * 5, r"48 or more, got \[50, 50, 40\]"),
        ((50, 50, 50), (3, 3), r"5 stages: got 2 kernel_sizes"),
    ],
)
def test_hcpnet_says_what_it_takes(size: tuple[int, ...], kernels: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        HCPNet(1, 2, size, kernels)
