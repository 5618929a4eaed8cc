"""The Triton kernels: run against dice_plain (on a GPU, or in Triton's interpreter), and compiled for GPUs."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from custom.losses import dice_plain

pytest.importorskip("triton", reason="Triton isn't installed: it comes with CUDA builds of torch and the extra dev")
from custom.losses import dice_triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # conftest.py switches the interpreter on for the CPU
KINDS = [
    (torch.float32, torch.uint8, 5),
    (torch.float32, torch.float32, 4),
    (torch.float16, torch.int16, 4),
    (torch.bfloat16, torch.int64, 3),
    (torch.float64, torch.int32, 9),
    (torch.float32, torch.uint8, 20),
]
LIMITS = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 1e-2}


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours.double() - theirs.double()).norm() / theirs.double().norm()).item()


def constants(lambda_ce: float) -> torch.Tensor:
    return torch.tensor([lambda_ce, 1e-5, 1e-5], dtype=torch.float64, device=DEVICE)


@pytest.mark.parametrize(("reduction", "lambda_ce"), [("mean", 0.0), ("sum", 0.7), ("mean", 0.7), ("none", 0.0)])
@pytest.mark.parametrize("ignore_index", [None, 1, 255])
def test_kernels_equal_the_plain_way(
    reduction: str, lambda_ce: float, ignore_index: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dice_triton, "WARPS", 1)  # several programs, each of several tiles
    monkeypatch.setattr(dice_triton, "HELD", 16)
    torch.manual_seed(0)
    flags = list(itertools.product((False, True), repeat=3))
    assert len(flags) == 8
    for (squared, jaccard, batch), (dtype, label_type, classes) in zip(flags, itertools.cycle(KINDS), strict=False):
        logits = (3 * torch.randn(2, classes, 5, 9, 7)).to(DEVICE, dtype)
        logits = logits.contiguous(memory_format=torch.channels_last_3d) if jaccard else logits
        labels = torch.randint(0, classes, (2, 1, 5, 9, 7), device=DEVICE)
        if ignore_index == 255:
            labels[:, :, 2:4] = 255 if label_type != torch.int16 else 1
        labels = labels.to(label_type)
        dice_weight, ce_weight = torch.rand(2, classes, dtype=torch.float64, device=DEVICE)
        dice_weight[0] = 0  # the background doesn't count
        arguments = (
            logits, labels, dice_weight, ce_weight, constants(lambda_ce),
            lambda_ce > 0, False, squared, jaccard, batch, reduction, ignore_index,
        )  # fmt: skip
        ours, plain = dice_triton.forward(*arguments), dice_plain.forward(*arguments)
        for result, expected in zip(ours, plain, strict=True):
            torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)
        grad = torch.rand(ours[0].shape, dtype=ours[0].dtype, device=DEVICE)
        slope = dice_triton.backward(grad, logits, labels, ours[1], squared, ignore_index)
        expected = dice_plain.backward(grad, logits, labels, plain[1], squared, ignore_index)
        assert slope.dtype == dtype
        assert slope.stride() == expected.stride()
        assert relative(slope, expected) < LIMITS[dtype]


@pytest.mark.parametrize(
    ("value", "dtype", "found"),
    [
        (2, torch.uint8, 2),
        (-1, torch.int64, -1),
        (0.5, torch.float32, 0.5),
        (torch.nan, torch.float32, torch.inf),
        (-torch.inf, torch.float32, torch.inf),
    ],
)
def test_wrong_labels_are_found(value: float, dtype: torch.dtype, found: float) -> None:
    logits, labels = torch.zeros(1, 2, 1, 3, device=DEVICE), torch.zeros(1, 1, 1, 3, dtype=dtype, device=DEVICE)
    labels[..., 1] = value
    weight = torch.ones(2, dtype=torch.float64, device=DEVICE)
    arguments = (logits, labels, weight, weight, constants(1), True, True, False, False, True, "mean")
    mailbox = torch.full((2,), -torch.inf, dtype=torch.float64, pin_memory=DEVICE == "cuda")
    loss, slopes = dice_triton.forward(*arguments, None, mailbox=mailbox)
    assert loss.isnan()
    assert not slopes.any()
    assert mailbox.tolist() == [found, 2]
    if value == value:
        mailbox.fill_(-torch.inf)
        loss, _ = dice_triton.forward(*arguments, value, mailbox=mailbox)
        assert loss.isfinite()
        assert mailbox.tolist() == [-torch.inf, -torch.inf]


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device: in the interpreter programs run one by one")
def test_same_bits_at_every_run() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 96, 96, 64, device=DEVICE)
    labels = torch.randint(0, 4, (2, 1, 96, 96, 64), device=DEVICE)
    weight = torch.ones(4, dtype=torch.float64, device=DEVICE)
    arguments = (logits, labels, weight, weight, constants(1), True, True, False, False, True, "mean", None)
    first, *others = [dice_triton.forward(*arguments) for _ in range(5)]
    grad = torch.ones((), device=DEVICE)
    slope, *slopes = [dice_triton.backward(grad, logits, labels, first[1], False, None) for _ in range(3)]
    assert all(torch.equal(first[0], other[0]) and torch.equal(first[1], other[1]) for other in others)
    assert all(torch.equal(slope, other) for other in slopes)


@pytest.mark.parametrize("architecture", [80, 90])
def test_kernels_compile_for(architecture: int) -> None:
    """In a process of its own: where the interpreter is on, nothing compiles."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = Path(__file__).parent / "compile_dice_triton.py"
    result = subprocess.run(
        [sys.executable, script, str(architecture)], env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert result.returncode == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    assert len(lines) == 36
    assert min(int(line[-1]) for line in lines) > 1000  # bytes of machine code
    contiguous_halves = [line for line in lines if line[1] in ("bf16", "fp16") and line[4] == "True"]
    loads = {int(line[-2]) for line in contiguous_halves if line[0] != "finish"}
    assert loads <= {8, 16}  # bytes at a time of two-byte logits
    assert len(contiguous_halves) == 9
