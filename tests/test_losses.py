"""MultiClassDiceLoss against numbers worked out by hand, and against MONAI."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import DiceLoss

from custom.losses import MultiClassDiceLoss

# Two voxels, two classes, labels 0 and 1; logits 0 and ln 3 make the second class's probability 3/4 at both voxels.
LOGITS = torch.tensor([[[[0.0, 0.0]], [[math.log(3), math.log(3)]]]])
LABELS = torch.tensor([[[[0, 1]]]])


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        # class 0: p = 1/4, 1/4; intersection 1/4; sums 1/2 + 1 -> 1 - (1/2)/(3/2) = 2/3
        # class 1: p = 3/4, 3/4; intersection 3/4; sums 3/2 + 1 -> 1 - (3/2)/(5/2) = 2/5
        ({}, (2 / 3 + 2 / 5) / 2),
        ({"include_background": False}, 2 / 5),
        ({"reduction": "sum"}, 2 / 3 + 2 / 5),
        ({"reduction": "none"}, [[2 / 3, 2 / 5]]),
        ({"weight": [3.0, 0.0], "reduction": "none"}, [[2.0, 0.0]]),
        ({"batch": True, "reduction": "none"}, [2 / 3, 2 / 5]),
        # squares: 1/16 + 1/16 + 1 -> 1 - (1/2)/(9/8) = 5/9; 9/16 + 9/16 + 1 -> 1 - (3/2)/(17/8) = 5/17
        ({"squared_pred": True, "reduction": "none"}, [[5 / 9, 5 / 17]]),
        # Jaccard: 1 - (1/4)/(3/2 - 1/4) = 4/5; 1 - (3/4)/(5/2 - 3/4) = 4/7
        ({"jaccard": True, "reduction": "none"}, [[4 / 5, 4 / 7]]),
        # smoothing: 1 - (1/2 + 1)/(3/2 + 2) = 4/7; 1 - (3/2 + 1)/(5/2 + 2) = 4/9
        ({"smooth_nr": 1.0, "smooth_dr": 2.0, "reduction": "none"}, [[4 / 7, 4 / 9]]),
    ],
)
def test_hand_computed(kwargs: dict, expected: object) -> None:
    smooth = {"smooth_nr": 0.0, "smooth_dr": 0.0} | kwargs
    loss = MultiClassDiceLoss(**smooth)(LOGITS, LABELS)
    torch.testing.assert_close(loss, torch.tensor(expected), rtol=1e-6, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "include_background": st.booleans(),
            "squared_pred": st.booleans(),
            "jaccard": st.booleans(),
            "batch": st.booleans(),
            "reduction": st.sampled_from(["mean", "sum", "none"]),
        }
    ),
    st.integers(2, 5),
    st.lists(st.integers(1, 6), min_size=2, max_size=3),
    st.integers(0, 2**31),
)
def test_equals_monai(kwargs: dict, classes: int, shape: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((2, classes, *shape), generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes, (2, 1, *shape), generator=generator)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = MultiClassDiceLoss(**kwargs)(ours, labels)
    peer = DiceLoss(softmax=True, to_onehot_y=True, **kwargs)(theirs, labels)
    torch.testing.assert_close(loss, peer.reshape(loss.shape))
    loss.sum().backward()
    peer.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize(
    ("logits", "labels"), [((1, 1, 4, 4), (1, 1, 4, 4)), ((1, 3, 4, 4), (1, 3, 4, 4)), ((1, 3, 4, 4), (1, 1, 4, 5))]
)
def test_wrong_shapes_are_named(logits: tuple, labels: tuple) -> None:
    with pytest.raises(ValueError, match=r"got \(1, .*\) and \(1, .*\)"):
        MultiClassDiceLoss()(torch.zeros(logits), torch.zeros(labels))


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="got 'median'"):
        MultiClassDiceLoss(reduction="median")
    with pytest.raises(ValueError, match="weight must have 2 values, one for each class, got 3"):
        MultiClassDiceLoss(weight=[1, 1, 1])(LOGITS, LABELS)
