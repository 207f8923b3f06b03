"""What `alens info` prints: a line for each thing that is known, and of long lists what fits a screen.

In: the body that `--json` prints. Out: lines. Rich is not loaded: `info` is asked often, also on a log-in node.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from alens.heads import listed
from alens.lens.marks import SAYS_NOTHING
from alens.pictures.numbers import fixed, number_of, size

NAMED, WORKERS, LENSES = 3, 4, 10
"""Heads that a line names, and workers and lenses that have a line each, unless all are asked for."""

BEST_FIRST = {"explained": -1, "standard_error": 1, "kl": 1}
"""What lists of lenses are sorted by, whichever they have: the largest (-1) or the smallest (1) first."""

NUMBER = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?")

Body = dict[str, Any]


def lines(body: Body, all_parts: bool) -> Iterator[str]:
    """The body as text; long lists are whole only where `all_parts` are asked for."""
    for name, value in body.items():
        if name in WRITERS:
            yield from WRITERS[name](body, all_parts)
        elif isinstance(value, list):
            yield from _heads(name, value, all_parts)
        else:
            yield f"{name.replace('_', ' ')}: {f'{value:,}' if isinstance(value, int) else value}"


def _rows(body: Body, all_parts: bool) -> Iterator[str]:
    planned = "" if body["rows"] == body["rows_planned"] else f" of {body['rows_planned']:,}"
    yield f"rows: {body['rows']:,}{planned}"


def _missing(body: Body, all_parts: bool) -> Iterator[str]:
    if body["missing_shards"] != "none":
        yield f"missing shards: {body['missing_shards']}"
        yield f"workers to run again: {body['workers_to_run']} (--array N gives them for N workers)"


def _workers(body: Body, all_parts: bool) -> Iterator[str]:
    workers = body["workers"]
    if all_parts or len(workers) <= WORKERS:
        for one in workers:
            yield f"worker {one['worker']}: {one['shards']}, {one['rows_per_second']}, {one['last_commit']}"
        return
    last = max(workers, key=lambda one: str(one["last_commit"]))
    yield f"workers: {len(workers)}, {last['last_commit']} by {last['worker']} (each: --all)"


def _layers(body: Body, all_parts: bool) -> Iterator[str]:
    yield f"layers: {_in_runs(body['layers'])}"


def _heads_named(body: Body, all_parts: bool) -> Iterator[str]:
    yield f"heads: {_in_runs(body['heads'])}"


def _in_runs(text: str) -> str:
    """`0,1,2` as `0-2`; heads by name stay as they are."""
    return listed([int(part) for part in text.split(",")]) if text.replace(",", "").isdigit() else text


def _size(body: Body, all_parts: bool) -> Iterator[str]:
    a_row = f", {body['bytes_per_row']:,} bytes a row" if "bytes_per_row" in body else ""
    yield f"size: {size(body['bytes'])}{a_row}"


def _mean_output(body: Body, all_parts: bool) -> Iterator[str]:
    kl = body["mean_output_kl"]
    yield f"mean output: KL {kl if isinstance(kl, str) else f'{fixed(kl, 4)} nats'}"


def _r2(body: Body, all_parts: bool) -> Iterator[str]:
    """The heads of which z says most, and by layer where all is asked for."""
    layers = body["r2"]
    if not layers:
        return
    by_head = {(entry["layer"], head): r2 for entry in layers for head, r2 in enumerate(entry["r2"])}
    ranked = sorted(by_head, key=lambda place: -by_head[place])

    def named(places: list[tuple[int, int]]) -> str:
        return ", ".join(f"{layer}.{head} {fixed(by_head[layer, head])}" for layer, head in places[:NAMED])

    yield "r2, the share of the final residual's variance that z of a head explains, on"
    yield f"  {layers[0]['rows']:,} rows; best: {named(ranked)}{'' if all_parts else ' (by layer: --all)'}"
    for entry in layers if all_parts else ():
        of_layer = [place for place in ranked if place[0] == entry["layer"]]
        mean = sum(entry["r2"]) / len(entry["r2"])
        yield f"  layer {entry['layer']:>2}  mean {fixed(mean)}  best {named(of_layer)}"


def _arrays(body: Body, all_parts: bool) -> Iterator[str]:
    arrays = body["arrays"]
    if all_parts:
        yield "arrays:"
        yield from (f"  {'  '.join(str(part) for part in one.values())}" for one in arrays)
        return
    kinds = Counter(one["name"].partition("/")[0] for one in arrays)
    yield f"arrays: {', '.join(f'{count} of {kind}' for kind, count in kinds.items())} (each: --all)"


def _heads(name: str, heads: list[Body], all_parts: bool) -> Iterator[str]:
    """The lenses of a directory, those that say most first."""
    if not heads:
        return
    key, sign = next((key, sign) for key, sign in BEST_FIRST.items() if key in heads[0])
    ranked = sorted(heads, key=lambda one: sign * _number(one[key]))
    shown = heads if all_parts else ranked[:LENSES]
    hidden = len(heads) - len(shown)
    more = "" if all_parts else f", the best first{f'; {hidden} more: --all' if hidden else ''}"
    silent = sum("says_nothing" in one for one in heads)
    nothing = f", {silent} with a lens that {SAYS_NOTHING}" if silent else ""
    yield f"{name.replace('_', ' ')}: {number_of(len(heads), 'head')}{nothing}{more}"
    for one in shown:
        yield "  " + "  ".join(
            SAYS_NOTHING if key == "says_nothing" else str(part) for key, part in one.items()
        )


def _number(text: str) -> float:
    """1.5 for `KL 1.5`, for `explained 1.5 (1.2 to 1.7)` and for `standard error 1.5%`; infinite for an unknown one."""
    number = NUMBER.search(text)
    return float(number[0]) if number else math.inf


WRITERS = {
    "missing_shards": _missing,
    "workers_to_run": lambda body, all_parts: iter(()),
    "workers": _workers,
    "rows": _rows,
    "rows_planned": lambda body, all_parts: iter(()),
    "layers": _layers,
    "heads": _heads_named,
    "bytes_per_row": lambda body, all_parts: iter(()),
    "bytes": _size,
    "mean_output_kl": _mean_output,
    "r2": _r2,
    "arrays": _arrays,
}
"""By key of the body: what is not written as `name: value`."""
