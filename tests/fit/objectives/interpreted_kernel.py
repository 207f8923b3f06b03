"""The Triton kernel in Triton's interpreter, on the CPU, in its own process, which serves call after call.

Triton reads TRITON_INTERPRET when it is imported and keeps what it read, so no test process may set it.
In (standard input) and out (standard output): a JSON line of settings, then a safetensors file of that many bytes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load, save

ARGUMENTS = ("features_HNF", "weight_HFV", "bias_HV", "ids_NJ", "weights_NJ")
RESULTS = ("loss_H", "grad_weight_HFV", "grad_bias_HV")


def put(stream: IO[bytes], tensors: dict[str, torch.Tensor], **settings: Any) -> None:
    body = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    stream.write(json.dumps({**settings, "bytes": len(body)}).encode() + b"\n" + body)
    stream.flush()


def take(stream: IO[bytes]) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """The next message, or None at the end."""
    if not (line := stream.readline()):
        return None
    settings = json.loads(line)
    return load(stream.read(settings.pop("bytes"))), settings


class InterpretedKernel:
    """The side of the caller. A call takes the five tensors, `products`, and rows and tokens of each pass's tile.

    With `programs` as on a GPU, each program of pass one would have one tile of these small vocabularies.
    """

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__],
            env={**os.environ, "TRITON_INTERPRET": "1"},
            cwd=Path(__file__).parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __call__(
        self,
        *tensors: torch.Tensor,
        products: str = "ieee",
        tiles: tuple[int, int, int, int] = (16, 16, 16, 16),
        heads_at_once: int = 16,
        programs: int = 1,
        heads: list[int] | None = None,
    ) -> tuple[torch.Tensor, ...]:
        assert self.process.stdin and self.process.stdout
        named = dict(zip(ARGUMENTS, tensors, strict=True))
        asked = {"products": products, "tiles": tiles, "heads_at_once": heads_at_once, "programs": programs}
        put(self.process.stdin, named, **asked, heads=heads)
        answer = take(self.process.stdout)
        assert answer, "the interpreter's process ended; it wrote why on standard error"
        return tuple(answer[0][name] for name in RESULTS)

    def scaled(self, grad_HX: torch.Tensor, scale_H: torch.Tensor) -> torch.Tensor:
        """What the kernel `scale` makes of gradients."""
        assert self.process.stdin and self.process.stdout
        put(self.process.stdin, {"grad_HX": grad_HX, "scale_H": scale_H})
        answer = take(self.process.stdout)
        assert answer, "the interpreter's process ended; it wrote why on standard error"
        return answer[0]["grad_HX"]

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(60)


def widen_bfloat16_products() -> None:
    """The interpreter keeps bfloat16 as its bits in uint16, and its products multiply those (Triton 3.7.1)."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder

    product, bits = InterpreterBuilder.create_dot, tl.bfloat16

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        a, b = (self.cast_impl(x, tl.float32) if x.dtype == bits else x for x in (a, b))
        return product(self, a, b, *rest)

    InterpreterBuilder.create_dot = create_dot


def serve() -> None:
    from alens.fit.objectives import cross_entropy_triton as ours

    widen_bfloat16_products()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)  # new memory is NaN: what no program writes shows
    while message := take(sys.stdin.buffer):
        tensors, asked = message
        if "scale_H" in tensors:
            ours.scale(tensors["grad_HX"], tensors["scale_H"])
            put(sys.stdout.buffer, {"grad_HX": tensors["grad_HX"]})
            continue
        sizes, ours.HEADS_AT_ONCE, ours.PROGRAMS = (asked[k] for k in ("tiles", "heads_at_once", "programs"))
        one, two = (ours.Tile(rows=r, tokens=t, warps=4, stages=1) for r, t in (sizes[:2], sizes[2:]))
        results = ours.cross_entropy_and_gradients(
            *(tensors[name] for name in ARGUMENTS),
            products=asked["products"],
            tiles=ours.Tiles(logsumexp=one, gradient=two),
            heads=asked["heads"],
        )
        put(sys.stdout.buffer, dict(zip(RESULTS, results, strict=True)))


if __name__ == "__main__":
    serve()
