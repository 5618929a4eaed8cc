"""bfloat16 on the CPU: MONAI's engines enter autocast on CUDA only."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import Inferer, SimpleInferer


class CPUAutocastInferer(Inferer):
    """Runs another inferer, with the network in bfloat16 where its input is on the CPU; results are float32.

    On other devices, and with `amp` off, it changes nothing.

    Args:
        inferer: the inferer that does the work; SimpleInferer by default.
        amp: use bfloat16.
    """

    def __init__(self, inferer: Inferer | None = None, amp: bool = True) -> None:
        super().__init__()
        self.inferer = inferer or SimpleInferer()
        self.amp = amp

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.amp or inputs.device.type != "cpu":
            return self.inferer(inputs, network, *args, **kwargs)

        def in_bfloat16(*args: Any, **kwargs: Any) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return network(*args, **kwargs).float()  # windows are stitched in float32

        return self.inferer(inputs, in_bfloat16, *args, **kwargs)
