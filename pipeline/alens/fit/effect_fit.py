"""A fit of effect lenses: the measured effects of heads are regressed on z, in closed form, and judged on held-out documents.

In: a `FitRequest` with the lens `effect`, and a cache with effects (`alens effects`). Out: a lens directory of the form
`effect`, whose `fit` in `lens.json` says how much of the effect of each head the lens and its direct write explain.
Shapes: N rows, H heads, E d_head, D d_model, G documents.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from alens.errors import RequestError
from alens.fit.addition_fit import addition_plan, check_additions, put_additions
from alens.fit.fit_plan import FitPlan
from alens.fit.settings import FitRequest
from alens.heads import requested
from alens.job.progress import Report, ShouldStop
from alens.lens.effect_regression import Array, EffectMoments, logit_metric, regress_effect, squared
from alens.lens.maps import MEAN_Z
from alens.lens.record import EFFECT, LensRecord
from alens.rows import moments
from alens.rows.direct_write import direct_write
from alens.rows.final_norm import FinalNorm
from alens.rows.row_scales import RowScales
from alens.statistics import bootstrap
from alens.store.cache_reader import Cache
from alens.store.effect_reader import EffectRows, EffectStore


def effect_plan(request: FitRequest, cache: Cache) -> FitPlan:
    """The plan of the requested fit.

    Raises `RequestError` for settings of other designs, for a cache without these effects, without rows to judge on or
    without what a direct write is made of, and where another fit was begun in LENSES.
    """
    check_additions(request, cache, "effect lenses are fitted to measured effects")
    effects = _effects(request, cache)
    rows = effects.rows
    if rows.held_out_N.all() or not rows.held_out_N.any():
        raise RequestError(
            f"the effects in {cache.root} are of rows that are {'all' if rows.held_out_N.all() else 'not'} held out: measure "
            "more rows with `alens effects`, or take a cache of more shards"
        )
    train, held_out = (
        tuple(int(shard) for shard in np.unique(rows.shard_N[side_N]))
        for side_N in (~rows.held_out_N, rows.held_out_N)
    )
    return addition_plan(request, cache, effects.heads, train, held_out)


def _effects(request: FitRequest, cache: Cache) -> EffectStore:
    """The effects of the heads that are asked for, by default of all that were measured."""
    settings = request.settings
    there = EffectStore(cache).heads
    for layer in settings.layers or ():
        if layer not in there.layers:
            raise RequestError(f"{cache.root} holds no effects of layer {layer}: run `alens effects` for it")
    return EffectStore(cache, requested(settings.layers, settings.heads, there))


def put_effect_lenses(
    request: FitRequest, plan: FitPlan, cache: Cache, *, report: Report, should_stop: ShouldStop
) -> LensRecord:
    """Write the effect lenses that `request` asks for. Raises what `fit_lenses` raises; when stopped, nothing is kept."""
    fit = _EffectFit(cache, _effects(request, cache))
    return put_additions(request, plan, cache, fit, report=report, should_stop=should_stop)


class _EffectFit:
    """What all layers share."""

    form, stage = EFFECT, "regressing effects on z"

    def __init__(self, cache: Cache, effects: EffectStore) -> None:
        norm = FinalNorm.of_cache(cache)
        assert norm is not None, "the plan says so"
        self.rows: EffectRows = effects.rows
        self._cache, self._effects, self._norm = cache, effects, norm
        self._metric_DD = logit_metric(cache.weights("W_U"))
        self._W_O_LHED = torch.from_numpy(cache.weights("W_O"))
        self._mean_z = moments.mean_z(cache, effects.heads)
        self._scales = RowScales.of_cache(cache, self.rows.row_N)

    def layer(self, layer: int) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
        """The tensors of a layer's file, and the figures of its heads."""
        numbers = list(self._effects.heads.by_layer[layer])
        z_NHE = torch.from_numpy(self._cache.z(layer, self.rows.row_N)[:, numbers]).float()
        effect_NHD = self._effects.delta(layer)
        mean_HE, W_O_HED = self._mean_z[layer], self._W_O_LHED[layer, numbers]
        maps, figures = [], []
        for place in range(len(numbers)):
            effect_ED, of_head = self._head(
                z_NHE[:, place],
                effect_NHD[:, place].astype(np.float32),
                mean_HE[place],
                W_O_HED[place],
                self._scales.write(layer),
            )
            maps.append(torch.from_numpy(effect_ED))
            figures.append(of_head)
        return {EFFECT: torch.stack(maps), "W_O": W_O_HED, MEAN_Z: mean_HE}, figures

    def _head(
        self,
        z_NE: torch.Tensor,
        effect_ND: npt.NDArray[np.float32],
        mean_E: torch.Tensor,
        W_O_ED: torch.Tensor,
        scale_N: torch.Tensor,
    ) -> tuple[Array, dict[str, Any]]:
        """(E, D) the map of a head, and its figures on held-out rows."""
        held_N, group_N = self.rows.held_out_N, self._groups()
        x_NE = (z_NE - mean_E).double().numpy()
        train, held_out = (
            EffectMoments.of_rows(x_NE[side_N], effect_ND[side_N], group_N[side_N], self._metric_DD)
            for side_N in (~held_N, held_N)
        )
        typical = float((1 / scale_N[torch.from_numpy(~held_N)]).mean())
        towards_ED = self._norm.linear(W_O_ED).double().numpy() * typical
        map_ED, ridge = regress_effect(train, towards_ED, self._metric_DD)
        written_ND = direct_write(z_NE, mean_E, W_O_ED, self._norm, scale_N).numpy()
        left_ND = effect_ND - written_ND
        groups = [held_N & (group_N == group) for group in np.unique(group_N[held_N])]
        by_write_G = np.array([squared(left_ND[rows_N], self._metric_DD) for rows_N in groups])
        total_G = held_out.squares_G
        vocabulary = self._cache.plan.model.d_vocab
        return map_ED, {
            "explained": _explained(held_out.left_G(map_ED, self._metric_DD), total_G),
            "written": _explained(by_write_G, total_G),
            "logits": float(np.sqrt(total_G.sum() / held_out.rows_G.sum() / vocabulary)),
            "ridge": ridge,
        }

    def note(self, figures: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
        """What `fit` of the record says."""
        rows = self.rows
        return {
            "min_position": int(rows.position_N.min()),
            "rows_seen": int((~rows.held_out_N).sum()),
            "held_out_rows": int(rows.held_out_N.sum()),
            "effects": figures,
        }

    def _groups(self) -> npt.NDArray[np.int64]:
        """The documents, or the sequences where one side has fewer than two documents."""
        rows = self.rows
        sides = (rows.group_N[side_N] for side_N in (rows.held_out_N, ~rows.held_out_N))
        return rows.group_N if all(len(np.unique(side)) > 1 for side in sides) else rows.sequence_N


def _explained(left_G: Array, total_G: Array) -> dict[str, Any]:
    """The share of the effect that is explained on all rows, and its interval over documents."""
    total = float(total_G.sum())
    if not total > 0:
        return {"share": 0.0, "interval": None}
    interval = None
    if len(total_G) > 1:
        counts_RG = bootstrap.counts(0, bootstrap.RESAMPLES, len(total_G), 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            shares_R = 1 - (counts_RG @ left_G) / (counts_RG @ total_G)
        interval = bootstrap.finite_interval(shares_R, groups=len(total_G))
    return {"share": 1 - float(left_G.sum()) / total, "interval": interval}
