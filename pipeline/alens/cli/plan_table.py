"""What `alens plan` prints: the figures of an estimate as short aligned lines, at most 100 columns."""

import re
from collections.abc import Iterator
from typing import Any

Figures = dict[str, Any]


def lines(body: Figures) -> Iterator[str]:
    """The whole text, from what `Estimate.to_json` gives."""
    yield from _text(body)
    yield ""
    yield from _bytes(body["bytes"], body["text"])
    yield ""
    yield from _time(body)
    yield ""
    yield from _room(body["room"])
    yield ""
    yield from _passes(body["passes"])


def _text(body: Figures) -> Iterator[str]:
    text = body["text"]
    yield _entry("cache of", f"{body['model']} over {body['corpus']}, on {body['device']}")
    yield _entry(
        "text",
        f"{text['rows']:,} rows = {text['sequences']:,} sequences of {text['seq_len_tokens']:,} tokens, "
        f"{text['shards']:,} shards of {text['rows_per_shard']:,} rows",
    )
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
    kind = "exact" if text["exact"] else f"estimated from the first {100 * text['share_of_text_read']:.2g} %"
    yield _entry("", f"{kind}; {taken}")


def _bytes(sizes: Figures, text: Figures) -> Iterator[str]:
    yield f"{'bytes':<28}{'a row':>10}{'a shard':>12}{'in all':>12}  {'files':>9}"
    for name, group in _families(sizes["arrays"]).items():
        per_row = sum(a["bytes_per_row"] or 0 for a in group)
        per_file = sum(a["bytes_per_file"] for a in group)
        is_shard = group[0]["first_axis"] in ("row", "shard")
        measured = "  measured" if group[0]["measured"] else ""
        yield (
            f"  {name:<26}{(f'{per_row:,.1f}' if per_row else ''):>10}"
            f"{(size(per_file) if is_shard else ''):>12}{size(sum(a['bytes'] for a in group)):>12}"
            f"  {sum(a['files'] for a in group):>9,}{measured}"
        )
    yield f"  {'tokens.npy':<26}{'':>10}{'':>12}{size(sizes['tokens_bytes']):>12}  {1:>9,}"
    documents = int(bool(sizes["documents_bytes"]))
    if documents:
        yield f"  {'documents.npy':<26}{'':>10}{'':>12}{size(sizes['documents_bytes']):>12}  {1:>9,}"
    rest = sizes["files"] - 1 - documents - sum(array["files"] for array in sizes["arrays"])
    yield f"  {'records and metadata':<26}{'':>10}{'':>12}{'~' + size(sizes['records_bytes']):>12}  {rest:>9,}"
    per_row = sizes["bytes"] / text["rows"]
    yield f"  {'all':<26}{per_row:>10,.1f}{size(sizes['bytes_per_shard']):>12}{size(sizes['bytes']):>12}  {sizes['files']:>9,}"
    yield _entry(
        "files",
        f"{sizes['files']:,} files and {sizes['directories']:,} directories; the largest is {sizes['largest_file']}, "
        f"{size(sizes['largest_file_bytes'])}",
    )
    device = sizes["worker_device_memory_bytes"]
    yield _entry(
        "memory",
        f"{size(sizes['worker_memory_bytes'])} a worker, twice {size(sizes['shard_memory_bytes'])} of it for arrays"
        + (f"; {size(device)} on the device" if device is not None else ""),
    )


def _families(arrays: list[Figures]) -> dict[str, list[Figures]]:
    """Arrays that differ in their layer only, together."""
    found: dict[str, list[Figures]] = {}
    for array in arrays:
        found.setdefault(re.sub(r"/\d+", "", array["name"]), []).append(array)
    return {
        name if len(group) == 1 else f"{name} ({len(group)} layers)": group for name, group in found.items()
    }


def _time(body: Figures) -> Iterator[str]:
    rates, time = body["rates"], body["time"]
    yield _entry(
        "measured",
        f"model {rates['forward_rows_per_s']:,.0f} rows/s bare, {rates['compute_rows_per_s']:,.0f} rows/s reduced to arrays "
        f"({rates['probe_rows']:,} rows)",
    )
    yield _entry(
        "",
        f"disk {size(rates['disk_write_bytes_per_s'])}/s written, {size(rates['disk_read_bytes_per_s'])}/s read "
        f"({size(rates['disk_probe_bytes'])}), {1000 * rates['disk_sync_s']:.1f} ms to sync a file",
    )
    yield _entry("", f"fit {rates['fit_head_rows_per_s']:,.0f} rows/s for one head")
    free = rates["cpus"] - rates["load"]
    busy = "" if free >= rates["threads"] else f"; other work slows all of it (load {rates['load']:.1f})"
    yield _entry("", f"on {rates['threads']} {'thread' if rates['threads'] == 1 else 'threads'}{busy}")
    parts = [f"computing {hours(time['compute_hours'])}", f"writing {hours(time['write_hours'])}"]
    if not body["text"]["plan_in_store"]:
        parts.insert(0, f"tokenising {hours(time['tokenise_hours'])}")
    yield _entry("time", f"{hours(time['cache_hours'])} with one worker: {', '.join(parts)}")
    if time["workers"] > 1:
        yield _entry(
            "",
            f"{hours(time['cache_hours_with_workers'])} with {time['workers']:,} workers as fast as this one",
        )
    if time["runs_per_worker"]:
        yield _entry(
            "", f"{time['runs_per_worker']:,} runs of {time['max_minutes']:g} minutes for each worker"
        )
    yield _entry("", f"{hours(time['read_hours'])} for one process to read what a fit of all layers reads")
    case = body["passes"]["cases"][-1]
    yield _entry(
        "",
        f"{hours(case['save_s'] / 3600)} for a fit of them to save {size(case['save_bytes'])}, also when it is told to stop",
    )


def _room(room: Figures) -> Iterator[str]:
    limit = room["free_inodes"]
    free = "the file system sets no limit" if limit is None else f"{limit:,} free"
    yield _entry("room", f"{'it fits' if room['fits'] else 'DOES NOT FIT'}: {room['where']}")
    yield _entry("", f"{size(room['needed_bytes'])} needed, {size(room['free_bytes'])} free")
    yield _entry("", f"{room['needed_inodes']:,} files and directories needed, {free}")


def _passes(passes: Figures) -> Iterator[str]:
    yield "P passes of a fit over all rows, the writing of the cache included"
    yield f"  {'heads':<24}{'P':>4}{'cache':>12}{'no cache':>12}{'ratio':>8}  cache pays"
    for case in passes["cases"]:
        even = case["break_even_passes"]
        pays = "never" if even is None else f"from P = {even:.2f}"
        for index, entry in enumerate(case["passes"]):
            name = f"{case['name']} ({case['heads']} heads)" if index == 0 else ""
            yield (
                f"  {name:<24}{entry['passes']:>4}{hours(entry['cached_hours']):>12}"
                f"{hours(entry['recomputed_hours']):>12}{entry['ratio']:>8.2f}  {pays if index == 0 else ''}".rstrip()
            )
    yield f"  {passes['cost_model'].partition('; ')[0]}"
    us = {name: 1e6 * passes[f"{name}_s_per_row"] for name in ("compute", "write", "forward")}
    yield (
        f"  microseconds a row: c {us['compute']:,.0f}, w {us['write']:,.0f}, f {us['forward']:,.0f}; "
        + "; ".join(
            f"{case['name']} r {1e6 * case['read_s_per_row']:,.0f}, g {1e6 * case['fit_s_per_row']:,.0f}"
            for case in passes["cases"]
        )
    )


def _entry(name: str, value: str) -> str:
    return f"{name:<10}{value}"


def size(num_bytes: float) -> str:
    """In words, GB = 10^9 bytes."""
    for unit, worth in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= worth:
            return (
                f"{num_bytes / worth:.3g} {unit}"
                if num_bytes < 999.5 * worth
                else f"{num_bytes / worth:,.0f} {unit}"
            )
    return f"{num_bytes:.0f} B"


def hours(value: float) -> str:
    """In the unit that suits: hours, minutes or seconds."""
    if value >= 1:
        return f"{value:,.1f} h"
    return f"{60 * value:.1f} min" if value >= 1 / 60 else f"{3600 * value:.1f} s"
