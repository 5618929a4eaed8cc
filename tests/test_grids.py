"""Resampling axis by axis, and labels on the scan's grid, against MONAI and by hand."""

from __future__ import annotations

import math

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch.nn.functional import interpolate

from custom.datasets import freesurfer
from custom.transforms import LabelScand, LabelStructuresd, Outputs, ResampleScand
from custom.transforms.brain_masks import brain_masks, closed_and_filled
from custom.transforms.grids import align, interpolated, resampled, slabs, upright

ORIENTATIONS = [
    np.array([[0, 1], [1, 1], [2, 1]]),
    np.array([[1, -1], [2, 1], [0, -1]]),
    np.array([[2, 1], [0, -1], [1, 1]]),
]


def test_interpolation_is_torchs() -> None:
    volumes = torch.rand(3, 5, 6, 7)
    positions = [(np.arange(2 * n) + 0.5) / 2 - 0.5 for n in (5, 6, 7)]
    expected = interpolate(volumes[None], scale_factor=2, mode="trilinear")[0]
    torch.testing.assert_close(interpolated(volumes, positions), expected)


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=["RAS", "turned", "sagittal"])
def test_a_scan_lies_where_it_was_whatever_its_axes(orientation: np.ndarray) -> None:
    """A linear ramp over world coordinates stays that ramp."""
    affine = np.diag([1.2, 0.9, 2.0, 1.0])
    affine[:3, 3] = [-30, 10, 5]
    image = nibabel.Nifti1Image(np.zeros((40, 50, 20), np.float32), affine).as_reoriented(orientation)
    world = nibabel.affines.apply_affine(image.affine, np.stack(np.indices(image.shape), axis=-1))
    ramp = torch.as_tensor(world @ [1.0, 2.0, 3.0]).float()
    shape, target = upright(image.shape, image.affine, 1.5)
    assert nibabel.aff2axcodes(target) == ("R", "A", "S")
    assert shape == (32, 30, 27)
    found = resampled(ramp, image.affine, shape, target)
    there = nibabel.affines.apply_affine(target, np.stack(np.indices(shape), axis=-1)) @ [1.0, 2.0, 3.0]
    inner = (slice(2, -2),) * 3
    np.testing.assert_allclose(found[inner].numpy(), there[inner], atol=2e-3)


def test_small_voxels_are_averaged_not_skipped() -> None:
    noise = torch.randn(120, 120, 120, generator=torch.Generator().manual_seed(0))
    fine = np.diag([0.3, 0.3, 0.3, 1.0])
    shape, target = upright(noise.shape, fine, 1.5)
    assert float(resampled(noise, fine, shape, target).std()) < 0.35  # trilinear interpolation alone leaves 0.5 to 1


def test_grids_that_do_not_run_along_each_other() -> None:
    turned = np.eye(4)
    turned[:2, :2] = [[0.9, -0.4], [0.4, 0.9]]
    with pytest.raises(ValueError, match="axes of two grids don't run along each other"):
        align(np.eye(4), turned)


def test_slabs_cover_all_once() -> None:
    shape = (300, 400, 57)
    covered = np.zeros(57, int)
    for piece in slabs(shape):
        covered[piece] += 1
    assert (covered == 1).all()


def outputs() -> Outputs:
    return Outputs(
        freesurfer.TISSUE_NUMBERS,
        freesurfer.GROUP_NUMBERS,
        freesurfer.LEFT_CODES,
        freesurfer.RIGHT_CODES,
        10,
        [6],
        [4, 5],
        15,
    )


def head(orientation: np.ndarray, contrast: dict[int, float]) -> tuple[MetaTensor, MetaTensor, np.ndarray]:
    """A scan of 1 mm, logits of 2 mm, and the scan's true outputs: white matter in cortex in fluid, thalamus left."""
    grid = np.stack(np.indices((60, 60, 60))) - 29.5
    radius = np.sqrt((grid**2).sum(axis=0))
    truth = np.select([radius < 8, radius < 15, radius < 21, radius < 25], [6, 1, 2, 14], 0)
    values = np.vectorize(contrast.get)(truth).astype(np.float32)
    scan = values + np.random.default_rng(0).normal(0, 0.02, truth.shape).astype(np.float32)
    affine = np.eye(4)
    affine[:3, 3] = -29.5
    image = nibabel.Nifti1Image(scan, affine).as_reoriented(orientation)
    labels = np.ascontiguousarray(
        nibabel.Nifti1Image(truth.astype(np.uint8), affine).as_reoriented(orientation).dataobj
    )
    logits = torch.zeros(18, 30, 30, 30)
    logits.scatter_(0, torch.as_tensor(truth[::2, ::2, ::2])[None].long(), 6.0)
    logits[17] = torch.as_tensor(-grid[0][::2, ::2, ::2])  # x < 0 is left in RAS+
    coarse = affine.copy()
    coarse[:3, :3] *= 2
    meta = {"filename_or_obj": "head.nii.gz", "warnings": ""}
    scan_tensor = MetaTensor(
        torch.as_tensor(np.ascontiguousarray(image.dataobj))[None], affine=torch.as_tensor(image.affine), meta=meta
    )
    return scan_tensor, MetaTensor(logits, affine=torch.as_tensor(coarse)), labels


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=["RAS", "turned", "sagittal"])
@pytest.mark.parametrize("contrast", [{0: 0, 14: 0.1, 2: 0.5, 1: 0.9, 6: 0.7}, {0: 0, 14: 1, 2: 0.6, 1: 0.3, 6: 0.45}])
def test_labels_lie_on_the_scan_whatever_its_axes(orientation: np.ndarray, contrast: dict[int, float]) -> None:
    scan, logits, truth = head(orientation, contrast)
    transform = LabelStructuresd(
        "pred", outputs(), freesurfer.labels_of_outputs({0: "background", 1: "CSF", 2: "GM", 3: "WM"})
    )
    item = transform({"pred": logits, "scan": scan, "wants_probabilities": True})
    tissues, codes = np.asarray(item["pred"])[0], np.asarray(item["structures"])[0]
    expected = np.asarray(freesurfer.TISSUE_NUMBERS)[truth]
    assert (tissues == expected)[truth > 0].mean() > 0.93
    np.testing.assert_array_equal(np.asarray(item["pred"].affine), np.asarray(scan.affine))
    x = nibabel.affines.apply_affine(np.asarray(scan.affine), np.stack(np.indices(codes.shape), axis=-1))[..., 0]
    assert set(np.unique(codes)) == {0, 2, 3, 10, 24, 41, 42, 49}
    assert x[codes == 10].max() <= 1
    assert x[codes == 49].min() >= -1
    measures = item["measures"]
    for code in (2, 3, 10, 24, 41, 42, 49):
        assert measures.voxels[code] == (codes == code).sum()
    assert measures.voxels[-2] == (tissues == 2).sum() == sum(measures.voxels[code] for code in (3, 42, 10, 49))
    assert 0.8 < measures.expected_dice(-3) <= 1
    brain, box = np.isin(truth, [1, 2, 6]).sum(), 58**3  # the head's box has two of the network's voxels around it
    other = 1 / (math.exp(6) + 16)  # each output's probability where it is not the true one; 15 outputs are brain
    expected_brain = brain * (1 - 2 * other) + (box - brain) * 15 * other
    assert measures.expected_brain(24) == pytest.approx(expected_brain, rel=0.02)
    probabilities = item["probabilities"]
    assert probabilities.shape == (3, *truth.shape)
    assert float(probabilities.float().sum(dim=0).max()) < 1.002


def test_a_mask_bounds_the_labels() -> None:
    scan, logits, truth = head(ORIENTATIONS[1], {0: 0, 14: 0.1, 2: 0.5, 1: 0.9, 6: 0.7})
    mask = MetaTensor(torch.as_tensor(truth > 0)[None], affine=scan.affine)
    mask[:, :30] = False
    item = LabelStructuresd("pred", outputs(), list(range(17)))({"pred": logits, "scan": scan, "mask": mask})
    assert not np.asarray(item["structures"])[0][:30].any()
    assert np.asarray(item["structures"])[0][30:].any()


def test_nothing_found_is_no_label() -> None:
    scan, logits, _ = head(ORIENTATIONS[0], {0: 0, 14: 0.1, 2: 0.5, 1: 0.9, 6: 0.7})
    logits[:] = 0
    logits[0] = 5
    item = LabelStructuresd("pred", outputs(), list(range(17)))({"pred": logits, "scan": scan})
    assert not item["pred"].any()
    assert np.isnan(item["measures"].expected_dice(2))


def test_any_labels_on_the_scan() -> None:
    scan, logits, truth = head(ORIENTATIONS[2], {0: 0, 14: 0.1, 2: 0.5, 1: 0.9, 6: 0.7})
    item = LabelScand("pred")({"pred": logits[:17], "scan": scan})
    assert (np.asarray(item["pred"])[0] == truth).mean() > 0.93


def test_the_scan_is_kept_beside_what_the_network_sees() -> None:
    scan, _, _ = head(ORIENTATIONS[1], {0: 0, 14: 0.1, 2: 0.5, 1: 0.9, 6: 0.7})
    item = ResampleScand("image", 3.0)({"image": scan})
    assert item["scan"] is scan
    assert item["image"].shape == (1, 20, 20, 20)
    assert item["image"].meta["filename_or_obj"] == "head.nii.gz"


def test_masks_by_hand() -> None:
    """A gap of 4 mm closes, a hole fills, a gap of 10 mm stays; on voxels of 2 mm as on those of 1 mm."""
    for size in (1, 2):
        mask = np.zeros((60 // size, 40 // size, 40 // size), bool)
        mask[10 // size : 50 // size, 10 // size : 30 // size, 10 // size : 30 // size] = True
        mask[20 // size : 24 // size, :, 20 // size :] = False
        mask[36 // size : 46 // size, :, 20 // size :] = False
        mask[14 // size : 16 // size, 14 // size : 16 // size, 14 // size : 16 // size] = False
        result = closed_and_filled(mask, np.diag([size, size, size, 1.0]))
        assert (result | ~mask).all()
        assert result[22 // size, 20 // size, 24 // size]
        assert result[15 // size, 15 // size, 15 // size]
        assert not result[40 // size, 20 // size, 26 // size]
    codes = np.zeros((20, 20, 20), np.uint8)
    codes[4:16, 4:16, 4:16] = 24
    codes[7:13, 7:13, 7:13] = 3
    brain, intracranial = brain_masks(codes, np.eye(4), around_brain=24)
    assert brain.sum() == 6**3
    assert intracranial.sum() == 12**3
