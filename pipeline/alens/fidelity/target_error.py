"""What compressed targets keep of the exact distributions, and how far they are from them.

In: rows of a cache; all but the kept mass needs the exact teacher. Out: the kept mass by k, the rounding error of float16
log-probabilities, and KL(stored || exact) of any form of targets, computed as stage one computes them. KL in this
direction is finite, because every token of a target has probability in the exact distribution. It is not an error of a
fit: the draws are unbiased (the idea of "Sparse Logit Sampling", arXiv 2503.16870).
Shapes: N rows, B rows of a block, K top-k, M tail samples, J = K + M, D d_model, V vocabulary.
"""

from collections.abc import Iterator
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
from alens.rows.teacher import CompressedTeacher
from alens.statistics.divergences import kl_to_log_probs, kl_with_tail
from alens.store.cache_reader import Cache, Targets
from alens.store.schema import Plan
from alens.store.values import Array

BEYOND = (128, 256, 512)
"""Values of k beyond the stored one that the kept mass is given for; this needs the exact teacher."""


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

    @classmethod
    def of(cls, cache: Cache, device: torch.device) -> "ExactDistributions":
        W_U_DV, b_U_V = (torch.from_numpy(cache.weights(name)).to(device) for name in ("W_U", "b_U"))
        return cls(W_U_DV, b_U_V)

    def log_probs(self, final_ND: Array) -> Iterator[tuple[slice, torch.Tensor]]:
        """(rows, (B, V) float64 log-probabilities), block by block."""
        device = self.b_U_V.device
        for rows in row_blocks(len(final_ND), device):
            final_BD = torch.from_numpy(final_ND[rows]).to(device).float()
            yield rows, torch.addmm(self.b_U_V, final_BD, self.W_U_DV).double().log_softmax(-1)


def kept_mass(sample: RowSample, exact: ExactDistributions | None) -> list[KeptMass]:
    """For k = 1, 2, 4, ... and the stored k; with the exact teacher also for larger k."""
    stored = sample.cache.plan.settings.top_k
    ks = sorted({2**power for power in range(stored.bit_length()) if 2**power < stored} | {stored})
    if exact is None:
        probs_NK = np.exp(sample.read("targets/log_probs").astype(np.float64))
        mass_NK = np.minimum(probs_NK.cumsum(1), 1.0)  # float16 may round the sum above 1
    else:
        ks += [k for k in BEYOND if stored < k <= sample.cache.plan.model.d_vocab]
        blocks = exact.log_probs(sample.read("targets/final"))
        parts = [log_BV.topk(ks[-1], dim=-1).values.exp().cumsum(-1).cpu().numpy() for _, log_BV in blocks]
        mass_NK = np.concatenate(parts)
    return [
        KeptMass(
            k=k,
            mean=float(mass_NK[:, k - 1].mean()),
            percentile_10=float(np.percentile(mass_NK[:, k - 1], 10)),
        )
        for k in ks
    ]


def rounding(sample: RowSample, exact: ExactDistributions) -> Rounding:
    """The effect of float16 at the stored k, on log-probabilities that are computed from the exact teacher."""
    k = sample.cache.plan.settings.top_k
    error_sum, largest, kl_sum = 0.0, 0.0, 0.0
    for _, log_BV in exact.log_probs(sample.read("targets/final")):
        log_BK = log_BV.topk(k, dim=-1).values
        rounded_BK = log_BK.half().double()
        error_BK = (rounded_BK - log_BK).abs()
        error_sum, largest = error_sum + float(error_BK.sum()), max(largest, float(error_BK.max()))
        # The draws of both have the same ids, each 1/m of the tail: duplicates need no merging.
        top_BK = rounded_BK.exp()
        scale_B1 = top_BK.sum(1, keepdim=True).clamp_min(1.0)  # as `CompressedTeacher` reads them
        tail_B = (1.0 - (top_BK / scale_B1).sum(1)).clamp_min(0.0)
        true_tail_B = (1.0 - log_BK.exp().sum(1)).clamp_min(1e-300)
        log_p_BK = rounded_BK - scale_B1.log()
        kl_B = kl_with_tail(top_BK / scale_B1, log_p_BK, log_BK, tail_B, true_tail_B)
        kl_sum += float(kl_B.sum())
    return Rounding(mean=error_sum / (len(sample) * k), largest=largest, kl=kl_sum / len(sample))


def kl_to_exact(targets: Targets, final_ND: Array, exact: ExactDistributions) -> npt.NDArray[np.float64]:
    """(N,) nats: KL(stored || exact) of each row."""
    teacher = CompressedTeacher.from_targets(targets, exact.b_U_V.device)
    parts = []
    for rows, log_BV in exact.log_probs(final_ND):
        block = teacher.block(rows)
        stored_BV = torch.zeros_like(log_BV).scatter_add_(1, block.ids_BJ, block.weights_BJ.double())
        parts.append(kl_to_log_probs(stored_BV, log_BV).cpu().numpy())
    return np.concatenate(parts)


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
