"""Where a fit starts: at the closed form of each head, or at the mean output.

In: settings, the cache, the design and the objective that they name. Out: the start, resolved, or why the closed form
cannot be it.
"""

from alens.errors import RequestError
from alens.fit.objectives.objective import Objective
from alens.fit.settings import CLOSED_FORM, MEAN_OUTPUT, FitSettings, Start
from alens.lens.closed_form import lacks_moments
from alens.lens.designs.design import Design
from alens.store.cache_reader import Cache
from alens.store.schema import ATTN_Z


def resolved(settings: FitSettings, cache: Cache, design: type[Design], objective: Objective) -> Start:
    """The start that the settings mean. Raises `RequestError` where they ask for a closed form that cannot be had."""
    if not design.trained:  # it is the closed form, and says by itself where there is none
        if settings.start == MEAN_OUTPUT:
            raise RequestError(f"{settings.lens} is the closed form: leave --start out")
        return CLOSED_FORM
    why = _never(settings, design, objective) or lacks_moments(cache)
    if settings.start == CLOSED_FORM and why is not None:
        raise RequestError(f"start is {CLOSED_FORM}, and {why}; or take --start {MEAN_OUTPUT}")
    return settings.start or (CLOSED_FORM if why is None else MEAN_OUTPUT)


def lacking(settings: FitSettings, cache: Cache, design: type[Design], objective: Objective) -> str | None:
    """Why a fit that would start at the closed form on another cache does not on this one; None for other fits."""
    if settings.start is not None or _never(settings, design, objective) is not None:
        return None
    return lacks_moments(cache)


def _never(settings: FitSettings, design: type[Design], objective: Objective) -> str | None:
    """Why such a fit has no closed form on any cache."""
    if settings.site != ATTN_Z:
        return f"the site {settings.site} has none: only z of heads has"
    if not design.starts_at_closed_form:
        return f"the design {settings.lens} cannot start there"
    if type(objective).target is not Objective.target:
        return f"the objective {settings.objective} is fitted to something else than the model's output"
    return None
