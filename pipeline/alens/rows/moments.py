"""Means and covariances of the values of heads and of the residual stream: the one place that computes them.

In: values of some rows, or the sums of them that stage one keeps shard by shard. Out: means and covariances, in numpy
or torch like the input; or the sums, for code that stores them.
Shapes: N rows, B sequences of T tokens, L layers, H heads, E width of the values (d_head for z, d_model for a site of
the residual stream), V vocabulary.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from alens.rows.columns import RowReader
from alens.store.arrays import site_name, statistic_name
from alens.store.cache_reader import Cache

log = logging.getLogger("alens")

Array = npt.NDArray[np.float64]
Values = TypeVar("Values", Array, torch.Tensor)

ROWS_PER_NUMBER = 64
"""Rows for each of the E dimensions of a site: the smallest directions of a covariance need some."""

SPREAD_ROUNDING, MEAN_ROUNDING = 1e-6, 1e-12
"""Shares of a head's largest variance and of its squared mean by which rounding may take an eigenvalue below zero."""


@dataclass(frozen=True, kw_only=True)
class CacheMoments:
    """Moments over the rows at position 1 and later of some shards."""

    num_rows: int
    mean_LHE: Array
    covariance_LHEE: Array
    mean_output_V: Array
    """The mean of the model's final distributions; sums to 1."""


def sums(values_HNE: Values) -> tuple[Values, Values]:
    """(H, E) sum and (H, E, E) sum of outer products."""
    return values_HNE.sum(1), values_HNE.swapaxes(1, 2) @ values_HNE


def of_sums(sum_HE: Values, outer_HEE: Values, rows: int) -> tuple[Values, Values]:
    """Mean and covariance from sums over so many rows; any leading axes."""
    mean_HE = sum_HE / rows
    return mean_HE, outer_HEE / rows - mean_HE[..., :, None] * mean_HE[..., None, :]


def of_values(values_NHE: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(H, E) mean and (H, E, E) covariance, float64, summed around the mean."""
    values_NHE = values_NHE.double()
    mean_HE = values_NHE.mean(0)
    around_HNE = (values_NHE - mean_HE).transpose(0, 1)
    return mean_HE, around_HNE.mT @ around_HNE / len(values_NHE)


def of_site(reader: RowReader, layer: int, shards: Sequence[int]) -> tuple[Array, Array]:
    """(1, E) mean and (1, E, E) covariance of a site that stage one keeps no sums of: `resid_post`, `mlp_out`.

    Computed over enough rows of the first shards, as if the site were a single head.
    """
    name = site_name(layer, reader.site)
    total, outer, count = np.zeros(1), np.zeros(1), 0
    for shard in shards:
        values_1NE = reader.shard(shard).by_name[name].swapaxes(0, 1).astype(np.float64)
        sum_1E, outer_1EE = sums(values_1NE)
        total, outer, count = total + sum_1E, outer + outer_1EE, count + values_1NE.shape[1]
        if count >= ROWS_PER_NUMBER * values_1NE.shape[2]:
            break
    return of_sums(total, outer, count)


def of_cache(cache: Cache, layers: Sequence[int], shards: Sequence[int]) -> CacheMoments:
    """Moments of z, and the mean output, over `shards`, from the sums that stage one keeps."""
    cache.check_layers(layers)
    settings = cache.plan.settings
    num_rows = len(shards) * settings.sequences_per_shard * (settings.seq_len - 1)
    sum_LHE, outer_LHEE = (
        np.stack([cache.summed(statistic_name(layer, which), shards) for layer in layers])
        for which in ("sum", "outer")
    )
    output_V = cache.summed("stats/output", shards)
    mean_LHE, covariance_LHEE = of_sums(sum_LHE, outer_LHEE, num_rows)
    warn_of_unsound(cache.root, layers, mean_LHE, covariance_LHEE)
    return CacheMoments(
        num_rows=num_rows,
        mean_LHE=mean_LHE,
        covariance_LHEE=covariance_LHEE,
        mean_output_V=output_V / output_V.sum(),
    )


def warn_of_unsound(
    root: Path, layers: Sequence[int], mean_LHE: npt.NDArray[Any], covariance_LHEE: npt.NDArray[Any]
) -> None:
    """Warn of heads whose covariance has an eigenvalue below zero by more than rounding.

    Caches from before NUMERICS 3 hold float32 sums around zero, which lose the spread of a head whose mean is far above
    it.
    """
    variance_LHE = np.linalg.eigvalsh(covariance_LHEE)
    rounding_LH = SPREAD_ROUNDING * variance_LHE[..., -1] + MEAN_ROUNDING * np.square(mean_LHE).max(-1)
    wrong = [f"{layers[layer]}.{head}" for layer, head in np.argwhere(variance_LHE[..., 0] < -rounding_LH)]
    if wrong:
        log.warning(
            "%s: the covariance of z is wrong for %s (an older alens summed it in float32, and their mean is far "
            "above their spread): their lenses and bases are wrong too; cache the text again",
            root,
            ", ".join(wrong),
        )


class MomentSums:
    """Sums over the rows at position 1 and later, a batch at a time: float32 a batch, float64 in all.

    Batches are summed around the mean of the first one. Around zero, float32 loses the spread of a head whose mean is
    far above it: the covariance of one with a mean of 300 had negative eigenvalues.
    """

    def __init__(self, num_heads: int, width: int, seq_len: int, device: torch.device) -> None:
        self.T, self.device, self.rows = seq_len, device, 0
        self.shift_HE: torch.Tensor | None = None
        self.sum_HE = torch.zeros(num_heads, width, dtype=torch.float64, device=device)
        self.outer_HEE = torch.zeros(num_heads, width, width, dtype=torch.float64, device=device)

    def add(self, z_NHE: torch.Tensor) -> None:
        """`z_NHE` holds whole sequences, in order."""
        z_NHE = z_NHE.to(self.device, torch.float32, copy=True)
        z_BTHE = z_NHE.unflatten(0, (-1, self.T))
        if self.shift_HE is None:
            self.shift_HE = z_BTHE[:, 1:].sum((0, 1)) / max(1, len(z_BTHE) * (self.T - 1))
        z_NHE -= self.shift_HE
        z_BTHE[:, 0] = 0.0
        z_HNE = z_NHE.transpose(0, 1)
        self.sum_HE += z_NHE.sum(0)
        self.outer_HEE += torch.bmm(z_HNE.transpose(1, 2), z_HNE)
        self.rows += len(z_BTHE) * (self.T - 1)

    def sums(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(H, E) sum and (H, E, E) sum of outer products, of z as it is; float64."""
        if self.shift_HE is None:
            return self.sum_HE, self.outer_HEE
        shift_HE = self.shift_HE.double()
        cross_HEE = shift_HE[:, :, None] * (self.sum_HE + self.rows * shift_HE / 2)[:, None, :]
        return self.sum_HE + self.rows * shift_HE, self.outer_HEE + cross_HEE + cross_HEE.mT
