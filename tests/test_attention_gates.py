"""Level, contrast and entropy of attention gates, of maps by hand."""

from __future__ import annotations

import pytest
import torch

from custom.networks import AttentionUNet
from custom.reports.attention_gates import gate_table


class Gates(AttentionUNet):
    """Gives two maps: one that opens in the tumor only, and a uniform one."""

    def attention_maps(self, x: torch.Tensor) -> list[torch.Tensor]:
        chosen = torch.zeros(len(x), 1, 16, 16)
        chosen[:, :, 4:8, 4:8] = 1.0
        return [chosen, torch.full((len(x), 1, 8, 8), 0.3)]


def test_maps_by_hand() -> None:
    """A brain of 8x8 pixels with a tumor of 4x4 in two of three slices of 16x16."""
    image, tumor = torch.zeros(4, 16, 16, 3), torch.zeros(16, 16, 3)
    image[:, 4:12, 4:12] = 1.0
    tumor[4:8, 4:8, 1:] = 2
    table = gate_table(Gates(4, 3, 8), image, tumor).set_index("gate")
    assert table.loc["16x16"].to_dict() == pytest.approx(
        {
            "n": 2,
            "mean": 1 / 16,
            "contrast": 1.0,
            "entropy": 0.5,  # log 16 of log 256
            "in_tumor": 1.0,
            "in_brain": 0.0,
            "outside": 0.0,
        }
    )
    uniform = {"n": 2, "mean": 0.3, "contrast": 0.0, "entropy": 1.0, "in_tumor": 0.3, "in_brain": 0.3, "outside": 0.3}
    assert table.loc["8x8"].to_dict() == pytest.approx(uniform, abs=1e-6)


def test_a_network_has_four_gates() -> None:
    torch.manual_seed(0)
    image, tumor = torch.randn(4, 32, 32, 2), torch.ones(32, 32, 2)
    table = gate_table(AttentionUNet(4, 3, 8), image, tumor)
    assert table["gate"].tolist() == ["4x4", "8x8", "16x16", "32x32"]
    assert table["entropy"].between(0, 1).all()
    assert table["outside"].isna().all()  # the tumor is everywhere
