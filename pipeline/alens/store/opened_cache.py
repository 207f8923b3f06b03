"""A cache that somebody gave to a function: open, or by its directory.

In: a `Cache`, or a path. Out: a `Cache`, or an error that says what to give.
"""

from pathlib import Path
from typing import Any

from alens.errors import RequestError
from alens.store.cache_reader import Cache, open_cache


def opened_cache(cache: Any) -> Cache:
    """Raises `RequestError` for anything else, and where the directory holds no cache."""
    if isinstance(cache, Cache):
        return cache
    if isinstance(cache, str | Path):
        return open_cache(cache)
    raise RequestError(
        f"cache is a {type(cache).__name__}: give the directory of a cache, or what open_cache gave"
    )
