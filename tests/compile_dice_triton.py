"""Compiles the kernels of custom/losses/dice_triton.py for a GPU that needn't be here, and prints the code's sizes.

python tests/compile_dice_triton.py 90
"""

from __future__ import annotations

import itertools
import sys
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from custom.losses import dice_triton as kernels

POINTERS = {"logits", "labels", "sums", "worst", "terms", "loss", "slopes", "greatest", "grad", "gradient"}
KINDS = [("fp32", "u8", 4), ("bf16", "u8", 4), ("fp16", "i16", 100), ("fp32", "i64", 8), ("fp64", "fp32", 2)]
LAYOUTS = [  # flags, what torch's strides or the call make a constant
    (True, {"lv": 1, "yv": 1, "gv": 1, "ignore_index": None}),
    (False, {"lc": 1, "gc": 1, "row_stride": 0, "groups": 1, "items": 1}),
]


def compile_for(
    architecture: int, kernel: triton.JITFunction, kind: tuple[str, str, int], layout: tuple[bool, dict[str, Any]]
) -> int:
    (logits, labels, classes), (flag, fixed) = kind, layout
    precision, size = "fp64" if logits == "fp64" else "fp32", triton.next_power_of_2(classes)
    constants = fixed | {
        "PRECISION": getattr(kernels.tl, {"fp32": "float32", "fp64": "float64"}[precision]),
        "REAL": classes,
        "CLASSES": size,
        "TILE": kernels.TILE // size,
        "GROUPS": max(1, kernels.TILE // size // 4),
        "CHANNELS_LAST": not flag,
        **dict.fromkeys(("SQUARED", "JACCARD", "BATCH", "MEAN", "WITH_CE"), flag),
    }
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    types = {"logits": logits, "gradient": logits, "labels": labels}
    types |= dict.fromkeys(("dice_weight", "ce_weight", "constants"), "fp64")
    signature, hints = {}, {}
    for index, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif name in POINTERS | types.keys():
            signature[name] = "*" + types.get(name, precision)
            hints[(index,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "i32"
    source = ASTSource(kernel, signature=signature, constexprs=constants, attrs=hints)
    return len(triton.compile(source, target=GPUTarget("cuda", architecture, 32)).asm["cubin"])


if __name__ == "__main__":
    for kind, layout in itertools.product(KINDS, LAYOUTS):
        for kernel in (kernels._sums, kernels._finish, kernels._gradient):
            print(kernel.__name__, *kind, compile_for(int(sys.argv[1]), kernel, kind, layout))
