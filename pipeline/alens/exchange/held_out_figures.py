"""Held-out figures of a lens directory, as files that people and programs read: a heat map and JSON.

In: what `lens.json` says. Out: `held-out-kl.png` (forward KL of each head, nats a row) and `held-out.json`.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from alens.exchange.local_paths import LOCAL
from alens.exchange.model_card import heads_of
from alens.exchange.request import PICTURE, TABLE
from alens.pictures.head_grid import HeadGrid
from alens.pictures.heat_map import to_png
from alens.pictures.numbers import fixed


def make(lenses: Mapping[str, Any]) -> Iterator[tuple[str, bytes, str]]:
    """The name and content of each file, and what it is; nothing where no figures are known."""
    held_out = lenses["held_out"]
    if not held_out:
        return
    mean_kl = lenses.get("mean_output_kl")
    nothing = "" if mean_kl is None else f"; mean output {fixed(mean_kl)} nats"
    heads = heads_of(lenses).by_layer
    figures = {
        (int(layer), head): record
        for layer, by_head in held_out.items()
        for head, record in zip(heads[int(layer)], by_head, strict=True)
    }
    grid = HeadGrid(
        title=f"Lenses of {lenses['model']['id'].removeprefix(LOCAL)}, {lenses['site']}{nothing}",
        values={place: record["kl"] for place, record in figures.items()},
        number_title="KL(model, lens) on held-out rows, nats a row",
        silent={place for place, record in figures.items() if record.get("says_nothing")},
        site=lenses["site"],
    )
    yield PICTURE, to_png(grid), "held-out KL of each head"
    body = {
        "model": lenses["model"]["id"],
        "weights_sha256": lenses["model"]["weights_sha256"],
        "cache_plan": lenses["cache"].get("plan"),
        "cache_fingerprint": lenses["cache"].get("fingerprint"),
        "design": lenses["design"],
        "objective": lenses["objective"],
        "mean_output_kl": mean_kl,
        "units": {"kl": "nats a row", "cross_entropy": "nats a row", "top1_agreement": "share of rows"},
        "figures": [{"layer": layer, "head": head, **record} for (layer, head), record in figures.items()],
    }
    yield TABLE, (json.dumps(body, indent=1) + "\n").encode(), "held-out figures"
