"""The kernel at the shape of GPT-2 small: rows/s of 12 and 144 heads at 1,024 and 8,192 rows, beside the chip's limits.

Limits are measured on the same device: a large bfloat16 product, and a copy within its memory.
"""

import torch
from cuda_kernel import LAYER, MODEL, drawn, product_flops, rates, seconds

from alens.fit.objectives.cross_entropy_triton import cross_entropy_and_gradients
from gpu_stages.say import REHEARSED, end_with_run, say, skip

REPEATS = 10


def copy_bytes_a_s() -> float:
    """Bytes a second that a copy within the device's memory reads and writes together."""
    free, _ = torch.cuda.mem_get_info()
    there = torch.empty(min(2**31, free // 4), dtype=torch.uint8, device="cuda")
    here = torch.empty_like(there)
    return 2 * there.numel() / seconds(lambda: here.copy_(there), REPEATS)


def kernels_ms(heads: int, rows: int) -> dict[str, float]:
    """Milliseconds of a call in each kernel of the device that takes more than a hundredth of one."""
    tensors = drawn(heads, rows)
    cross_entropy_and_gradients(*tensors)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        cross_entropy_and_gradients(*tensors)
        torch.cuda.synchronize()
    spent = {event.key[:60]: event.self_device_time_total / 1e3 for event in profile.key_averages()}
    return {key: round(ms, 3) for key, ms in sorted(spent.items(), key=lambda item: -item[1]) if ms > 0.01}


def main() -> None:
    """The limits, then one figure after the other."""
    end_with_run()
    if REHEARSED:
        skip("rates are those of a CUDA device")
    limit = product_flops(REPEATS)
    say("bf16_product_tflops", round(limit / 1e12, 1))
    say("copy_tb_a_s", round(copy_bytes_a_s() / 1e12, 2))
    for heads in (LAYER, MODEL):
        for rows in (1024, 8192):
            say(f"{heads} heads, {rows} rows", rates(heads, rows, REPEATS, limit))
    for heads in (LAYER, MODEL):
        say(f"ms by kernel, {heads} heads, 8192 rows", kernels_ms(heads, 8192))


if __name__ == "__main__":
    main()
