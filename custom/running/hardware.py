"""What a run takes from the machine that it is on."""

from __future__ import annotations

import torch


def amp_dtype() -> torch.dtype:
    """The type of mixed precision on CUDA: bfloat16 where the GPU computes in it, float16 elsewhere.

    bfloat16 has the range of float32, so that nothing overflows. GPUs before compute capability 8.0 only imitate it.
    """
    computes = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if computes else torch.float16
