"""Targets with fewer entries than were cached: as if the cache had kept a smaller k and fewer tail samples.

In: `Targets` with K and M entries, and the numbers of their rows. Out: `Targets` with k <= K and m <= M, from the same
distribution that stage one draws them from. A tail sample is now one of the entries k to K, whose probabilities are
known, or else one of the cached tail samples.
Shapes: N rows, K and M as cached, k and m as wanted.
"""

import dataclasses

import numpy as np
import numpy.typing as npt

from alens import randomness
from alens.errors import RequestError
from alens.store.cache_reader import Targets


@dataclasses.dataclass(frozen=True, kw_only=True)
class Narrow:
    """How many entries of the cached targets are used, and the seed of the draws."""

    top_k: int
    tail_samples: int
    seed: int

    def check(self, cached_k: int, cached_m: int) -> None:
        """Raises `RequestError` for more than was cached."""
        for name, wanted, cached in (
            ("top_k", self.top_k, cached_k),
            ("tail_samples", self.tail_samples, cached_m),
        ):
            if not 1 <= wanted <= cached:
                raise RequestError(
                    f"{name} is {wanted}: the cache has targets with {cached}, take 1 to {cached}"
                )

    def apply(self, targets: Targets, rows_N: npt.NDArray[np.int64]) -> Targets:
        """Targets of the same rows with fewer entries; `rows_N` are the rows' numbers in the text."""
        k, m = self.top_k, self.tail_samples
        if (k, m) == (targets.ids_NK.shape[1], targets.tail_ids_NM.shape[1]):
            return targets
        probs_NK = np.exp(targets.log_probs_NK.astype(np.float64))
        rest_N1 = np.maximum(1.0 - probs_NK[:, :k].sum(1, keepdims=True), 1e-12)
        middle_Nk = np.cumsum(probs_NK[:, k:], axis=1) / rest_N1
        uniforms_Nm = randomness.scattered_uniforms(rows_N, m, self.seed, randomness.NARROWED_TAIL)
        place_Nm = (uniforms_Nm[:, :, None] >= middle_Nk[:, None, :]).sum(-1)
        chosen_Nm = np.take_along_axis(
            targets.ids_NK, np.minimum(k + place_Nm, targets.ids_NK.shape[1] - 1), axis=1
        )
        in_middle_Nm = place_Nm < middle_Nk.shape[1]
        return dataclasses.replace(
            targets,
            ids_NK=targets.ids_NK[:, :k],
            log_probs_NK=targets.log_probs_NK[:, :k],
            tail_ids_NM=np.where(in_middle_Nm, chosen_Nm, targets.tail_ids_NM[:, :m]),
        )
