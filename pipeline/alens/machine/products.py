"""Float32 matrix products by the faster of the two libraries that torch has on a CPU.

In: nothing. Out: a context in which `torch.mm` and similar functions use oneDNN, if it keeps float32 precision.
torch sends float32 products to MKL, which uses only half of the vector unit of processors that are not
Intel's: oneDNN is twice as fast there (docs/decisions/0015). The only switch that sends them to oneDNN also
allows bfloat16 inside. Whether oneDNN then rounds depends on the processor and the version (AMX: yes,
AVX-512: no), so this module tries it out.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def fast_float32() -> Iterator[None]:
    """Products inside are faster where possible, and as exact as outside. Applies to the whole process meanwhile."""
    if not onednn_is_exact():
        yield
        return
    with _onednn():
        yield


@functools.cache
def onednn_is_exact() -> bool:
    """Whether oneDNN is available and keeps the 24 bits of a float32."""
    if not hasattr(torch.backends.mkldnn, "matmul") or not torch.cpu._is_avx512_supported():
        return False
    size = 128
    fine = torch.full((size, size), 1.0 + 2.0**-20)
    with _onednn():
        return torch.equal(fine @ torch.eye(size), fine)


@contextlib.contextmanager
def _onednn() -> Iterator[None]:
    switch: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # torch 2.9 and later
    before = switch.fp32_precision
    switch.fp32_precision = "bf16"
    try:
        yield
    finally:
        switch.fp32_precision = before
