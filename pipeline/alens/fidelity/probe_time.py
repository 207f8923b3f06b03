"""How long the fits of a probe take by the clock, before they begin: from steps of one layer that are timed.

In: a cache, the heads and rows of a probe, its fits, a device. Out: seconds. What is timed is the code that takes nearly
all of a fit: loss and gradient of a layer's heads, the loss alone, and the exact distributions; on random numbers, for
only shapes matter. Lenses that converge early make it shorter, other work on the machine longer.
Shapes: N rows, H heads, E d_head, D d_model, J entries of a compressed target, V vocabulary.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from alens.fidelity.probe_fits import Rows, Variant
from alens.fit.convergence import evaluation_steps
from alens.fit.objectives.forward_kl import forward_kl
from alens.fit.settings import FitSettings
from alens.heads import Heads
from alens.rows.teacher import CompressedTeacher, ExactTeacher
from alens.store.cache_reader import Cache

TIMED_ROWS = 256

JUDGINGS = 2
"""After its last evaluation a fit takes figures of its lenses, and the probe judges them."""


@dataclass(frozen=True, kw_only=True)
class ProbeRates:
    """Seconds a row."""

    step: float
    """Loss and gradient of the heads of one layer."""
    loss: float
    """Their loss alone."""
    exact: float
    """The exact distribution, which all layers share; 0 without the exact teacher."""


def probe_seconds(
    cache: Cache, heads: Heads, rows: Rows, variants: Sequence[Variant], rates: ProbeRates
) -> float:
    """Seconds that these fits and their judging take, at the rates of as many heads as a layer has."""
    settings = FitSettings()
    trained = usable_rows(cache, rows.train) * settings.epochs
    judged = usable_rows(cache, rows.held_out)
    evaluations = len(evaluation_steps(max(1, int(trained) // settings.batch_rows)))
    seconds = 0.0
    for _, _, targets in variants:
        exact = rates.exact if targets is None else 0.0
        seconds += trained * (len(heads.layers) * rates.step + exact)
        seconds += judged * evaluations * (len(heads.layers) * rates.loss + exact)
        seconds += judged * JUDGINGS * (len(heads.layers) * rates.loss + rates.exact)
    return seconds


def usable_rows(cache: Cache, shards: Sequence[int]) -> int:
    """How many rows these shards have at position 1 and later."""
    settings = cache.plan.settings
    return len(shards) * settings.sequences_per_shard * (settings.seq_len - 1)


def measured_rates(cache: Cache, num_heads: int, device: torch.device) -> ProbeRates:
    """Time `TIMED_ROWS` rows of `num_heads` heads of one layer."""
    model, settings = cache.plan.model, cache.plan.settings
    entries = settings.top_k + settings.tail_samples
    compressed = CompressedTeacher(
        torch.randint(model.d_vocab, (TIMED_ROWS, entries), device=device),
        torch.full((TIMED_ROWS, entries), 1.0 / entries, device=device),
        torch.zeros(TIMED_ROWS, device=device),
    )
    z_HNE = torch.randn(num_heads, TIMED_ROWS, model.d_head, device=device)
    weight_HEV = torch.zeros(num_heads, model.d_head, model.d_vocab, device=device, requires_grad=True)
    bias_HV = torch.zeros(num_heads, model.d_vocab, device=device, requires_grad=True)

    def step() -> None:
        weight_HEV.grad = bias_HV.grad = None
        forward_kl(z_HNE, weight_HEV, bias_HV, compressed).sum().backward()

    def loss() -> None:
        with torch.no_grad():
            forward_kl(z_HNE, weight_HEV, bias_HV, compressed)

    step_s, loss_s = _seconds(step, device), _seconds(loss, device)
    exact_s = 0.0
    if settings.exact_teacher:
        W_U_DV, b_U_V = (torch.from_numpy(cache.weights(name)).to(device) for name in ("W_U", "b_U"))
        final_ND = torch.randn(TIMED_ROWS, model.d_model, device=device)
        exact = ExactTeacher(final_ND, W_U_DV, b_U_V, compressed.entropies, cap=model.logit_cap)
        exact_s = _seconds(lambda: exact.block(slice(0, TIMED_ROWS)), device)
    return ProbeRates(step=step_s / TIMED_ROWS, loss=loss_s / TIMED_ROWS, exact=exact_s / TIMED_ROWS)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the second of two runs: the first one allocates, or compiles."""
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - began
    return seconds
