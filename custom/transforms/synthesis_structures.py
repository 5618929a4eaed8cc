"""What the generator of scans must know of a label map's codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

BACKGROUND, BRAIN, FLUID, OUTSIDE = range(4)  # where a voxel lies


@dataclass
class Structures:
    """What the generator must know of a label map's codes.

    Args:
        label: {code: label to predict}.
        structure: {code: name}; codes of one name share their intensity. Codes without a name lie outside the brain.
        tissue: {name: "CSF", "GM" or "WM"}, for contrasts with tissues in a known order.
        side: {code: 1 on the left, 2 on the right}; with it, the result has a second channel.
        fluid: codes that a skull-stripped scan may have lost.
    """

    label: dict[int, int]
    structure: dict[int, str]
    tissue: dict[str, str] = field(default_factory=dict)
    side: dict[int, int] | None = None
    fluid: Sequence[int] = (24,)

    def __post_init__(self) -> None:
        self.names = sorted(set(self.structure.values()))
        outside = [code for code in self.label if code not in self.structure]
        self.classes = len(self.names) + len(outside)
        self.background = self.names.index(self.structure[0])
        self.tissue_of_class = np.zeros(self.classes, dtype=int)  # 1 CSF, 2 GM, 3 WM
        for name, tissue in self.tissue.items():
            if name in self.names and tissue in ("CSF", "GM", "WM"):
                self.tissue_of_class[self.names.index(name)] = ("CSF", "GM", "WM").index(tissue) + 1
        self.tables = torch.zeros(4, max(self.label) + 1, dtype=torch.uint8)  # label, class, place, side, by code
        for code, label in self.label.items():
            known = self.structure.get(code)
            place = OUTSIDE if known is None else FLUID if code in self.fluid else BRAIN if code else BACKGROUND
            number = len(self.names) + outside.index(code) if known is None else self.names.index(known)
            self.tables[:, code] = torch.tensor([label, number, place, (self.side or {}).get(code, 0)])
