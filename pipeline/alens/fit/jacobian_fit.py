"""A fit of Jacobian lenses: the measured mean Jacobians of heads, behind the last norm, as lenses of what heads add.

In: a `FitRequest` with the lens `jacobian`, and a cache with Jacobians (`alens jacobians`). Out: a lens directory of the form
`jacobian`, whose `fit` in `lens.json` says how certain the Jacobian of each head is, and how near it is to W_O.
Shapes: H heads, E d_head, D d_model.
"""

from typing import Any

import torch

from alens.errors import RequestError
from alens.fit.addition_fit import TAKEN, addition_plan, check_additions, put_additions
from alens.fit.fit_plan import FitPlan
from alens.fit.settings import FitRequest
from alens.heads import requested
from alens.job.progress import Report, ShouldStop
from alens.lens.maps import MEAN_Z
from alens.lens.record import JACOBIAN, LensRecord
from alens.rows import moments
from alens.rows.final_norm import FinalNorm
from alens.store.cache_reader import Cache
from alens.store.effect_files import FIRST_POSITION
from alens.store.effect_reader import shards_held_out
from alens.store.jacobian_reader import JacobianStore
from alens.store.paths import REACHES, SAME_POSITION, Reach


def jacobian_plan(request: FitRequest, cache: Cache) -> FitPlan:
    """The plan of the requested fit.

    Raises `RequestError` for settings of other designs, for a cache without these Jacobians or the last norm, and where
    another fit was begun in LENSES.
    """
    check_additions(
        request, cache, "Jacobian lenses are made of measured Jacobians", (*TAKEN, "lens_options")
    )
    jacobians = _jacobians(request, cache)
    per_shard = cache.plan.settings.sequences_per_shard
    train = sorted({sequence // per_shard for sequence in jacobians.sequences})
    apart = [shard for shard in shards_held_out(cache) if shard not in train]
    return addition_plan(request, cache, jacobians.heads, train, apart)


def put_jacobian_lenses(
    request: FitRequest, plan: FitPlan, cache: Cache, *, report: Report, should_stop: ShouldStop
) -> LensRecord:
    """Write the Jacobian lenses that `request` asks for. Raises what `fit_lenses` raises; when stopped, nothing is kept."""
    fit = _JacobianFit(cache, _jacobians(request, cache))
    return put_additions(request, plan, cache, fit, report=report, should_stop=should_stop)


def _jacobians(request: FitRequest, cache: Cache) -> JacobianStore:
    """The Jacobians of the heads that are asked for, by default of all that were measured."""
    settings = request.settings
    reach = _reach(settings.lens_options)
    there = JacobianStore(cache, reach=reach).heads
    for layer in settings.layers or ():
        if layer not in there.layers:
            raise RequestError(
                f"{cache.root} holds no Jacobians of layer {layer}: run `alens jacobians` for it"
            )
    return JacobianStore(cache, requested(settings.layers, settings.heads, there), reach)


def _reach(options: dict[str, Any]) -> Reach:
    reach = options.get("reach", SAME_POSITION)
    if unknown := set(options) - {"reach"}:
        raise RequestError(f"jacobian has no option {min(unknown)}: it has reach")
    for known in REACHES:
        if reach == known:
            return known
    raise RequestError(f"reach is {reach}: it must be {' or '.join(REACHES)}")


class _JacobianFit:
    """What all layers share."""

    form, stage = JACOBIAN, "reading Jacobians"

    def __init__(self, cache: Cache, jacobians: JacobianStore) -> None:
        norm = FinalNorm.of_cache(cache)
        assert norm is not None, "the plan says so"
        self._cache, self._jacobians, self._norm = cache, jacobians, norm
        self._W_O_LHED = torch.from_numpy(cache.weights("W_O"))
        self._mean_z = moments.mean_z(cache, jacobians.heads)

    def layer(self, layer: int) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
        """The tensors of a layer's file, and the figures of its heads."""
        W_O_HED = self._W_O_LHED[layer, list(self._jacobians.heads.by_layer[layer])]
        mean_HED, error_H = self._jacobians.mean(layer)
        jacobian_HED = self._norm.linear(torch.from_numpy(mean_HED))
        written_HED = self._norm.linear(W_O_HED)
        cosine_H = torch.nn.functional.cosine_similarity(jacobian_HED.flatten(1), written_HED.flatten(1))
        figures = [
            {"standard_error": None if error != error else error, "cosine_with_write": cosine}
            for error, cosine in zip(error_H.tolist(), cosine_H.tolist(), strict=True)
        ]
        return {JACOBIAN: jacobian_HED, "W_O": W_O_HED, MEAN_Z: self._mean_z[layer]}, figures

    def note(self, figures: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
        """What `fit` of the record says."""
        positions = self._cache.plan.settings.seq_len - FIRST_POSITION
        return {
            "min_position": FIRST_POSITION,
            "rows_seen": len(self._jacobians.sequences) * positions,
            "reach": self._jacobians.reach,
            "jacobians": figures,
        }
