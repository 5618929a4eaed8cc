"""The training step with a moving average: by hand, over batches, resumed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from custom.checkpoints.load import load_checkpoint
from custom.errors import MissingDataError
from custom.losses import MergedClasses, MultiClassDiceCELoss, WithSide
from custom.running import AveragedStep
from custom.running.averaged_step import make_capturable
from tests.conftest import Brainmri


def batch(n: int = 2) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return {
        "image": torch.randn((n, 1, 4, 4, 4), generator=rng),
        "label": torch.randint(0, 2, (n, 1, 4, 4, 4), generator=rng),
    }


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 2, 3, padding=1))


def test_one_step_by_hand() -> None:
    """The mean gradient of both scans, clipped to a norm of 0.1, with a rate of 1; the average moves a tenth of it."""
    net = network()
    average, before = copy.deepcopy(net), copy.deepcopy(net)
    loss = MultiClassDiceCELoss()
    step = AveragedStep(net, average, loss, torch.optim.SGD(net.parameters(), lr=1.0), 0.9, 0.1, amp=False)
    data = batch()
    output = step(None, data)  # type: ignore[arg-type]
    losses = [loss(before(data["image"][n : n + 1]), data["label"][n : n + 1]) for n in range(2)]
    assert float(output["loss"]) == pytest.approx(sum(losses).item() / 2, rel=1e-5)
    (sum(losses) / 2).backward()  # type: ignore[union-attr]
    gradients = [parameter.grad for parameter in before.parameters()]
    norm = torch.cat([one.flatten() for one in gradients if one is not None]).norm()
    assert norm > 0.1
    for old, new, mean in zip(before.parameters(), net.parameters(), average.parameters(), strict=True):
        assert old.grad is not None
        torch.testing.assert_close(new, old - old.grad * 0.1 / norm, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(mean, 0.9 * old + 0.1 * new, atol=1e-6, rtol=1e-4)


def test_what_is_frozen_stays_and_a_bad_scan_ends_nothing() -> None:
    net = nn.Sequential(nn.Conv3d(1, 2, 1), nn.Conv3d(2, 2, 1))
    net[0].requires_grad_(False)
    average, before = copy.deepcopy(net), copy.deepcopy(net)
    step = AveragedStep(net, average, MultiClassDiceCELoss(), torch.optim.AdamW(net.parameters(), lr=0.1))
    data: dict[str, Any] = batch()
    data["image"][0] = float("nan")
    step(None, data)  # type: ignore[arg-type]
    assert torch.equal(net[0].weight, before[0].weight)
    assert all(torch.isfinite(one).all() for one in net.parameters())
    step(None, batch())  # type: ignore[arg-type]
    assert not torch.equal(net[1].weight, before[1].weight)


def test_rate_and_counts_move_to_the_device() -> None:
    net = network()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.25)
    net(torch.randn(1, 1, 4, 4, 4)).sum().backward()
    optimizer.step()
    make_capturable(optimizer, torch.device("cpu"))
    (group,) = optimizer.param_groups
    assert group["capturable"]
    assert isinstance(group["lr"], torch.Tensor)
    assert float(group["lr"]) == 0.25
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    assert float(group["lr"]) == pytest.approx(0.125)


def test_a_side_counts_where_there_is_one() -> None:
    logits = torch.zeros(1, 3, 1, 1, 3, requires_grad=True)
    labels = torch.tensor([[[[[1, 1, 0]]], [[[1, 2, 0]]]]])  # left, right, none
    with_side, without = WithSide(MultiClassDiceCELoss(), 0.5), MultiClassDiceCELoss()
    expected = without(logits[:, :2], labels[:, :1]) + 0.5 * torch.log(torch.tensor(2.0))
    torch.testing.assert_close(with_side(logits, labels), expected)
    with_side(logits, labels).backward()
    assert logits.grad is not None
    assert logits.grad[0, 2, 0, 0].tolist() == pytest.approx([-0.125, 0.125, 0])


def test_merged_classes_are_sums_of_probabilities() -> None:
    logits = torch.randn(2, 4, 3, 3, 3)
    labels = torch.randint(0, 2, (2, 1, 3, 3, 3))
    groups = [[0, 2], [1, 3]]
    sums = torch.stack([logits.softmax(dim=1)[:, group].sum(dim=1) for group in groups], dim=1)
    expected = MultiClassDiceCELoss()(sums.log(), labels)
    torch.testing.assert_close(MergedClasses(MultiClassDiceCELoss(), groups)(logits, labels), expected)
    plain = MultiClassDiceCELoss()(logits, labels)
    torch.testing.assert_close(MergedClasses(MultiClassDiceCELoss(), None)(logits, labels), plain)


def test_a_resumed_training_is_the_uninterrupted_one(
    synthseg_labels_dir: Path, brainmri: Brainmri, tmp_path: Path
) -> None:
    small = ("--roi_size", "[32,32,32]", "--spacing", 5.0, "--scans_per_epoch", 4, "--validation_draws", 1)
    thin = (
        "--network_def#features",
        "[4,4,8]",
        "--network_def#blocks_down",
        "[1,1,1]",
        "--network_def#blocks_up",
        "[1,1]",
    )
    words = ("train", "brain_mri_tissue", "--dataset_dir", synthseg_labels_dir, "--warmup_steps", 2, *small, *thin)
    for name, runs in (("whole", [(2, False)]), ("parts", [(1, False), (2, True)])):
        for epochs, resume in runs:
            where = ("--output_dir", tmp_path / name, "--max_epochs", epochs, "--resume", resume)
            result = brainmri(*words, *where, cwd=tmp_path)
            assert result.returncode == 0, result.stderr[-2000:]
    whole, parts = (load_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "parts"))
    assert whole["trainer"] == parts["trainer"] == {"epoch": 2, "iteration": 4}
    best = load_checkpoint(tmp_path / "whole/model.pt")
    assert not all(torch.equal(best[name], whole["network"][name]) for name in best)  # model.pt is the average
    for kind in ("network", "average"):
        for name, tensor in whole[kind].items():
            assert torch.isfinite(tensor).all()
            assert tensor.shape == parts[kind][name].shape


def test_freesurfers_segmentations(tmp_path: Path) -> None:
    import nibabel
    import numpy as np

    from custom.datasets import freesurfer, synthseg_labels
    from custom.transforms import FillSulcid, Structures, SynthesizeScand

    (tmp_path / "note.txt").write_text("")
    with pytest.raises(MissingDataError, match=r"holds no aparc\+aseg\.mgz or \.nii\.gz\. Give a folder"):
        freesurfer.datalist(tmp_path)
    codes = np.zeros((60, 60, 60), np.int32)
    codes[10:50, 10:50, 10:50] = 1024
    codes[30:50, 10:50, 10:50] = 2024
    codes[15:45, 15:45, 15:45] = 251
    codes[20:24, 8:60, 45:50] = 0  # a sulcus
    for name in ("sub-10", "sub-2"):
        (tmp_path / name / "mri").mkdir(parents=True)
        nibabel.save(nibabel.MGHImage(codes, np.eye(4)), tmp_path / name / "mri/aparc+aseg.mgz")
    items = freesurfer.datalist(tmp_path)
    assert [item["subject"] for item in items] == ["sub-2/mri/aparc+aseg", "sub-10/mri/aparc+aseg"]
    assert freesurfer.datalist(None) == []
    assert freesurfer.verify(tmp_path) == []
    item = FillSulcid("label", synthseg_labels.EXTRACEREBRAL)({"label": torch.as_tensor(codes)[None]})
    assert item["has_head"] is False
    assert (item["label"][0, 20:24, 20:40, 46] == 24).all()
    assert (item["label"][0][codes > 0] == torch.as_tensor(codes)[codes > 0]).all()
    labels = synthseg_labels.labels_by_code(freesurfer.LABELS)
    structures = Structures(labels, synthseg_labels.STRUCTURES, synthseg_labels.BRIGHT_AS, synthseg_labels.SIDES)
    draw = SynthesizeScand("label", structures, (48, 48, 48), 1.5, stripped=0, cut=0)
    draw.set_random_state(0)
    drawn = draw(item)
    assert drawn["label"].shape == (2, 48, 48, 48)
    assert set(drawn["label"][0].unique().tolist()) == {0, 1, 2, 14}
    assert set(drawn["label"][1][drawn["label"][0] == 2].unique().tolist()) == {1, 2}
    assert (drawn["label"][1][drawn["label"][0] == 14] == 0).all()


@pytest.mark.parametrize(
    ("labels", "groups", "channels"),
    [
        (
            {0: "background", 1: "CSF", 2: "GM", 3: "WM"},
            [[0], [3, 10, 14], [2, 5, 6, 7, 8, 9, 12, 13, 15], [1, 4, 11, 16]],
            18,
        ),
        (
            {0: "background", 1: "GM", 2: "thalamus"},
            [[0, 1, 3, 4, 10, 11, 14, 16], [2, 5, 7, 8, 9, 12, 13, 15], [6]],
            18,
        ),
        ({0: "background", 1: "tumor"}, None, 2),
    ],
)
def test_labels_as_sums_of_outputs(labels: dict[int, str], groups: list[list[int]] | None, channels: int) -> None:
    from custom.datasets import freesurfer

    assert freesurfer.outputs_of(labels) == groups
    assert freesurfer.out_channels(labels) == channels
    if groups:
        found = freesurfer.labels_of_outputs(labels)
        assert all(found[output] == label for label, group in enumerate(groups) for output in group)
