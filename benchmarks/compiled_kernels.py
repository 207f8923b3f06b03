"""What the compiler makes of the Triton kernels of stage two, and the least time of a step by it. No GPU is needed.

For each architecture and kernel: the instructions of the matrix units, registers, spilled bytes, shared memory, and the
instructions of the inner loop for each logit (as lanes: a multiprocessor issues 128 in a cycle). Then for an H100 and an
H200, by their documents: for each part of a step the time that its products, its exponentials, its instructions and its
bytes would take at full rate. A part cannot be faster than the longest of the four, and is slower where they do not
overlap. All figures are computed, none is measured. Prints one JSON document; without Triton it says so and ends with 0.

    python benchmarks/compiled_kernels.py [--architectures 80,90,100,120] [--features 64] [--vocabulary 50257]
"""

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alens.fit.objectives import cross_entropy_triton as ours
from alens.fit.objectives.cross_entropy_triton import TENSOR_CORES, Tile

ROWS, HEADS = (1_024, 8_192), (12, 144)
TAUGHT = {1_024: 0.36, 8_192: 0.70}
"""The share of the vocabulary with a target in a batch: top 64 and 64 samples a row, measured on SmolLM2 and novels."""

ALL_ROWS = 320e6
"""250,000 steps of 1,280 rows: the paper's run."""

KINDS = {
    "matrix": ("HGMMA", "HMMA", "UTCHMMA", "UTCQMMA"),
    "exponential": ("MUFU",),
    "float": ("FADD", "FMUL", "FFMA", "FMNMX", "FSETP", "FSEL"),
    "convert": ("F2F",),
    "memory": ("LD", "ST", "UBLK", "UTMA", "ULDC"),
    "wait": ("BAR", "WARP", "DEPBAR", "SYNCS", "MEMBAR", "FENCE", "NANOSLEEP"),
}
"""Instructions by how their names begin; all others are integers, addresses, moves and branches."""

WHOLE = {"rows_C": "*i32", "starts_V": "*i32", "places_H": "*i64"}
HALF = {"features_HNF", "weight_HFV"}
UNEVEN = {"num_heads", "real_rows", "real_vocabulary"}  # all other numbers are multiples of 16


@dataclass(frozen=True, kw_only=True)
class Chip:
    """A GPU by its documents."""

    multiprocessors: int = 132
    hertz: float = 1.83e9
    flops_a_cycle: int = 4096
    """Flop of bfloat16 products in a cycle of a multiprocessor: 989 Tflop/s in all."""
    exponentials_a_cycle: int = 16
    lanes_a_cycle: int = 128
    bytes_a_s: float

    def ms(self, count: float, a_cycle: int) -> float:
        return 1e3 * count / (a_cycle * self.multiprocessors * self.hertz)


CHIPS = {"H100 SXM": Chip(bytes_a_s=3.35e12), "H200": Chip(bytes_a_s=4.8e12)}


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """A kernel for one architecture."""

    matrix_units: str | None
    registers: int
    stack: int
    """Bytes that a thread spills."""
    shared: int
    """Bytes of a program."""
    a_logit: dict[str, float] | None
    """Instructions of the inner loop by kind; None where it makes no logits."""


def _argument(name: str) -> str:
    """The type of an argument, by its name: tensors have a shape suffix."""
    if not re.search(r"_[A-Z]+$", name):
        return "i32"
    return "*bf16" if name in HALF else WHOLE.get(name, "*fp32")


def compiled(kernel: str, constants: dict[str, Any], tile: Tile, architecture: int) -> Compiled:
    """A kernel, compiled as at its first call on such a GPU."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from alens.fit.objectives import cross_entropy_kernels

    function = getattr(cross_entropy_kernels, kernel)
    names = function.arg_names
    source = ASTSource(
        fn=function,
        signature={name: "constexpr" if name in constants else _argument(name) for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={
            (place,): [["tt.divisibility", 16]]
            for place, name in enumerate(names)
            if name not in UNEVEN | constants.keys()
        },
    )
    target = GPUTarget("cuda", architecture, 32)
    made = triton.compile(source, target=target, options={"num_warps": tile.warps, "num_stages": tile.stages})
    dump = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        usage, code = (
            subprocess.check_output([dump, asked, file.name], text=True, stderr=subprocess.DEVNULL)
            for asked in ("--dump-resource-usage", "--dump-sass")
        )
    registers, stack = (int(re.search(rf"{word}:(\d+)", usage)[1]) for word in ("REG", "STACK"))  # type: ignore[index]  # it always says both
    units = {"wgmma": "wgmma.mma_async", "tcgen05": "tcgen05.mma", "mma": "mma.sync"}
    return Compiled(
        matrix_units=next((name for name, text in units.items() if text in made.asm["ptx"]), None),
        registers=registers,
        stack=stack,
        shared=made.metadata.shared,
        a_logit=None if kernel in ("target_sums", "scale") else _a_logit(code, tile),
    )


def _a_logit(code: str, tile: Tile) -> dict[str, float]:
    """Instructions for each logit in the shortest loop that makes exponentials, in lanes."""
    lines = [(int(m[1], 16), m[2]) for m in re.finditer(r"/\*([0-9a-f]{4,})\*/\s+([^;]*?)\s*;", code)]
    place = {address: number for number, (address, _) in enumerate(lines)}
    loops = []
    for number, (address, text) in enumerate(lines):
        to = re.search(r"\bBRA\b.*?(0x[0-9a-f]+)", text)
        if to and int(to[1], 16) in place and int(to[1], 16) < address:
            names = [
                re.sub(r"^@!?U?P\w+\s+", "", text) for _, text in lines[place[int(to[1], 16)] : number + 1]
            ]
            loops.append(Counter(_kind(name) for name in names))
    inner = min((loop for loop in loops if loop["exponential"]), key=lambda loop: loop.total())
    lanes = 32 * tile.warps / (tile.rows * tile.tokens)
    return {kind: round(lanes * inner[kind], 2) for kind in (*KINDS, "other")} | {
        "all": round(lanes * inner.total(), 2)
    }


def _kind(name: str) -> str:
    return next((kind for kind, begins in KINDS.items() if name.startswith(begins)), "other")


def all_compiled(features: int, architecture: int) -> dict[str, Compiled]:
    """Every kernel for bfloat16 products of so many features."""
    padded = max(16, 1 << (features - 1).bit_length())
    sums = {"FP": padded, "HEADS": ours.HEADS_OF_A_TOKEN, "ENTRIES": 16}
    plain = Tile(rows=0, tokens=0, warps=4, stages=3)
    kernels = {"target_sums": compiled("target_sums", sums, plain, architecture)}
    for name, tile in (("logsumexps", TENSOR_CORES.logsumexp), ("gradients", TENSOR_CORES.gradient)):
        sizes = {"FP": padded, "ROWS": tile.rows, "TOKENS": tile.tokens, "PRECISION": "ieee"}
        kernels[name] = compiled(name, sizes, tile, architecture)
    kernels["scale"] = compiled("scale", {"SIZE": ours.SCALED}, plain, architecture)
    return kernels


def step(kernels: dict[str, Compiled], chip: Chip, rows: int, heads: int, F: int, V: int) -> dict[str, Any]:
    """The least milliseconds of each part of a step, by what bounds it, and of the whole, one part after the other."""
    weights, logits, taught = heads * F * V, float(rows) * heads * V, TAUGHT[rows]
    half, whole = 2 * weights, 4 * weights
    parts: dict[str, tuple[float, float, str | None]] = {  # flop, bytes, kernel
        "weights in bfloat16": (0, whole + half, None),
        "target_sums": (0, taught * whole, None),
        "logsumexps": (2 * F * logits, half, "logsumexps"),
        "gradients": (4 * F * logits, half + taught * whole + whole, "gradients"),
        "Adam": (0, 7 * whole, None),
        "average": (0, 3 * whole, None),
    }
    body: dict[str, Any] = {}
    total = 0.0
    for name, (flops, num_bytes, kernel) in parts.items():
        times = {"memory": 1e3 * num_bytes / chip.bytes_a_s}
        if kernel is not None:
            counts = kernels[kernel].a_logit
            assert counts is not None, "it makes logits"
            times["products"] = chip.ms(flops, chip.flops_a_cycle)
            times["exponentials"] = chip.ms(logits * counts["exponential"], chip.exponentials_a_cycle)
            times["instructions"] = chip.ms(logits * counts["all"], chip.lanes_a_cycle)
        bound = max(times, key=lambda one: times[one])
        total += times[bound]
        body[name] = {"ms": round(times[bound], 2), "by": bound} | (
            {"all": {one: round(ms, 2) for one, ms in times.items()}} if len(times) > 1 else {}
        )
    products = chip.ms(6 * F * logits, chip.flops_a_cycle)
    return body | {
        "ms": round(total, 2),
        "rows_a_s": round(1e3 * rows / total),
        "share_of_matrix_rate": round(products / total, 2),
        "hours_for_320_million_rows": round(ALL_ROWS * total / rows / 3.6e6, 2),
    }


def main() -> None:
    """Compile for every architecture; compute a step from the code for 90."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--architectures", default="80,90,100,120")
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--vocabulary", type=int, default=50_257)
    asked = parser.parse_args()
    if importlib.util.find_spec("triton") is None:
        print("benchmarks/compiled_kernels.py compiled nothing: Triton is not installed.")
        return
    of_each = {int(name): all_compiled(asked.features, int(name)) for name in asked.architectures.split(",")}
    body: dict[str, Any] = {
        f"sm_{name}": {kernel: asdict(made) for kernel, made in kernels.items()}
        for name, kernels in of_each.items()
    }
    if 90 in of_each:
        body["computed_steps"] = {
            f"{chip}, {heads} heads, {rows} rows": step(
                of_each[90], CHIPS[chip], rows, heads, asked.features, asked.vocabulary
            )
            for chip in CHIPS
            for heads in HEADS
            for rows in ROWS
        }
    json.dump(body, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
