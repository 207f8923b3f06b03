"""Held-out figures of a lens directory, as files that people and programs read: a heat map and JSON.

In: what `lens.json` says. Out: `held-out-kl.png` (forward KL of each head, nats a row) and `held-out.json`.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from alens.exchange.local_paths import LOCAL
from alens.pictures.heat_map import HeatMap, to_png
from alens.store.schema import ATTN_Z

PICTURE, TABLE = "held-out-kl.png", "held-out.json"
NAMES = (PICTURE, TABLE)


def make(lenses: Mapping[str, Any]) -> Iterator[tuple[str, bytes, str]]:
    """The name and content of each file, and what it is; nothing where no figures are known."""
    held_out, heads = lenses["held_out"], lenses["heads"]
    if not held_out:
        return
    values = np.array([[head["kl"] for head in layer] for layer in held_out.values()], dtype=np.float64)
    mean_kl = lenses.get("mean_output_kl")
    nothing = "" if mean_kl is None else f"; mean output {mean_kl:.3f} nats"
    heat_map = HeatMap(
        title=f"Lenses of {lenses['model']['id'].removeprefix(LOCAL)}, {lenses['site']}{nothing}",
        values=values,
        nothing=np.array(
            [[bool(head.get("says_nothing")) for head in layer] for layer in held_out.values()],
            dtype=np.bool_,
        ),
        rows=list(held_out),
        columns=[str(head) for head in heads] if lenses["site"] == ATTN_Z else [lenses["site"]],
        row_title="layer",
        column_title="head" if lenses["site"] == ATTN_Z else "site",
        colour_title="KL(model, lens) on held-out rows, nats a row",
    )
    yield PICTURE, to_png(heat_map), "held-out KL of each head"
    body = {
        "model": lenses["model"]["id"],
        "weights_sha256": lenses["model"]["weights_sha256"],
        "cache_plan": lenses["cache"].get("plan"),
        "cache_fingerprint": lenses["cache"].get("fingerprint"),
        "design": lenses["design"],
        "objective": lenses["objective"],
        "mean_output_kl": mean_kl,
        "units": {"kl": "nats a row", "cross_entropy": "nats a row", "top1_agreement": "share of rows"},
        "figures": [
            {"layer": int(layer), "head": head, **figures}
            for layer, by_head in held_out.items()
            for head, figures in zip(heads, by_head, strict=True)
        ],
    }
    yield TABLE, (json.dumps(body, indent=1) + "\n").encode(), "held-out figures"
