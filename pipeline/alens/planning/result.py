"""An `Estimate` as plain numbers, each with its unit in its name: what `alens plan --json` prints."""

import math
import os
from typing import Any

from alens.planning.costs import break_even, passes_table
from alens.planning.estimate_cache import Estimate

COST_MODEL = "P passes: cache c + w + P max(r, g), no cache P (f + g); seconds a row of compute c, write w, read r, fit g, bare forward f"


def figures(found: Estimate) -> dict[str, Any]:
    """All of it, in the order of the work. No number is rounded."""
    return {
        "model": found.plan.model.id,
        "corpus": found.plan.corpus.id,
        "device": found.device,
        "text": _text(found),
        "bytes": _bytes(found),
        "rates": _rates(found),
        "time": _time(found),
        "room": _room(found),
        "passes": _passes(found),
    }


def _text(found: Estimate) -> dict[str, Any]:
    plan, text = found.plan, found.text
    return {
        "rows": plan.rows,
        "sequences": plan.tokens.sequences,
        "seq_len_tokens": plan.settings.seq_len,
        "shards": plan.num_shards,
        "rows_per_shard": plan.settings.rows_per_shard,
        "sequences_left_out": plan.tokens.sequences_left_out,
        "max_rows": plan.settings.max_rows,
        "selection": plan.tokens.selection or "all",
        "documents": plan.tokens.documents,
        "held_out_sequences": plan.tokens.held_out_sequences,
        "tokens": text.num_tokens if text else plan.rows,
        "exact": text.exact if text else True,
        "share_of_text_read": text.share_read if text else None,
        "plan_in_store": text is None,
        "shards_committed": found.shards_done,
        "shards_left": found.shards_left,
        "rows_left": found.rows_left,
    }


def _bytes(found: Estimate) -> dict[str, Any]:
    sizes = found.sizes
    name, largest_bytes = sizes.largest_file
    return {
        "arrays": [
            {
                "name": array.name,
                "first_axis": array.axis,
                "bytes_per_row": array.bytes_a_row if array.axis == "row" else None,
                "bytes_per_file": array.file_bytes,
                "files": array.num_files,
                "bytes": array.bytes,
                "measured": array.measured,
            }
            for array in sizes.arrays
        ],
        "rows_bytes": sizes.bytes_of("row"),
        "statistics_bytes": sizes.bytes_of("shard"),
        "weights_bytes": sum(a.bytes for a in sizes.arrays if a.axis not in ("row", "shard")),
        "tokens_bytes": sizes.tokens_bytes,
        "documents_bytes": sizes.documents_bytes,
        "records_bytes": sizes.num_shards * sizes.record_bytes + sizes.metadata_bytes,
        "bytes": sizes.bytes,
        "bytes_per_shard": sizes.shard_bytes,
        "files": sizes.files,
        "directories": sizes.directories,
        "inodes": sizes.inodes,
        "files_per_shard": sizes.files_a_shard,
        "largest_file": name,
        "largest_file_bytes": largest_bytes,
        "worker_memory_bytes": found.memory_bytes,
        "shard_memory_bytes": sizes.shard_memory_bytes,
        "worker_device_memory_bytes": found.model.device_bytes,
    }


def _rates(found: Estimate) -> dict[str, Any]:
    costs, text, disk = found.costs, found.text, found.disk
    return {
        "probe_rows": found.model.plan.rows,
        "forward_rows_per_s": 1 / costs.forward_s,
        "compute_rows_per_s": 1 / costs.compute_s,
        "write_rows_per_s": 1 / costs.write_s,
        "fit_head_rows_per_s": 1 / found.fit_head_s,
        "tokenise_tokens_per_s": text.tokens_a_second if text else None,
        "disk_probe_bytes": disk.probe_bytes,
        "disk_write_bytes_per_s": 1 / disk.write_s_a_byte,
        "disk_read_bytes_per_s": 1 / disk.read_s_a_byte,
        "disk_sync_s": disk.sync_s,
        "hash_bytes_per_s": 1 / disk.hash_s_a_byte,
        "threads": found.threads,
        "load": found.load,
        "cpus": os.cpu_count(),
    }


def _time(found: Estimate) -> dict[str, Any]:
    costs, rows = found.costs, found.rows_left
    hours = found.cache_hours(found.workers)
    jobs = None
    if found.max_minutes:
        jobs = max(1, math.ceil(60 * hours / found.max_minutes))
    return {
        "tokenise_hours": found.tokenise_hours,
        "compute_hours": rows * costs.compute_s / 3600,
        "write_hours": rows * costs.write_s / 3600,
        "cache_hours": found.cache_hours(1),
        "workers": found.workers,
        "cache_hours_with_workers": hours,
        "max_minutes": found.max_minutes,
        "runs_per_worker": jobs,
        "read_hours": found.plan.rows * found.fit_costs(found.plan.layers).read_s / 3600,
    }


def _room(found: Estimate) -> dict[str, Any]:
    room = found.room
    return {
        "where": room.where,
        "needed_bytes": room.needed_bytes,
        "free_bytes": room.free_bytes,
        "needed_inodes": room.needed_inodes,
        "free_inodes": room.free_inodes,
        "fits": room.shortfall() is None,
    }


def _passes(found: Estimate) -> dict[str, Any]:
    layers = found.plan.layers
    cases = {f"layer {layers[0]}": layers[:1]}
    if len(layers) > 1:
        cases[f"{len(layers)} layers"] = layers
    costs = found.costs
    return {
        "cost_model": COST_MODEL,
        "forward_s_per_row": costs.forward_s,
        "compute_s_per_row": costs.compute_s,
        "write_s_per_row": costs.write_s,
        "cases": [_case(found, name, chosen) for name, chosen in cases.items()],
    }


def _case(found: Estimate, name: str, layers: tuple[int, ...]) -> dict[str, Any]:
    fit, save_bytes = found.fit_costs(layers), found.save_bytes(layers)
    even = break_even(found.costs, fit, found.rows_left / found.plan.rows)
    return {
        "name": name,
        "heads": fit.heads,
        "read_s_per_row": fit.read_s,
        "fit_s_per_row": fit.fit_s,
        "save_bytes": save_bytes,
        "save_s": found.disk.save_s(save_bytes),
        "break_even_passes": even if math.isfinite(even) else None,
        "passes": [
            {
                "passes": entry.passes,
                "cached_hours": entry.cached_hours,
                "recomputed_hours": entry.recomputed_hours,
                "ratio": entry.ratio,
            }
            for entry in passes_table(found.costs, fit, found.plan.rows, found.rows_left)
        ],
    }
