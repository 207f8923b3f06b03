"""Small sweeps of the demo cache."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alens.sweep import variants
from alens.sweep.request import SweepRequest

SMALL = {"layers": [3], "heads": [1], "batch_rows": 128, "eval_rows": 256, "steps": 6, "tolerance": 0.0}
"""Six steps of one head: 5 shards of 1,008 usable rows are trained on, the sixth is held out."""

Sweep = Callable[..., SweepRequest]


@pytest.fixture
def sweep(demo_cache: Path, tmp_path: Path) -> Sweep:
    """`sweep(lr=[0.01, 0.03])`: that grid over SMALL; `base`, `variant` and fields of the request by name."""

    def make(base: Any = None, variant: Any = (), request: Any = None, **lists: Any) -> SweepRequest:
        config = {**SMALL, **(base or {}), "grid": lists, "variant": list(variant)}
        given = {"store": demo_cache, "out": tmp_path / "out", "device": "cpu", **(request or {})}
        return SweepRequest(grid=variants.parse(config, "here"), **given)

    return make
