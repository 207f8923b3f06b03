"""Which baselines lenses are judged beside: those asked for, or those that cost little and can be had.

In: settings, lenses and a cache. Out: the names of readings, or a refusal that says what one of them needs.
"""

from collections.abc import Sequence

from alens.errors import RequestError
from alens.evaluation.panel import RANDOM, REGRESSION, SCALED_WRITE, TUNED_COMPOSITION, UNEMBEDDING, WRITTEN
from alens.lens.closed_form import lacks_moments
from alens.lens.lenses import Lenses
from alens.store.cache_reader import Cache
from alens.store.schema import ATTN_Z, RESIDUAL_STREAM

CHEAP = (UNEMBEDDING, WRITTEN, SCALED_WRITE, TUNED_COMPOSITION)
"""Made without being asked for: another reading of each head, and no pass over other rows."""


def chosen_baselines(
    asked: Sequence[str] | None,
    lenses: Lenses,
    cache: Cache,
    *,
    tuned_lens: Lenses | None,
    other_shards: Sequence[int],
    by_cause: bool,
) -> tuple[str, ...]:
    """The baselines to judge beside; `by_cause` says whether effects are at hand. Raises `RequestError` for one that was asked for and cannot be had."""
    lacking = {name: _lacks(name, lenses, cache, tuned_lens, other_shards) for name in asked or CHEAP}
    if asked is None and not by_cause:
        del lacking[WRITTEN]
    for name, why in lacking.items():
        if asked is not None and why is not None:
            raise RequestError(f"there is no reading {name} here: {why}")
    return tuple(name for name, why in lacking.items() if why is None)


def _lacks(
    name: str, lenses: Lenses, cache: Cache, tuned_lens: Lenses | None, other_shards: Sequence[int]
) -> str | None:
    """Why a reading cannot be had, and what to do; None where it can."""
    model, site = cache.plan.model, lenses.record.site
    if name == UNEMBEDDING:
        return None if site != ATTN_Z else model.no_write
    if site != ATTN_Z:
        return f"it reads z of heads, and these lenses read {site}"
    if name in (WRITTEN, SCALED_WRITE, TUNED_COMPOSITION):
        if model.no_write is not None:
            return model.no_write
        if not model.keeps_norm:
            return f"{cache.root} was written before alens kept the last norm: cache again"
    if name == TUNED_COMPOSITION and tuned_lens is None:
        return "it needs a Tuned Lens: give one with --tuned-lens"
    if name in (REGRESSION, RANDOM):
        if not other_shards:
            return (
                f"all shards of {cache.root} are judged on, and none is left to regress on: fit it with "
                "`alens fit STORE LENSES --lens regression` and give --also LENSES"
            )
        if name == REGRESSION:
            return lacks_moments(cache)
        if not cache.plan.settings.exact_teacher or RESIDUAL_STREAM not in (cache.plan.settings.sites or ()):
            return f"{cache.root} lacks the residual stream: cache with --sites resid_post --exact-teacher"
    return None
