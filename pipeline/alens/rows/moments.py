"""Means and covariances of the values of heads and of the residual stream: with `moment_sums.py`, the one place that
computes them.

In: values of some rows, or the sums of them that stage one keeps shard by shard. Out: means and covariances, in numpy
or torch like the input; or the sums, for code that stores them.
Shapes: N rows, B sequences of T tokens, L layers, H heads, E width of the values (d_head for z, d_model for a site of
the residual stream), V vocabulary.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from alens.heads import Heads
from alens.store.arrays import scale_name, site_name, statistic_name
from alens.store.cache_reader import ENOUGH_SHARDS, Cache
from alens.store.encoding import unscaled

if TYPE_CHECKING:  # what stage one keeps is added up without torch, for `alens info`
    import torch

    from alens.rows.columns import RowReader
    from alens.rows.moment_sums import FinalSums

log = logging.getLogger("alens")

Array = npt.NDArray[np.float64]
Values = TypeVar("Values", Array, "torch.Tensor")

ROWS_PER_NUMBER = 64
"""Rows for each of the E dimensions of a site: the smallest directions of a covariance need some."""

ROWS_PER_PRODUCT = 4096
"""Rows of one float32 product of z with the final residual; their sum is float64."""

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


@dataclass(frozen=True, kw_only=True)
class CrossMoments:
    """Moments of z of the heads of a layer with the final residual, over the same rows; float64."""

    num_rows: int
    mean_HE: Array
    covariance_HEE: Array
    cross_HED: Array
    """The covariance of z with the final residual."""
    mean_final_D: Array
    variance_final_D: Array

    @classmethod
    def from_tensors(
        cls,
        num_rows: int,
        mean_HE: "torch.Tensor",
        covariance_HEE: "torch.Tensor",
        cross_HED: "torch.Tensor",
        final: "FinalSums",
    ) -> Self:
        """The same from tensors."""
        return cls(
            num_rows=num_rows,
            mean_HE=mean_HE.numpy(),
            covariance_HEE=covariance_HEE.numpy(),
            cross_HED=cross_HED.numpy(),
            mean_final_D=final.mean_D.numpy(),
            variance_final_D=final.variance_D.numpy(),
        )


def sums(values_HNE: Values) -> tuple[Values, Values]:
    """(H, E) sum and (H, E, E) sum of outer products."""
    return values_HNE.sum(1), values_HNE.swapaxes(1, 2) @ values_HNE


def of_sums(sum_HE: Values, outer_HEE: Values, rows: int) -> tuple[Values, Values]:
    """Mean and covariance from sums over so many rows; any leading axes."""
    mean_HE = sum_HE / rows
    return mean_HE, outer_HEE / rows - mean_HE[..., :, None] * mean_HE[..., None, :]


def of_values(values_NHE: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """(H, E) mean and (H, E, E) covariance, float64, summed around the mean."""
    values_NHE = values_NHE.double()
    mean_HE = values_NHE.mean(0)
    around_HNE = (values_NHE - mean_HE).transpose(0, 1)
    return mean_HE, around_HNE.mT @ around_HNE / len(values_NHE)


def of_site(reader: "RowReader", layer: int, shards: Sequence[int]) -> tuple[Array, Array]:
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


def mean_z(cache: Cache, heads: Heads, shards: Sequence[int] | None = None) -> "dict[int, torch.Tensor]":
    """By layer, (H, E) float32: E[z] of these heads over the rows at position 1 and later of `shards`.

    By default of the first `ENOUGH_SHARDS`.
    """
    import torch

    cache.check_layers(heads.layers)
    cache.check_heads(heads.columns)
    shards = cache.shards[:ENOUGH_SHARDS] if shards is None else shards
    settings = cache.plan.settings
    num_rows = len(shards) * settings.sequences_per_shard * (settings.seq_len - 1)
    return {
        layer: torch.from_numpy(
            (cache.summed(statistic_name(layer, "sum"), shards)[list(numbers)] / num_rows).astype(np.float32)
        )
        for layer, numbers in heads.by_layer.items()
    }


def cross_of_cache(cache: Cache, heads: Heads, shards: Sequence[int]) -> dict[int, CrossMoments]:
    """By layer, moments of z of these heads with the final residual over `shards`, from what stage one keeps."""
    cache.check_layers(heads.layers)
    cache.check_heads(heads.columns)
    settings = cache.plan.settings
    size = settings.sequences_per_shard * (settings.seq_len - 1)
    num_rows = size * len(shards)
    final_SD = np.stack([cache.read_shard("stats/final/sum", shard)[0] for shard in shards])
    mean_final_D = final_SD.sum(0) / num_rows
    apart_SD = final_SD / size - mean_final_D
    """The mean of each shard beside that of all."""
    variance_final_D = cache.summed("stats/final/squares", shards) / num_rows + np.square(apart_SD).mean(0)
    by_layer = {}
    for layer, numbers in heads.by_layer.items():
        chosen = np.asarray(numbers)
        sum_SHE = np.stack(
            [cache.read_shard(statistic_name(layer, "sum"), shard)[0, chosen] for shard in shards]
        )
        outer_HEE = cache.summed(statistic_name(layer, "outer"), shards)[chosen]
        mean_HE, covariance_HEE = of_sums(sum_SHE.sum(0), outer_HEE, num_rows)
        within_HED = _summed_products(cache, layer, shards)[chosen] / num_rows
        between_HED = np.einsum("she,sd->hed", sum_SHE / size - mean_HE, apart_SD) / len(shards)
        by_layer[layer] = CrossMoments(
            num_rows=num_rows,
            mean_HE=mean_HE,
            covariance_HEE=covariance_HEE,
            cross_HED=within_HED + between_HED,
            mean_final_D=mean_final_D,
            variance_final_D=variance_final_D,
        )
    return by_layer


def _summed_products(cache: Cache, layer: int, shards: Sequence[int]) -> Array:
    """(H, E, D) products of z with the final residual, around the means of each shard."""
    total = np.zeros(1)
    for shard in shards:
        cross_HED, scale_H = (
            cache.read_shard(statistic_name(layer, which), shard)[0] for which in ("cross", "cross_scale")
        )
        total = total + unscaled(cross_HED, scale_H)
    return total


def cross_of_rows(
    cache: Cache, heads: Heads, shards: Sequence[int], num_rows: int
) -> dict[int, CrossMoments]:
    """By layer, moments of z of these heads with the final residual, over the first `num_rows` rows of `shards`.

    Raises `RequestError` for a cache without the exact teacher.
    """
    import torch

    from alens.rows.moment_sums import FinalSums, MomentSums

    cache.check_layers(heads.layers)
    cache.check_heads(heads.columns)
    device = torch.device("cpu")
    d_head, d_model = cache.plan.model.d_head, cache.plan.model.d_model
    final = FinalSums(d_model, device)
    sums = {
        layer: MomentSums(len(numbers), d_head, None, device, d_model)
        for layer, numbers in heads.by_layer.items()
    }
    left = num_rows
    for shard in shards:
        names = [site_name(layer) for layer in heads.layers]
        if cache.plan.settings.z_dtype == "int8":
            names += [scale_name(layer) for layer in heads.layers]
        cache.check_files(shard, ["targets/final", *names])
        usable_N = np.flatnonzero(cache.read_shard("rows/position", shard) >= 1)[:left]
        left -= len(usable_N)
        first = shard * cache.plan.settings.rows_per_shard
        for start in range(0, len(usable_N), ROWS_PER_PRODUCT):
            block_N = usable_N[start : start + ROWS_PER_PRODUCT]
            rows, keep_N = slice(first + int(block_N[0]), first + int(block_N[-1]) + 1), block_N - block_N[0]
            centred_ND = final.add(torch.from_numpy(cache.read("targets/final", rows)[keep_N]))
            for layer, numbers in heads.by_layer.items():
                z_NHE = cache.z(layer, rows)[keep_N[:, None], np.asarray(numbers)]
                sums[layer].add(torch.from_numpy(z_NHE), centred_ND)
        if not left:
            break
    return {
        layer: CrossMoments.from_tensors(num_rows - left, *of_z.covariance(), of_z.cross(final), final)
        for layer, of_z in sums.items()
    }


def warn_of_unsound(
    root: Path | str, layers: Sequence[int], mean_LHE: npt.NDArray[Any], covariance_LHEE: npt.NDArray[Any]
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
