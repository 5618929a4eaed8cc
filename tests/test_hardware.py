"""What a run takes from its machine. The machines are described by hand: no GPU is needed here."""

from __future__ import annotations

import pytest
import torch

from custom.running import hardware


@pytest.mark.parametrize(
    ("gpu", "capability", "dtype"),
    [
        (False, None, torch.float16),
        (True, (7, 0), torch.float16),  # V100: torch only imitates bfloat16
        (True, (7, 5), torch.float16),  # T4
        (True, (8, 0), torch.bfloat16),  # A100
        (True, (9, 0), torch.bfloat16),  # H100
    ],
)
def test_mixed_precision_has_the_type_that_the_gpu_computes_in(
    gpu: bool, capability: tuple[int, int] | None, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    if capability is not None:
        properties = type("Properties", (), {"major": capability[0], "minor": capability[1]})
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    assert hardware.amp_dtype() == dtype
