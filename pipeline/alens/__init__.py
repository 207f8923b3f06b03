"""alens reads attention heads: it caches what they compute, fits lenses to it, and reads with them.

| step | call | from | to |
| --- | --- | --- | --- |
| cache | `write_cache(CacheRequest(...))` | a model and a text | a store of z and compressed targets |
| look | `open_cache(path)` | a store | numpy arrays: z, head outputs, targets |
| fit | `fit_lenses(FitRequest(...))` | a store, no model | a lens directory |
| open | `load_lenses(path)` | a lens directory | `Lenses` |
| judge | `evaluate(lenses, cache)` | lenses, a store | held-out figures of each head |
| read | `HeadReader(lenses).read(prompt)` | lenses, the model, a prompt | top tokens of each head |

Everything raises `AlensError` kinds. Nothing heavy is imported before it is asked for.
"""

import importlib
from typing import Any

_HOME = {
    "AlensError": "alens.errors",
    "CacheRequest": "alens.cache.request",
    "write_cache": "alens.cache.write_cache",
    "open_cache": "alens.store.cache_reader",
    "FitRequest": "alens.fit.settings",
    "fit_lenses": "alens.fit.training_loop",
    "load_lenses": "alens.lens.lenses",
    "evaluate": "alens.evaluation.evaluate",
    "HeadReader": "alens.reading.head_reader",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'alens' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
