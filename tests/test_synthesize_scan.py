"""Scans drawn from label maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from custom.datasets import synthseg_labels as maps
from custom.errors import ConfigError
from custom.transforms import Structures, SynthesizeScand
from custom.transforms.synthesis_fields import dilated
from tests.conftest import SHARED

STRUCTURES = Structures(maps.labels_by_code(maps.LABELS), maps.STRUCTURES, maps.BRIGHT_AS)


def head() -> torch.Tensor:
    """A ball of white matter in cortex in fluid in skull, (1, 80, 80, 80)."""
    grid = torch.stack(torch.meshgrid(*[torch.arange(80.0)] * 3, indexing="ij"))
    radius = (grid - torch.tensor([40.0, 40.0, 48.0]).view(3, 1, 1, 1)).norm(dim=0)
    codes = torch.zeros(80, 80, 80, dtype=torch.int16)
    for limit, code in ((32, 515), (26, 24), (22, 3), (14, 41)):
        codes[radius < limit] = code
    return codes[None]


def draws(n: int, **options: object) -> list[dict]:
    transform = SynthesizeScand("label", STRUCTURES, (48, 48, 48), 1.5, **options)  # type: ignore[arg-type]
    transform.set_random_state(0)
    return [transform({"label": head()}) for _ in range(n)]


def test_shapes_values_and_the_original_map_is_kept() -> None:
    original = head()
    for item in draws(8):
        assert item["image"].shape == item["label"].shape == (1, 48, 48, 48)
        assert item["image"].dtype == torch.float32
        assert item["label"].dtype == torch.uint8
        assert item["image"].pixdim.tolist() == item["label"].pixdim.tolist() == [1.5, 1.5, 1.5]
        assert torch.isfinite(item["image"]).all()
        assert -0.5 < item["image"].quantile(0.01) < 0.05  # scaled by the 1st and 99th percentile
        assert 0.9 < item["image"].quantile(0.99) < 1.2
        assert set(item["label"].unique().tolist()) <= {0, 1, 2, 3}
    assert torch.equal(original, head())


def test_seeded_and_different_each_time() -> None:
    first, second = draws(3), draws(3)
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0]["image"], first[1]["image"])
    fixed = draws(2, fixed_seed=7)
    assert torch.equal(fixed[0]["image"], fixed[1]["image"])
    assert torch.equal(fixed[0]["label"], fixed[1]["label"])


def test_torchs_own_state_is_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    draws(1)
    assert torch.equal(torch.rand(1), expected)


def test_contrasts_of_all_orders_and_both_kinds_of_heads() -> None:
    """Over many draws, white matter is the brighter and the darker tissue, and the skull is there and is stripped."""
    brighter, stripped = [], []
    for item in draws(40):
        image, label = item["image"], item["label"]
        if (label == 2).sum() > 500 and (label == 3).sum() > 500:
            brighter.append(bool(image[label == 3].mean() > image[label == 2].mean()))
        stripped.append(float((image[label == 0] == 0).float().mean()) > 0.9)
    assert 0.3 < np.mean(brighter) < 0.9
    assert 0.1 < np.mean(stripped) < 0.5  # 0.35, of which 0.8 are exactly 0 outside


def test_labels_follow_the_table() -> None:
    assert maps.labels_by_code(maps.LABELS)[41] == 3
    mixed = maps.labels_by_code({0: "background", 1: "thalamus", 2: "caudate", 3: "WM"})
    assert [mixed[code] for code in (10, 49, 11, 50, 3, 41, 515)] == [1, 1, 2, 2, 0, 3, 0]
    with pytest.raises(
        ConfigError, match=r"labels has the unknown names \['fat'\]\. Use some of \['CSF', .*'thalamus'"
    ):
        maps.labels_by_code({0: "background", 1: "fat"})


def test_dilation_and_closing_by_hand() -> None:
    volume = torch.zeros(1, 1, 9, 9, 9)
    volume[0, 0, 4, 4, 4] = 1
    assert dilated(volume, 2).sum() == 125
    assert torch.equal(-dilated(-dilated(volume, 3), 3), volume)
    assert torch.equal(dilated(volume, 0), volume)


@pytest.mark.skipif(not (SHARED / "synthseg_labels").is_dir(), reason="SynthSeg's label maps aren't on this machine")
def test_the_published_maps() -> None:
    folder = SHARED / "synthseg_labels"
    assert maps.verify(folder) == []
    training, validation = (maps.datalist(folder, split) for split in ("training", "validation"))
    assert (len(training), len(validation)) == (16, 4)
    assert [item["subject"] for item in validation] == [f"sub-{n}_dseg" for n in (17, 18, 19, 20)]
    assert not {item["label"] for item in training} & {item["label"] for item in validation}
