"""Compiles the kernels of custom/losses/dice_triton.py for a GPU that needn't be here, and prints the code's sizes.

python tests/compile_dice_triton.py 90
"""

from __future__ import annotations

import itertools
import re
import sys
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from custom.losses import dice_kernels as kernels
from custom.losses import dice_triton

POINTERS = {"logits", "labels", "work", "loss", "slopes", "grad", "result"}
WIDTHS = {"fp64": 8, "fp32": 4, "bf16": 2, "fp16": 2}
KINDS = [("fp32", "u8", 4), ("bf16", "u8", 4), ("bf16", "u8", 8), ("fp16", "i16", 100), ("fp32", "i64", 8)]
KINDS += [("fp64", "fp32", 2)]
LAYOUTS = [  # flags, what torch's strides or the call make a constant
    (True, {"lv": 1, "yv": 1, "gv": 1, "ignore_index": None}),
    (False, {"lc": 1, "gc": 1, "row_stride": 0, "mailbox": None}),
]


def compiled(
    architecture: int, kernel: triton.JITFunction, kind: tuple[str, str, int], layout: tuple[bool, dict[str, Any]]
) -> Any:
    """The kernel for contiguous logits of a number of voxels that 16 divides, or for channels-last ones."""
    (logits, labels, classes), (flag, fixed) = kind, layout
    precision = "fp64" if logits == "fp64" else "fp32"
    sizes = dice_triton.sizes(classes, WIDTHS[logits], not flag)
    constants = sizes | {
        "PRECISION": getattr(kernels.tl, {"fp32": "float32", "fp64": "float64"}[precision]),
        "WIDTH": dice_triton.width(classes),
        **dict.fromkeys(("SQUARED", "JACCARD", "TERMS", "MEAN", "WITH_CE"), flag),
        **fixed,
    }
    if kernel is kernels.finish:
        constants["CLASSES"] = triton.next_power_of_2(classes)
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    types = {"logits": logits, "result": logits, "labels": labels}
    types |= dict.fromkeys(("dice_weight", "ce_weight", "constants", "mailbox"), "fp64")
    signature, hints = {}, {}
    for index, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif name in POINTERS | types.keys():
            signature[name] = "*" + types.get(name, precision)
            hints[(index,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "i32"
            if name not in kernel.do_not_specialize:
                hints[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature=signature, constexprs=constants, attrs=hints)
    warps = 8 if kernel is kernels.finish else dice_triton.WARPS
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options={"num_warps": warps})


def widest_load(code: Any, width: int) -> int:
    """Bytes of the widest load that a thread makes from the device's memory, of elements of `width` bytes."""
    found = re.findall(r"ld\.global[\w.:]*?(?:\.v(\d))?\.b(\d+)", code.asm["ptx"])
    return max((int(times or 1) * int(bits) // 8 for times, bits in found), default=0)


if __name__ == "__main__":
    for kind, layout in itertools.product(KINDS, LAYOUTS):
        for kernel in (kernels.sums, kernels.finish, kernels.gradient):
            code = compiled(int(sys.argv[1]), kernel, kind, layout)
            print(kernel.__name__, *kind, layout[0], widest_load(code, WIDTHS[kind[0]]), len(code.asm["cubin"]))
