"""What `alens plan` prints: the figures of an estimate, as aligned lines and two tables.

In: the document of `Estimate.to_json`. Out: lines of at most 100 columns.
"""

import re
import textwrap
from collections.abc import Iterator
from typing import Any

from alens.cli.console import show
from alens.pictures.numbers import duration, fixed, percent, size, tenths, whole

Figures = dict[str, Any]

WIDTH, INDENT = 100, 10
"""Columns of a line, and of the names at its beginning."""


def show_plan(body: Figures) -> None:
    """Print the whole estimate, from what `alens.planning.figures` gives."""
    show(*_text(body), "")
    _show_bytes(body["bytes"], body["text"])
    fit = [] if body["fit"] is None else [*_fit(body["fit"]), ""]
    show("", *_time(body), "", *fit, *_room(body["room"]))
    if body["passes"] is not None:
        show("")
        _show_passes(body["passes"])


def _text(body: Figures) -> Iterator[str]:
    text = body["text"]
    yield _entry("cache of", f"{body['model']} over {body['corpus']}, on {body['device']}")
    yield _entry(
        "text",
        f"{text['rows']:,} rows = {text['sequences']:,} sequences of {text['seq_len_tokens']:,} tokens, "
        f"{text['shards']:,} shards of {text['rows_per_shard']:,} rows",
    )
    if text["bos"] is not None:
        yield _entry("", f"each begins with BOS (token {text['bos']}), which is a row too")
    if text["held_out_sequences"]:
        yield _entry("", f"the last {text['held_out_sequences']:,} of them are of held-out documents")
    left_out, most = text["sequences_left_out"], text["max_rows"]
    taken = f"{left_out:,} sequences left out at the end" if left_out else "all of it"
    if text["selection"] == "spread":
        taken = "spread over the whole text"
        if text["rows"] < most:
            yield _entry("", f"{text['rows']:,} of the {most:,} rows of --max-rows: shards are whole")
    if text["plan_in_store"]:
        yield _entry("", f"of the plan in STORE; {taken}")
        yield _entry(
            "to do",
            f"{text['shards_left']:,} of {text['shards']:,} shards, {text['rows_left']:,} rows; the others are committed",
        )
        return
    kind = "exact" if text["exact"] else f"estimated from the first {percent(text['share_of_text_read'])}"
    yield _entry("", f"{kind}; {taken}")


def _show_bytes(sizes: Figures, text: Figures) -> None:
    """A line a kind of array, and what they take together."""
    from alens.cli.tables import show_table

    rows = [_array_row(name, group) for name, group in _families(sizes["arrays"]).items()]
    rows.append(("tokens.npy", "", "", size(sizes["tokens_bytes"]), "1", ""))
    if sizes["documents_bytes"]:
        rows.append(("documents.npy", "", "", size(sizes["documents_bytes"]), "1", ""))
    counted = len(rows) - len(_families(sizes["arrays"])) + sum(array["files"] for array in sizes["arrays"])
    rest = sizes["files"] - counted
    rows.append(("records and metadata", "", "", f"~{size(sizes['records_bytes'])}", f"{rest:,}", ""))
    total = (
        "all",
        tenths(sizes["bytes"] / text["rows"]),
        size(sizes["bytes_per_shard"]),
        size(sizes["bytes"]),
        f"{sizes['files']:,}",
        "",
    )
    show_table(
        ("array", "bytes a row", "a shard", "in all", "files", ""),
        rows,
        foot=[total],
        text=("array", ""),
    )
    show(
        _entry(
            "files",
            f"{sizes['files']:,} files and {sizes['directories']:,} directories; the largest is {sizes['largest_file']}, "
            f"{size(sizes['largest_file_bytes'])}",
        )
    )
    device = sizes["worker_device_memory_bytes"]
    show(
        _entry(
            "memory",
            f"{size(sizes['worker_memory_bytes'])} a worker, twice {size(sizes['shard_memory_bytes'])} of it for arrays"
            + (f"; {size(device)} on the device" if device is not None else ""),
        )
    )


def _array_row(name: str, group: list[Figures]) -> tuple[str, ...]:
    """Arrays that differ in their layer only, together."""
    per_row = sum(array["bytes_per_row"] or 0 for array in group)
    has_shards = group[0]["first_axis"] in ("row", "shard")
    return (
        name,
        tenths(per_row) if per_row else "",
        size(sum(array["bytes_per_file"] for array in group)) if has_shards else "",
        size(sum(array["bytes"] for array in group)),
        f"{sum(array['files'] for array in group):,}",
        "measured" if group[0]["measured"] else "",
    )


def _families(arrays: list[Figures]) -> dict[str, list[Figures]]:
    """Arrays that differ in their layer only, together."""
    families: dict[str, list[Figures]] = {}
    for array in arrays:
        families.setdefault(re.sub(r"/\d+", "", array["name"]), []).append(array)
    return {
        name if len(group) == 1 else f"{name} ({len(group)} layers)": group
        for name, group in families.items()
    }


def _time(body: Figures) -> Iterator[str]:
    rates, time = body["rates"], body["time"]
    yield _entry(
        "measured",
        f"model {whole(rates['forward_rows_per_s'])} rows/s bare, {whole(rates['compute_rows_per_s'])} rows/s reduced to arrays "
        f"({rates['probe_rows']:,} rows)",
    )
    yield _entry(
        "",
        f"disk {size(rates['disk_write_bytes_per_s'])}/s written, {size(rates['disk_read_bytes_per_s'])}/s read "
        f"({size(rates['disk_probe_bytes'])}), {fixed(1000 * rates['disk_sync_s'], 1)} ms to sync a file",
    )
    if rates["fit_head_rows_per_s"] is not None:
        yield _entry("", f"fit {whole(rates['fit_head_rows_per_s'])} rows/s for one head")
    yield _entry("", f"on {rates['threads']} {'thread' if rates['threads'] == 1 else 'threads'}")
    yield from _entries("scaled", [f"{what} from {source}" for what, source in rates["scaled"].items()])
    if rates["slowdown"] > 1:
        yield _entry(
            "busy",
            f"{fixed(rates['cpus_free'], 1)} of {rates['threads']} CPUs were free; times are for when all are, now "
            f"{fixed(rates['slowdown'], 1)} times as long",
        )
    parts = [f"computing {_hours(time['compute_hours'])}", f"writing {_hours(time['write_hours'])}"]
    if not body["text"]["plan_in_store"]:
        parts.insert(0, f"tokenising {_hours(time['tokenise_hours'])}")
    yield _entry("time", f"{_hours(time['cache_hours'])} with one worker: {', '.join(parts)}")
    if time["workers"] > 1:
        yield _entry(
            "",
            f"{_hours(time['cache_hours_with_workers'])} with {time['workers']:,} workers as fast as this one",
        )
    if time["runs_per_worker"]:
        yield _entry(
            "", f"{time['runs_per_worker']:,} runs of {time['max_minutes']:g} minutes for each worker"
        )
    if body["passes"] is None:
        return
    yield _entry("", f"{_hours(time['read_hours'])} for one process to read what a fit of all layers reads")


def _fit(fit: Figures) -> Iterator[str]:
    """A fit of all cached layers with the default settings."""
    if fit["refused"]:
        refusal = f"not with the default settings: {fit['refused']}"
        yield from _entries("fit", textwrap.wrap(refusal, WIDTH - INDENT))
        return
    yield _entry(
        "fit",
        f"{fit['lens']} lenses of {fit['heads']:,} heads with the default settings: at most {fit['steps']:,} steps of "
        f"{fit['batch_rows']:,} rows,",
    )
    yield _entry(
        "", f"{fit['epochs']:g} passes over {fit['train_rows']:,} rows, and {fit['held_out_rows']:,} held out"
    )
    yield _entry(
        "",
        f"{_hours(fit['fit_hours'])} at most: steps {_hours(fit['step_hours'])}, evaluations "
        f"{_hours(fit['evaluate_hours'])}, figures {_hours(fit['figures_hours'])}, writing {_hours(fit['write_hours'])}",
    )
    yield _entry(
        "",
        f"{size(fit['memory_bytes'])} of memory, {size(fit['training_bytes'])} of it to train {fit['weights']:,} weights, "
        f"{size(fit['save_memory_bytes'])} to save",
    )
    if fit["needed_bytes"] > fit["free_memory_bytes"]:
        yield _entry(
            "", f"TOO MUCH for this machine, where {size(fit['free_memory_bytes'])} are free: fit fewer heads"
        )
    yield _entry(
        "",
        f"lenses {size(fit['lens_bytes'])}; a checkpoint is {size(fit['checkpoint_bytes'])} and takes "
        f"{duration(fit['save_s'])}, also before it stops",
    )


def _room(room: Figures) -> Iterator[str]:
    limit = room["free_inodes"]
    free = "the file system sets no limit" if limit is None else f"{limit:,} free"
    yield _entry("room", f"{'it fits' if room['fits'] else 'DOES NOT FIT'}: {room['where']}")
    yield _entry("", f"{size(room['needed_bytes'])} needed, {size(room['free_bytes'])} free")
    yield _entry("", f"{room['needed_inodes']:,} files and directories needed, {free}")


def _show_passes(passes: Figures) -> None:
    """For each choice of heads: hours with and without a cache, by the number of passes."""
    from alens.cli.tables import show_table

    rows = []
    for case in passes["cases"]:
        even = case["break_even_passes"]
        name = f"{case['name']} ({case['heads']} heads)"
        pays = "never" if even is None else f"from P = {fixed(even, 2)}"
        for entry in case["passes"]:
            cached, recomputed = _hours(entry["cached_hours"]), _hours(entry["recomputed_hours"])
            rows.append((name, str(entry["passes"]), cached, recomputed, fixed(entry["ratio"], 2), pays))
            name = pays = ""
    show_table(
        ("heads", "P", "cache", "no cache", "ratio", "cache pays"),
        rows,
        title="P passes of a fit over all rows, the writing of the cache included",
        text=("heads", "cache pays"),
    )
    us = {name: 1e6 * passes[f"{name}_s_per_row"] for name in ("compute", "write", "forward")}
    cases = (
        f"{case['name']} r {whole(1e6 * case['read_s_per_row'])}, g {whole(1e6 * case['fit_s_per_row'])}"
        for case in passes["cases"]
    )
    show(
        passes["cost_model"].partition("; ")[0],
        f"microseconds a row: c {whole(us['compute'])}, w {whole(us['write'])}, f {whole(us['forward'])}; {'; '.join(cases)}",
    )


def _entry(name: str, value: str) -> str:
    return f"{name:<{INDENT}}{value}"


def _entries(name: str, values: list[str]) -> Iterator[str]:
    """An entry of several lines."""
    for number, value in enumerate(values):
        yield _entry("" if number else name, value)


def _hours(hours: float) -> str:
    return duration(3600 * hours)
