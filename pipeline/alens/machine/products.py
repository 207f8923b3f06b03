"""Float32 matrix products: of 16-bit numbers without rounding, and by the faster of the two libraries of a CPU.

In: rows and an unembedding. Out: float32 logits. And a context in which `torch.mm` and similar functions use oneDNN, if it keeps float32 precision.
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

from alens.machine.replaced import replaced


@contextlib.contextmanager
def fast_float32() -> Iterator[None]:
    """Products inside are faster where possible, and as exact as outside. Applies to the whole process meanwhile."""
    if not onednn_is_exact():
        yield
        return
    with _onednn():
        yield


def unembed(
    final_ND: torch.Tensor,
    W_U_DV: torch.Tensor,
    b_U_V: torch.Tensor,
    cap: float | None = None,
    *,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """(N, V) float32 logits `final W_U + b_U`, capped where the model caps them; into `out` where it is given.

    Where W_U is float32 nothing is rounded on the way, whatever the dtype of the rows. Where rows and W_U have 16 bits,
    so have the logits, which are then turned into float32.
    """
    if W_U_DV.dtype == torch.float32:
        with contextlib.nullcontext() if final_ND.dtype == torch.float32 else _tf32():
            return soft_capped(torch.addmm(b_U_V, final_ND.float(), W_U_DV, out=out), cap)
    logits_NV = torch.addmm(b_U_V, final_ND, W_U_DV)
    return soft_capped(logits_NV.float() if out is None else out.copy_(logits_NV), cap)


def soft_capped(logits: torch.Tensor, cap: float | None) -> torch.Tensor:
    """`cap tanh(logits / cap)`, in the place of the logits; as they are where the model has no cap (Gemma 2, arXiv
    2408.00118, section 2)."""
    if cap is None:
        return logits
    if logits.requires_grad:  # a gradient needs what would be overwritten
        return cap * torch.tanh(logits / cap)
    return logits.div_(cap).tanh_().mul_(cap)


@contextlib.contextmanager
def _tf32() -> Iterator[None]:
    """On CUDA, factors are cut to the 11 bits of TF32, which hold every number of a model in 16 bits. Sums stay float32."""
    switch: Any = torch.backends.cuda.matmul
    name, fast = (
        ("fp32_precision", "tf32") if hasattr(torch.backends, "fp32_precision") else ("allow_tf32", True)
    )
    with replaced(switch, name, fast):
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
