"""The kernel at a small shape under compute-sanitizer, for memory that it must not touch and for races.

With the argument `call`, it is the call itself.
"""

import shutil
import subprocess
import sys

from gpu_stages.say import DEVICE, REHEARSED, end_with_run, interpret, say, skip

TOOLS = ("memcheck", "racecheck")


def call() -> None:
    """One call of each of the products that tensor cores take."""
    import torch

    from alens.fit.objectives.cross_entropy_triton import Products, cross_entropy_and_gradients

    H, N, F, V, J = (1, 5, 16, 33, 2) if REHEARSED else (3, 70, 64, 1001, 8)
    random = torch.Generator(DEVICE).manual_seed(0)
    shapes = ((H, N, F), (H, F, V), (H, V))
    features, weight, bias = (torch.randn(shape, device=DEVICE, generator=random) for shape in shapes)
    ids_NJ = torch.randint(V, (N, J), device=DEVICE, generator=random)
    weights_NJ = torch.rand(N, J, device=DEVICE, generator=random).softmax(-1)
    kinds: tuple[Products, ...] = ("bfloat16", "tf32")
    for products in kinds:
        results = cross_entropy_and_gradients(features, weight, bias, ids_NJ, weights_NJ, products=products)
        assert all(bool(result.isfinite().all()) for result in results)


def main() -> int:
    """Each tool, and the last lines of what it said; 1 where one found an error."""
    end_with_run()
    if shutil.which("compute-sanitizer") is None:
        if REHEARSED:
            interpret()
            call()
        skip("compute-sanitizer is not installed: it comes with the CUDA toolkit")
    code = 0
    for tool in TOOLS:
        command = [
            "compute-sanitizer",
            "--tool",
            tool,
            "--error-exitcode",
            "3",
            sys.executable,
            "-m",
            __spec__.name,
        ]
        done = subprocess.run([*command, "call"], capture_output=True, text=True)
        say(tool, {"code": done.returncode, "said": (done.stdout + done.stderr)[-600:]})
        code = code or done.returncode
    return min(code, 1)


if __name__ == "__main__":
    if sys.argv[1:] == ["call"]:
        call()
    else:
        sys.exit(main())
