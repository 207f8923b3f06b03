"""Whether a cache keeps sums of z with the final residual, from which lenses are made without a fit.

In: settings. Out: yes or no, and the settings of a plan in which that is decided. Pure.
Shapes: D d_model.
"""

import dataclasses

from alens.store.schema import CacheSettings

MOMENTS_SHARE = 0.1
"""The sums are kept by default where they take at most this share of the bytes of z."""


def resolved(settings: CacheSettings, d_model: int) -> CacheSettings:
    """The settings of a plan: `final_moments` is true where the sums are kept beside rows and None where not, as in plans
    from before there were any, so that the same numbers have the same identity."""
    z_bytes = 1 if settings.z_dtype == "int8" else 2
    cheap = 2 * d_model <= MOMENTS_SHARE * z_bytes * settings.rows_per_shard  # for each number of z
    asked = cheap if settings.final_moments is None else settings.final_moments
    return dataclasses.replace(settings, final_moments=True if asked and not settings.moments_only else None)


def kept(settings: CacheSettings) -> bool:
    """Whether each shard of a cache with these settings has the sums."""
    return bool(settings.final_moments or settings.moments_only)
