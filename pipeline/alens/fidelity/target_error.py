"""What compressed targets keep of the exact distributions, and how far they are from them.

In: rows of a cache; all but the kept mass needs the exact teacher. Out: the kept mass by k, the rounding error of float16
log-probabilities, and KL(stored || exact) of any form of targets, computed as stage one computes them. KL in this
direction is finite, because every token of a target has probability in the exact distribution. It is not an error of a
fit: the draws are unbiased (the idea of "Sparse Logit Sampling", arXiv 2503.16870).
Shapes: N rows, B rows of a block, K top-k, M tail samples, J = K + M, D d_model, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from alens import randomness
from alens.cache.target_compression import Workspace, compress
from alens.fidelity.forms import TargetForm
from alens.fidelity.sample import RowSample
from alens.job.progress import ShouldStop, never
from alens.machine.blocks import logit_blocks, row_blocks
from alens.machine.products import unembed
from alens.rows.teacher import CompressedTeacher
from alens.statistics.divergences import kl_to_log_probs, kl_with_tail
from alens.store.cache_reader import Cache, Targets
from alens.store.schema import Plan
from alens.store.values import Array

RowsDone = Callable[[int], None]
"""Called with the number of further rows that are done; what it raises ends the work."""

BEYOND = (128, 256, 512)
"""Values of k beyond the stored one that the kept mass is given for; this needs the exact teacher."""


def _uncounted(_: int) -> None:
    """For callers that do not watch."""


@dataclass(frozen=True, kw_only=True)
class KeptMass:
    """The probability of the k most probable tokens, over rows."""

    k: int
    mean: float
    percentile_10: float
    """One row in ten keeps less than this."""


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """What float16 does to the log-probabilities of the stored top k, in nats."""

    mean: float
    largest: float
    kl: float
    """KL(rounded || not rounded), mean over rows; the mass outside the top k changes too."""


@dataclass(frozen=True)
class ExactDistributions:
    """Makes exact distributions from final residuals."""

    W_U_DV: torch.Tensor
    b_U_V: torch.Tensor
    cap: float | None
    """The model's logit cap."""

    @classmethod
    def of(cls, cache: Cache, device: torch.device) -> "ExactDistributions":
        W_U_DV, b_U_V = (torch.from_numpy(cache.weights(name)).to(device) for name in ("W_U", "b_U"))
        return cls(W_U_DV, b_U_V, cache.plan.model.logit_cap)

    def log_probs(self, final_ND: Array) -> Iterator[tuple[slice, torch.Tensor]]:
        """(rows, (B, V) float64 log-probabilities), block by block."""
        device = self.b_U_V.device
        for rows in row_blocks(len(final_ND), device):
            final_BD = torch.from_numpy(final_ND[rows]).to(device).float()
            yield rows, unembed(final_BD, self.W_U_DV, self.b_U_V, self.cap).double().log_softmax(-1)

    def most_probable(self, final_ND: Array, k: int, rows_done: RowsDone = _uncounted) -> torch.Tensor:
        """(N, k) float64: the largest log-probabilities of each row, descending."""
        parts = []
        for rows, log_BV in self.log_probs(final_ND):
            parts.append(log_BV.topk(k, dim=-1).values.cpu())
            rows_done(rows.stop - rows.start)
        return torch.cat(parts)


def largest_k(sample: RowSample) -> int:
    """The largest k that the kept mass is given for, where the exact distributions are known."""
    settings, d_vocab = sample.cache.plan.settings, sample.cache.plan.model.d_vocab
    return max([settings.top_k, *(k for k in BEYOND if k <= d_vocab)])


def kept_mass(sample: RowSample, top_NK: torch.Tensor | None) -> list[KeptMass]:
    """For k = 1, 2, 4, ... and the stored k; with the exact `most_probable` tokens also for larger k."""
    stored = sample.cache.plan.settings.top_k
    ks = sorted({2**power for power in range(stored.bit_length()) if 2**power < stored} | {stored})
    if top_NK is None:
        probs_NK = np.exp(sample.read("targets/log_probs").astype(np.float64))
        mass_NK = np.minimum(probs_NK.cumsum(1), 1.0)  # float16 may round the sum above 1
    else:
        ks += [k for k in BEYOND if stored < k <= top_NK.shape[1]]
        mass_NK = top_NK.exp().cumsum(1).numpy()
    return [
        KeptMass(
            k=k,
            mean=float(mass_NK[:, k - 1].mean()),
            percentile_10=float(np.percentile(mass_NK[:, k - 1], 10)),
        )
        for k in ks
    ]


def rounding(log_NK: torch.Tensor) -> Rounding:
    """The effect of float16 on the log-probabilities of the stored k, computed from the exact teacher."""
    rounded_NK = log_NK.half().double()
    error_NK = (rounded_NK - log_NK).abs()
    # The draws of both have the same ids, each 1/m of the tail: duplicates need no merging.
    top_NK = rounded_NK.exp()
    scale_N1 = top_NK.sum(1, keepdim=True).clamp_min(1.0)  # as `CompressedTeacher` reads them
    tail_N = (1.0 - (top_NK / scale_N1).sum(1)).clamp_min(0.0)
    true_tail_N = (1.0 - log_NK.exp().sum(1)).clamp_min(1e-300)
    log_p_NK = rounded_NK - scale_N1.log()
    kl_N = kl_with_tail(top_NK / scale_N1, log_p_NK, log_NK, tail_N, true_tail_N)
    return Rounding(mean=float(error_NK.mean()), largest=float(error_NK.max()), kl=float(kl_N.mean()))


def kl_to_exact(
    forms: Sequence[Targets], final_ND: Array, exact: ExactDistributions, rows_done: RowsDone = _uncounted
) -> npt.NDArray[np.float64]:
    """(forms, N) nats: KL(stored || exact) of each row, for targets of the same rows in several forms.

    The exact distributions of a block of rows are made once for all forms.
    """
    teachers = [CompressedTeacher.from_targets(targets, exact.b_U_V.device) for targets in forms]
    parts = []
    for rows, log_BV in exact.log_probs(final_ND):
        kls_FB = []
        for block in (teacher.block(rows) for teacher in teachers):
            stored_BV = torch.zeros_like(log_BV).scatter_add_(1, block.ids_BJ, block.weights_BJ.double())
            kls_FB.append(kl_to_log_probs(stored_BV, log_BV).cpu().numpy())
        parts.append(np.stack(kls_FB))
        rows_done(rows.stop - rows.start)
    return np.concatenate(parts, axis=1)


def remade_targets(
    form: TargetForm,
    final_ND: Array,
    exact: ExactDistributions,
    uniforms_NM: npt.NDArray[np.float64],
    should_stop: ShouldStop = never,
) -> Targets | None:
    """Targets of another form, by the code of stage one; None when `should_stop` says so.

    The final residual was stored in float16, so the stored form is reproduced up to rounding.
    """
    device = exact.b_U_V.device
    uncounted_V = torch.zeros(len(exact.b_U_V), dtype=torch.float64, device=device)
    blocks, workspace = [], Workspace()
    for rows in logit_blocks(len(final_ND), len(exact.b_U_V), device):
        if should_stop():
            return None
        compressed = compress(
            torch.from_numpy(final_ND[rows]).to(device).float(),
            exact.W_U_DV,
            exact.b_U_V,
            torch.from_numpy(uniforms_NM[rows]).to(device),
            form.top_k,
            torch.zeros(rows.stop - rows.start, dtype=torch.bool, device=device),
            uncounted_V,
            workspace,
            cap=exact.cap,
        )
        blocks.append(compressed)

    def whole(name: str, dtype: str) -> Array:
        return np.concatenate([getattr(block, name).cpu().numpy().astype(dtype) for block in blocks])

    return Targets(
        ids_NK=whole("ids_NK", "uint32"),
        log_probs_NK=whole("log_probs_NK", "float16"),
        logsumexp_N=whole("logsumexp_N", "float32"),
        entropy_N=whole("entropy_N", "float32"),
        tail_ids_NM=whole("tail_ids_NM", "uint32"),
    )


def tail_uniforms(
    plan: Plan, row_numbers_N: npt.NDArray[np.int64], tail_samples: int
) -> npt.NDArray[np.float64]:
    """(N, M): the uniform numbers that stage one draws the tails of these rows with, shard by shard."""
    settings = plan.settings
    out = np.empty((len(row_numbers_N), tail_samples))
    shard_of = row_numbers_N // settings.rows_per_shard
    for shard in np.unique(shard_of):
        here, first = shard_of == shard, int(shard) * settings.rows_per_shard
        drawn = randomness.row_uniforms(
            first, settings.rows_per_shard, tail_samples, settings.seed, randomness.TAIL_SAMPLES
        )
        out[here] = drawn[row_numbers_N[here] - first]
    return out
