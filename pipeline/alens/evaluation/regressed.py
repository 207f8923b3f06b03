"""Baselines that are regressed in closed form, on rows that are not judged.

In: a cache and the shards that no row is judged on. Out: maps, as `lens.closed_form` makes them:

    of the heads               what least squares say of z, where lenses were fitted longer
    of random directions       of the residual stream after a layer, as many as a head has: what any directions would say

Shapes: N rows, E d_head, D d_model, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from alens.evaluation.baselines import PartValues, stream_columns
from alens.evaluation.readings import Readings, lens_reading
from alens.heads import Heads
from alens.lens.closed_form import ClosedForm, closed_form, regress
from alens.lens.maps import AffineMaps
from alens.lens.whitening import Whitening
from alens.machine.blocks import slices
from alens.rows.moment_sums import FinalSums, MomentSums
from alens.rows.moments import ROWS_PER_PRODUCT, CrossMoments
from alens.store.cache_reader import Cache
from alens.store.schema import RESIDUAL_STREAM

ROWS = 16_384
"""Rows that the regression on random directions reads: 256 a direction of a head of 64."""


def regressed_heads(
    cache: Cache, heads: Heads, shards: Sequence[int], W_U_DV: torch.Tensor, log_mean_V: torch.Tensor
) -> dict[int, AffineMaps]:
    """By layer, the closed form of each head over these shards."""
    closed = closed_form(cache, heads, shards)
    return {layer: _affine(of_layer, W_U_DV, log_mean_V) for layer, of_layer in closed.items()}


@dataclass(frozen=True, kw_only=True)
class RandomDirections:
    """A reading of each layer: the final residual regressed on random directions of the stream after it."""

    directions: Mapping[int, torch.Tensor]
    """By layer, (D, E) orthonormal."""
    maps: Mapping[int, AffineMaps]

    @classmethod
    def drawn(
        cls,
        cache: Cache,
        layers: Sequence[int],
        shards: Sequence[int],
        W_U_DV: torch.Tensor,
        log_mean_V: torch.Tensor,
        seed: int,
    ) -> "RandomDirections":
        """Directions drawn with `seed`, and their maps over these shards."""
        model = cache.plan.model
        directions, maps = {}, {}
        for layer in layers:
            generator = torch.Generator().manual_seed(seed * model.n_layers + layer)
            drawn_DE = torch.randn(model.d_model, model.d_head, generator=generator)
            directions[layer] = torch.linalg.qr(drawn_DE).Q
            closed = regress(_moments(cache, layer, directions[layer], shards))
            maps[layer] = _affine(closed, W_U_DV, log_mean_V)
        on_device = {layer: drawn_DE.to(W_U_DV.device) for layer, drawn_DE in directions.items()}
        return cls(directions=on_device, maps=maps)

    def columns(self, layers: Sequence[int]) -> Sequence[str]:
        return stream_columns(layers)

    def reading(self, values: PartValues, layer: int, head: int) -> Readings:
        return lens_reading(self.maps[layer], 0, values.stream(layer).float() @ self.directions[layer])


def _affine(closed: ClosedForm, W_U_DV: torch.Tensor, log_mean_V: torch.Tensor) -> AffineMaps:
    whitening = Whitening.from_moments(closed.mean_HE, closed.covariance_HEE).to(W_U_DV.device)
    weight_HEV, bias_HV = whitening.fold(*closed.affine(W_U_DV, log_mean_V, whitening))
    return AffineMaps(weight_HEV=weight_HEV, bias_HV=bias_HV)


def _moments(cache: Cache, layer: int, directions_DE: torch.Tensor, shards: Sequence[int]) -> CrossMoments:
    """Moments of the stream along these directions, as if they were a head, with the final residual."""
    D, E = directions_DE.shape
    final, sums = FinalSums(D, torch.device("cpu")), MomentSums(1, E, None, torch.device("cpu"), D)
    rows_per_shard = cache.plan.settings.rows_per_shard
    for shard in shards:
        keep_N = np.flatnonzero(cache.read_shard("rows/position", shard) >= 1)[: ROWS - final.rows]
        for some in slices(len(keep_N), ROWS_PER_PRODUCT):
            rows_N = shard * rows_per_shard + keep_N[some]
            stream_ND = torch.from_numpy(cache.site(RESIDUAL_STREAM, layer, rows_N)).float()
            centred_ND = final.add(torch.from_numpy(cache.read("targets/final", rows_N)))
            sums.add((stream_ND @ directions_DE)[:, None], centred_ND)
    return CrossMoments.from_tensors(final.rows, *sums.covariance(), sums.cross(final), final)
