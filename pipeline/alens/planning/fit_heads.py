"""Which heads of a cache a fit is estimated for.

In: a plan, and the heads that somebody names. Out: `Heads`, by default all that the cache holds.
"""

from alens.errors import RequestError
from alens.heads import HeadNames, Heads, requested
from alens.store.schema import Plan


def every_head(plan: Plan) -> Heads:
    """All heads that the cache holds."""
    return Heads.grid(plan.layers, range(plan.model.n_heads))


def heads_to_fit(plan: Plan, heads: HeadNames | None) -> Heads:
    """These heads; None for all. Raises `RequestError` for any that the cache would not hold."""
    there = every_head(plan)
    chosen = requested(None, heads, there)
    if missing := [f"{layer}.{head}" for layer, head in chosen if (layer, head) not in there]:
        layers = ",".join(map(str, plan.layers))
        raise RequestError(
            f"head {missing[0]} would not be in the cache, which has heads 0 to {plan.model.n_heads - 1} of layers {layers}"
        )
    return chosen
