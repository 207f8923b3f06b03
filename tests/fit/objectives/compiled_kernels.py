"""Compiles the Triton kernels for an H100 as a CUDA machine would at the first call; no GPU is needed. Prints JSON.

For each kernel: whether the PTX has Hopper's matrix instructions, registers of a thread, bytes of stack (spills),
shared memory of a program. Types and sizes are those of bfloat16 products with F = 64.
"""

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from alens.fit.objectives import cross_entropy_kernels as kernels
from alens.fit.objectives.cross_entropy_triton import HEADS_OF_A_TOKEN, TENSOR_CORES, Tile

H100 = GPUTarget("cuda", 90, 32)
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
HALF = {"features_HNF", "weight_HFV"}
WHOLE = {"rows_C", "starts_V"}
UNEVEN = {"num_heads", "real_rows", "real_vocabulary"}  # all else is a multiple of 16


def kind(name: str) -> str:
    """The type of an argument, by its name: tensors have a shape suffix."""
    if re.search(r"_[A-Z]+$", name):
        return "*bf16" if name in HALF else "*i32" if name in WHOLE else "*fp32"
    return "i32"


def compiled(kernel: Any, constants: dict[str, Any], warps: int, stages: int) -> dict[str, Any]:
    names = kernel.arg_names
    source = ASTSource(
        fn=kernel,
        signature={name: "constexpr" if name in constants else kind(name) for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={
            (place,): [["tt.divisibility", 16]]
            for place, name in enumerate(names)
            if name not in UNEVEN | constants.keys()
        },
    )
    made = triton.compile(source, target=H100, options={"num_warps": warps, "num_stages": stages})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        usage = subprocess.check_output([CUOBJDUMP, "--dump-resource-usage", file.name], text=True)
    registers, stack = (int(re.search(rf"{word}:(\d+)", usage)[1]) for word in ("REG", "STACK"))  # type: ignore[index]
    return {
        "tensor_cores": "wgmma.mma_async" in made.asm["ptx"],
        "registers": registers,
        "stack": stack,
        "shared": made.metadata.shared,
    }


def of_a_tile(kernel: Any, tile: Tile) -> dict[str, Any]:
    sizes = {"FP": 64, "ROWS": tile.rows, "TOKENS": tile.tokens, "PRECISION": "ieee"}
    return compiled(kernel, sizes, tile.warps, tile.stages)


if __name__ == "__main__":
    sizes = {"FP": 64, "HEADS": HEADS_OF_A_TOKEN, "ENTRIES": 16}
    compiled = {
        "target_sums": compiled(kernels.target_sums, sizes, 4, 3),
        "logsumexps": of_a_tile(kernels.logsumexps, TENSOR_CORES.logsumexp),
        "gradients": of_a_tile(kernels.gradients, TENSOR_CORES.gradient),
    }
    print(json.dumps(compiled))
