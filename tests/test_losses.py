"""The Dice losses against numbers worked out by hand, MONAI, float64 and numerical derivatives, on each device here."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import DiceCELoss, DiceLoss
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from custom.losses import MultiClassDiceCELoss, MultiClassDiceLoss, WithAuxiliary, dice_plain
from custom.losses.dice_operator import dice_and_ce

CUDA = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
)
on_every_device = pytest.mark.parametrize("device", ["cpu", CUDA])

# Two voxels, two classes, labels 0 and 1; logits 0 and ln 3 make the second class's probability 3/4 at both voxels.
LOGITS = torch.tensor([[[[0.0, 0.0]], [[math.log(3), math.log(3)]]]])
LABELS = torch.tensor([[[[0, 1]]]])
DICE = (2 / 3 + 2 / 5) / 2


@on_every_device
@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        # class 0: p = 1/4, 1/4; intersection 1/4; sums 1/2 + 1 -> 1 - (1/2)/(3/2) = 2/3
        # class 1: p = 3/4, 3/4; intersection 3/4; sums 3/2 + 1 -> 1 - (3/2)/(5/2) = 2/5
        ({}, DICE),
        ({"include_background": False}, 2 / 5),
        ({"reduction": "sum"}, 2 / 3 + 2 / 5),
        ({"reduction": "none"}, [[[[2 / 3]], [[2 / 5]]]]),
        ({"weight": [3.0, 0.0], "reduction": "none"}, [[[[2.0]], [[0.0]]]]),
        ({"weight": 2.0}, 2 * DICE),
        ({"batch": True, "reduction": "none"}, [[[2 / 3]], [[2 / 5]]]),
        # squares: 1/16 + 1/16 + 1 -> 1 - (1/2)/(9/8) = 5/9; 9/16 + 9/16 + 1 -> 1 - (3/2)/(17/8) = 5/17
        ({"squared_pred": True}, (5 / 9 + 5 / 17) / 2),
        # Jaccard: 1 - (1/4)/(3/2 - 1/4) = 4/5; 1 - (3/4)/(5/2 - 3/4) = 4/7
        ({"jaccard": True}, (4 / 5 + 4 / 7) / 2),
        # smoothing: 1 - (1/2 + 1)/(3/2 + 2) = 4/7; 1 - (3/2 + 1)/(5/2 + 2) = 4/9
        ({"smooth_nr": 1.0, "smooth_dr": 2.0}, (4 / 7 + 4 / 9) / 2),
        # only the second voxel: class 0: 1 - 0/(1/4) = 1; class 1: 1 - (3/2)/(3/4 + 1) = 1/7
        ({"ignore_index": 0}, (1 + 1 / 7) / 2),
    ],
)
def test_dice_by_hand(kwargs: dict, expected: object, device: str) -> None:
    smooth = {"smooth_nr": 0.0, "smooth_dr": 0.0} | kwargs
    loss = MultiClassDiceLoss(**smooth)(LOGITS.to(device), LABELS.to(device))
    torch.testing.assert_close(loss.cpu(), torch.tensor(expected), rtol=1e-6, atol=1e-6)


@on_every_device
@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        # -log p of the labels: ln 4 and ln 4/3
        ({}, DICE + math.log(16 / 3) / 2),
        ({"reduction": "sum"}, 2 * DICE + math.log(16 / 3)),
        ({"lambda_dice": 0.5, "lambda_ce": 3.0}, 0.5 * DICE + 1.5 * math.log(16 / 3)),
        ({"lambda_ce": 0.0}, DICE),
        # weights 3 and 1: Dice (3 * 2/3 + 2/5) / 2; cross-entropy (3 ln 4 + ln 4/3) / 4
        ({"weight": [3.0, 1.0]}, 1.2 + (3 * math.log(4) + math.log(4 / 3)) / 4),
        ({"weight": [3.0, 1.0], "include_background": False}, 0.4 + (3 * math.log(4) + math.log(4 / 3)) / 4),
        ({"ignore_index": 0}, (1 + 1 / 7) / 2 + math.log(4 / 3)),
    ],
)
def test_dice_and_cross_entropy_by_hand(kwargs: dict, expected: float, device: str) -> None:
    loss = MultiClassDiceCELoss(**{"smooth_nr": 0.0, "smooth_dr": 0.0} | kwargs)(LOGITS.to(device), LABELS.to(device))
    torch.testing.assert_close(loss.cpu(), torch.tensor(expected), rtol=1e-6, atol=1e-6)


LABEL_TYPES = [torch.uint8, torch.int16, torch.int32, torch.int64, torch.float32, torch.float16, torch.float64]
ARGUMENTS = st.fixed_dictionaries(
    {
        "include_background": st.booleans(),
        "squared_pred": st.booleans(),
        "jaccard": st.booleans(),
        "batch": st.booleans(),
    }
)


def gradient(loss: torch.nn.Module, logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits = logits.detach().requires_grad_()
    value = loss(logits, labels)
    (result,) = torch.autograd.grad(value.sum(), logits)
    return value.detach(), result


def distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Relative, in the L2 norm."""
    return ((ours.double() - theirs.double()).norm() / theirs.double().norm().clamp(min=1e-30)).item()


@on_every_device
@settings(max_examples=60, deadline=None)
@given(
    kwargs=ARGUMENTS,
    kind=st.sampled_from(["mean", "sum", "none", "CE mean", "CE sum"]),
    ignored=st.sampled_from(["none", "a class", "255"]),
    weighted=st.booleans(),
    classes=st.integers(2, 6),
    shape=st.lists(st.integers(1, 6), min_size=2, max_size=3),
    label_type=st.sampled_from(LABEL_TYPES),
    spread=st.sampled_from([1.0, 50.0]),
    seed=st.integers(0, 2**31),
)
def test_equals_monai(
    kwargs: dict,
    kind: str,
    ignored: str,
    weighted: bool,
    classes: int,
    shape: list[int],
    label_type: torch.dtype,
    spread: float,
    seed: int,
    device: str,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    reduction = kind.removeprefix("CE ")
    logits = spread * torch.randn((2, classes, *shape), generator=generator)
    labels = torch.randint(0, classes, (2, 1, *shape), generator=generator)  # some classes absent, often
    weight = torch.rand(classes, generator=generator) if weighted else None
    counted = weight[0 if kwargs["include_background"] else 1 :] if weighted else None
    ignore_index = {"none": None, "a class": int(labels.flatten()[0]), "255": 255}[ignored]
    if ignored == "255":
        labels[torch.rand(labels.shape, generator=generator) < 0.3] = 255
    peer = DiceLoss(
        softmax=True, to_onehot_y=True, reduction=reduction, weight=counted, ignore_index=ignore_index, **kwargs
    )
    if kind == reduction:
        ours = MultiClassDiceLoss(reduction=reduction, weight=counted, ignore_index=ignore_index, **kwargs)
        reference = peer
    else:
        ours = MultiClassDiceCELoss(
            reduction=reduction, weight=weight, lambda_dice=0.7, lambda_ce=0.4, ignore_index=ignore_index, **kwargs
        )

        def reference(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:  # MONAI's DiceCELoss has no ignore_index
            v = None if weight is None else weight.to(x)
            ignore = -100 if ignore_index is None else ignore_index
            ce = cross_entropy(x, y[:, 0].long(), weight=v, reduction=reduction, ignore_index=ignore)
            return 0.7 * peer(x, y) + 0.4 * ce.nan_to_num()

    value, slope = gradient(ours, logits.to(device), labels.to(device, label_type))
    expected, expected_slope = gradient(reference, logits.double(), labels)
    torch.testing.assert_close(value.cpu(), expected.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(slope.cpu(), expected_slope.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weight", [None, torch.tensor([0.2, 1.0, 3.0])])
@pytest.mark.parametrize("include_background", [True, False])
def test_equals_monai_dice_ce(reduction: str, weight: torch.Tensor | None, include_background: bool) -> None:
    torch.manual_seed(0)
    kwargs = {"reduction": reduction, "weight": weight, "include_background": include_background, "lambda_ce": 0.3}
    logits, labels = torch.randn(2, 3, 5, 6, 7), torch.randint(0, 3, (2, 1, 5, 6, 7))
    value, slope = gradient(MultiClassDiceCELoss(**kwargs), logits, labels)
    peer = DiceCELoss(softmax=True, to_onehot_y=True, **kwargs)
    expected, expected_slope = gradient(peer, logits, labels)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    assert distance(slope, expected_slope) < 1e-4


@on_every_device
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_blocks_add_up(dtype: torch.dtype, limit: float, device: str) -> None:
    """A volume of many blocks and tiles, the last of them partly filled, in both layouts, and with strides."""
    torch.manual_seed(0)
    logits = 3 * torch.randn(2, 4, 70, 72, 37, dtype=dtype)
    labels = torch.randint(0, 4, (2, 1, 70, 72, 37), dtype=torch.uint8)
    expected, expected_slope = gradient(DiceCELoss(softmax=True, to_onehot_y=True), logits.double(), labels)
    layouts = {
        "channels first": logits,
        "channels last": logits.contiguous(memory_format=torch.channels_last_3d),
        "strided": logits.repeat_interleave(2, dim=4)[..., ::2],
        "axes swapped": logits.transpose(2, 4).contiguous().transpose(2, 4),
    }
    assert len({x.stride() for x in layouts.values()}) == len(layouts)
    for name, x in layouts.items():
        value, slope = gradient(MultiClassDiceCELoss(), x.to(device), labels.to(device))
        assert abs(value.item() - expected.item()) < 10 * limit, name
        assert distance(slope.cpu(), expected_slope) < limit, name


@on_every_device
@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.float16, 1e-3), (torch.bfloat16, 1e-2)]
)
@pytest.mark.parametrize("loss", [MultiClassDiceLoss, MultiClassDiceCELoss])
def test_gradient_of_every_type(loss: type, dtype: torch.dtype, limit: float, device: str) -> None:
    """Against the float64 gradient of the same, already rounded, logits: only the result's own rounding may differ."""
    torch.manual_seed(0)
    logits, labels = 2 * torch.randn(2, 5, 9, 8, 7).to(dtype), torch.randint(0, 5, (2, 1, 9, 8, 7))
    value, slope = gradient(loss(squared_pred=True), 1 * logits.to(device), labels.to(device))
    _, expected = gradient(loss(squared_pred=True), logits.double(), labels)
    assert slope.dtype == dtype
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    scale = expected.abs().max()  # half precision has no room for gradients divided by the number of voxels
    if dtype == torch.float16:
        _, slope = gradient(Scaled(loss(squared_pred=True), 1 / scale.item()), logits.to(device), labels.to(device))
        expected = expected / scale
    assert distance(slope.cpu(), expected) < limit


class Scaled(torch.nn.Module):
    """As an AMP gradient scaler has it."""

    def __init__(self, loss: torch.nn.Module, factor: float) -> None:
        super().__init__()
        self.loss, self.factor = loss, factor

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.factor * self.loss(logits, labels)


@on_every_device
@pytest.mark.parametrize("squared_pred", [False, True])
@pytest.mark.parametrize("jaccard", [False, True])
@pytest.mark.parametrize("kind", ["dice", "dice, every term", "dice and ce"])
def test_gradcheck(squared_pred: bool, jaccard: bool, kind: str, device: str) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 2, 3, dtype=torch.float64, device=device, requires_grad=True)
    labels = torch.randint(0, 3, (2, 1, 2, 3), device=device)
    kwargs: dict = {"squared_pred": squared_pred, "jaccard": jaccard, "weight": [0.5, 1.0, 2.0], "ignore_index": 1}
    if kind == "dice and ce":
        loss = MultiClassDiceCELoss(lambda_ce=0.3, batch=True, **kwargs)
    else:
        loss = MultiClassDiceLoss(reduction="none" if "term" in kind else "mean", **kwargs)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), logits)


@on_every_device
@pytest.mark.parametrize("loss", [MultiClassDiceLoss(ignore_index=255), MultiClassDiceCELoss(ignore_index=255)])
def test_a_crop_without_labels_is_harmless(loss: torch.nn.Module, device: str) -> None:
    labels = torch.full((1, 1, 4, 4), 255, dtype=torch.uint8, device=device)
    value, slope = gradient(loss, torch.randn(1, 3, 4, 4, device=device), labels)
    assert value == 0
    assert not slope.any()


@on_every_device
def test_huge_logits_stay_finite(device: str) -> None:
    logits = torch.tensor([[[[1e4, -1e4]], [[-1e4, 1e4]]]], device=device)
    for labels, expected in (([[0, 1]], 0.0), ([[1, 0]], 1 + 2e4)):
        y = torch.tensor(labels, device=device)[None, None]
        value, slope = gradient(MultiClassDiceCELoss(), logits, y)
        assert value.item() == pytest.approx(expected, abs=1e-4)
        assert torch.isfinite(slope).all()


def test_a_class_that_cannot_be_is_no_nan() -> None:
    logits = torch.tensor([[[[0.0]], [[0.0]], [[-math.inf]]]])
    value, slope = gradient(MultiClassDiceCELoss(), logits, torch.tensor([[[[1]]]]))
    assert value.item() == pytest.approx((1 + (1 - 1 / 1.5) + 0) / 3 + math.log(2), abs=1e-4)
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize("cropped", [False, True])
def test_nothing_of_the_volumes_size_is_made(cropped: bool) -> None:
    """Of a volume of many blocks, only the gradient itself."""
    logits, labels = torch.randn(1, 8, 64, 64, 64 + 2 * cropped)[..., :64], torch.randint(0, 8, (1, 1, 64, 64, 64))
    weight, constants = torch.ones(8, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    arguments = (logits, labels, weight, weight, constants, True, True, True, False, True, "mean", 255)
    seen: list[tuple[int, str]] = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            tensors = result if isinstance(result, tuple) else [result]
            own = {logits.untyped_storage().data_ptr(), labels.untyped_storage().data_ptr()}
            storages = [tensor.untyped_storage() for tensor in tensors if isinstance(tensor, torch.Tensor)]
            seen.extend((storage.nbytes(), str(func)) for storage in storages if storage.data_ptr() not in own)
            return result

    with Sizes():
        kept = dice_plain.forward(*arguments)
        assert max(seen)[0] == 3 * 4 * dice_plain.BLOCK["cpu"]
        seen.clear()
        dice_plain.backward(kept[0], logits, labels, kept[1], True, 255)
        assert sorted({size for size, _ in seen})[-2:] == [3 * 4 * dice_plain.BLOCK["cpu"], 4 * logits.numel()]


@on_every_device
def test_is_one_operator_for_the_compiler(device: str) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, requires_grad=True, device=device)
    labels = torch.randint(0, 3, (2, 1, 4, 5), device=device)
    weight, constants = (torch.ones(size, dtype=torch.float64, device=device) for size in (3, 3))
    for reduction in ("mean", "none"):
        flags = (True, True, False, False, False, reduction, None)
        torch.library.opcheck(dice_and_ce, (logits, labels, weight, weight, constants, *flags))
    loss = MultiClassDiceCELoss()
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    for items in range(1, 12):  # more sizes than the compiler makes graphs for
        logits, labels = (
            torch.randn(items, 3, 4, 5, device=device),
            torch.randint(0, 3, (items, 1, 4, 5), device=device),
        )
        plain = gradient(loss, logits, labels)
        assert len(plain) == 2
        for ours, theirs in zip(gradient(compiled, logits, labels), plain, strict=True):
            torch.testing.assert_close(ours, theirs)


@on_every_device
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("ignore_index", [None, 1, 255])
def test_autocast_changes_nothing(dtype: torch.dtype, ignore_index: int | None, device: str) -> None:
    """As MONAI's trainers call it, and with the backward pass inside too."""
    torch.manual_seed(0)
    labels = torch.randint(0, 4, (1, 1, 40, 40, 32), device=device)
    logits = 2 * torch.randn(1, 4, 40, 40, 32, device=device) + 4 * (torch.arange(4, device=device) == 0).view(
        4, 1, 1, 1
    )
    loss = MultiClassDiceCELoss(ignore_index=ignore_index, squared_pred=True)
    expected, expected_slope = gradient(loss, logits, labels)
    with torch.autocast(device, dtype=dtype):
        value, slope = gradient(loss, logits, labels)
    torch.testing.assert_close(value, expected)
    assert distance(slope, expected_slope) < 1e-6


def test_many_small_items_and_settings_changed_on_the_way() -> None:
    """Items share blocks where they are small; what is set on the module counts at the next call, as in MONAI's."""
    torch.manual_seed(0)
    logits, labels = torch.randn(300, 3, 9, 8), torch.randint(0, 3, (300, 1, 9, 8))
    ours, theirs = MultiClassDiceCELoss(), DiceCELoss(softmax=True, to_onehot_y=True)
    for name, value in (("lambda_dice", 0.25), ("lambda_ce", 0.5), ("lambda_dice", 0.0)):
        setattr(ours, name, value)
        setattr(theirs, name, value)
        got, expected = gradient(ours, logits, labels), gradient(theirs, logits, labels)
        torch.testing.assert_close(got[0], expected[0])
        assert distance(got[1], expected[1]) < 1e-5
    assert pickle.loads(pickle.dumps(copy.deepcopy(ours)))(logits, labels) == got[0]


def test_a_second_derivative_is_refused() -> None:
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    (slope,) = torch.autograd.grad(MultiClassDiceLoss()(logits, torch.ones(1, 1, 3, 3)), logits, create_graph=True)
    with pytest.raises(NotImplementedError, match="differentiated only once"):
        slope.sum().backward()


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        ((1, 1, 4, 4), (1, 1, 4, 4)),
        ((1, 3, 4, 4), (1, 3, 4, 4)),
        ((1, 3, 4, 4), (1, 1, 4, 5)),
        ((2, 3, 4, 4), (1, 1, 4, 4)),
        ((1, 3), (1, 1)),
        ((0, 3, 4, 4), (0, 1, 4, 4)),
        ((1, 3, 4, 0), (1, 1, 4, 0)),
    ],
)
def test_wrong_shapes_are_named(logits: tuple, labels: tuple) -> None:
    with pytest.raises(ValueError, match=r"got \(\d, .*\)"):
        MultiClassDiceLoss()(torch.zeros(logits), torch.zeros(labels))


@pytest.mark.parametrize(
    ("loss", "kwargs", "message"),
    [
        (MultiClassDiceLoss, {"reduction": "median"}, '"mean", "sum" or "none", got \'median\''),
        (MultiClassDiceCELoss, {"reduction": "none"}, 'must be "mean" or "sum", got \'none\''),
        (MultiClassDiceLoss, {"weight": [1, -2]}, r"none negative, got \[1, -2\]"),
        (MultiClassDiceLoss, {"weight": [[1, 2]]}, r"none negative, got \[\[1, 2\]\]"),
        (MultiClassDiceLoss, {"weight": [1, math.nan]}, r"none negative, got \[1, nan\]"),
        (MultiClassDiceCELoss, {"lambda_ce": -1}, "must not be negative, got 1.0 and -1"),
        (MultiClassDiceLoss, {"weight": [1, 1, 1]}, r"weight must have 2 values, .* got 3: \[1.0, 1.0, 1.0\]"),
        (MultiClassDiceLoss, {"weight": [1, 1], "include_background": False}, "weight must have 1 values, .* got 2"),
        (MultiClassDiceCELoss, {"weight": [1], "include_background": False}, "weight must have 2 values, .* got 1"),
    ],
)
def test_wrong_arguments(loss: type, kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss(**kwargs)(LOGITS, LABELS)


@on_every_device
@pytest.mark.parametrize(
    ("value", "dtype", "shown"),
    [
        (2, torch.uint8, "2"),
        (-1, torch.int64, "-1"),
        (300, torch.int16, "300"),
        (0.5, torch.float32, "0.5"),
        (math.nan, torch.float32, "(nan|inf)"),
    ],
)
def test_wrong_labels(value: float, dtype: torch.dtype, shown: str, device: str) -> None:
    labels, loss = torch.tensor([[[[0, value]]]], dtype=dtype, device=device), MultiClassDiceLoss(ignore_index=255)
    message = f"labels must be whole numbers from 0 to 1, or ignore_index; they hold {shown}\\."
    logits = LOGITS.detach().to(device).requires_grad_()
    if device == "cpu":
        with pytest.raises(ValueError, match=message):
            loss(logits, labels)
        return
    result = loss(logits, labels)  # no waiting for the device: NaN and no gradient now, the sentence later
    result.backward()
    assert result.isnan()  # this waits
    assert not logits.grad.any()
    with pytest.raises(ValueError, match=f"In an earlier call: {message}"):
        loss(logits, labels)
    assert loss(logits, LABELS.to(device)).isfinite()


@on_every_device
def test_a_compiled_step_keeps_nothing_that_it_made(device: str) -> None:
    """What a CUDA graph of torch.compile made is overwritten by its next replay."""
    loss = MultiClassDiceCELoss(weight=[0.5, 2.0], include_background=False)
    logits, labels = LOGITS.detach().to(device), LABELS.to(device)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    value = compiled(logits, labels)
    assert loss._constants == {}
    torch.testing.assert_close(value, loss(logits, labels))
    assert len(loss._constants) == 1


def test_wrong_types_are_named() -> None:
    with pytest.raises(ValueError, match=r"got torch.int64 and torch.int64"):
        MultiClassDiceLoss()(LOGITS.long(), LABELS)
    with pytest.raises(ValueError, match=r"got torch.float32 and torch.bool"):
        MultiClassDiceLoss()(LOGITS, LABELS.bool())


def test_second_outputs_cost_what_they_say() -> None:
    """Squared errors 1 and 9: the second at a weight of 1/4 adds 9/4; a penalty is added as it is."""
    labels = torch.zeros(1, 1, 2, 2)
    first, second = labels + 1, labels + 3
    loss = WithAuxiliary(torch.nn.MSELoss(), weight=0.25)
    assert loss(first, labels).item() == 1
    assert loss((first, second), labels).item() == 1 + 9 / 4
    assert loss((first, torch.tensor(0.5)), labels).item() == 1.5
    with pytest.raises(ValueError, match=r"of the logits' shape \(1, 1, 2, 2\), got \(1, 1, 1, 2\)"):
        loss((first, second[:, :, :1]), labels)
    with pytest.raises(ValueError, match=r"weight must be 0 or more, got -1"):
        WithAuxiliary(torch.nn.MSELoss(), weight=-1)
