"""`alens info`: what a cache or a lens directory holds, and how much of a cache is written."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alens.cli.console import show, show_json
from alens.cli.info_lenses import bos_said, lenses_body
from alens.cli.options import json_option
from alens.cli.value_types import PathName
from alens.cli.watch import starting, watching
from alens.errors import RequestError
from alens.heads import listed
from alens.job.progress import Report, counted
from alens.pictures.numbers import number_of, whole
from alens.remote.address import address
from alens.sources import hub
from alens.store.claim import Holder, read
from alens.store.paths import LENS_JSON, PLAN, REACHES, StorePaths

if TYPE_CHECKING:
    from alens.store.cache_reader import Cache
    from alens.store.model_record import ModelRecord
    from alens.store.schema import Plan
    from alens.store.status import CacheStatus

R2_SHARDS = 8
"""Shards whose moments are read: enough rows to see which heads count, and quick."""


@click.command(
    "info",
    epilog="Example: alens info gpt2-cache --array 16",
)
@click.argument("path", type=PathName())
@click.option(
    "--array",
    "num_workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Print only which of N workers have shards to write, as an array specification (3,17,42-45); nothing when none has.",
)
@click.option(
    "--all",
    "all_parts",
    is_flag=True,
    help="Also list every array, worker, layer and head, which do not fit a screen. --json always has all.",
)
@json_option
def command(path: Path, num_workers: int | None, all_parts: bool, as_json: bool) -> None:
    """Show what the cache or the lens directory PATH holds, and how much of a cache is written.

    PATH may also be lenses on the hub, hf://OWNER/NAME; then only lens.json is fetched. Only records are read, and
    the sums of a few shards where they tell the r2 of heads, which says where a lens is worth its fit. So this is
    quick, also on a log-in node and while jobs write. Pass what --array prints to `sbatch --array`, to submit
    again only the workers that have shards to write.
    """

    with watching() as report, starting():
        body = _body(path, num_workers, report)
    if isinstance(body, str):
        if body:
            show(body)
        return
    if as_json:
        show_json(body)
        return
    from alens.cli.info_text import lines

    show(*lines(body, all_parts))


def _body(path: Path, num_workers: int | None, report: Report) -> dict[str, Any] | str:
    """What PATH holds, or the array specification that was asked for."""
    from alens.lens.directory import LensDirectory

    if num_workers is None and hub.address(path) is not None:
        return lenses_body(path)
    store, lenses = StorePaths(path), LensDirectory(path)
    if store.plan.exists() or address(path) is not None:
        return _cache(path, report) if num_workers is None else _array(path, num_workers)
    if num_workers is not None:
        raise RequestError(f"--array is for caches, and {path} has no {PLAN}")
    holder = read(lenses.claim)
    if lenses.holds_lenses:
        return lenses_body(path) | ({} if holder is None else {"in_use_by": held(holder)})
    if holder is not None and not holder.is_dead:
        raise RequestError(f"{path} is being fitted by {held(holder)}: ask again when it has ended")
    if lenses.holds_fit:
        ended = "" if holder is None else f" ({held(holder)}, has ended)"
        raise RequestError(
            f"{path} is a fit that has not finished: run the same `alens fit` again to go on{ended}"
        )
    if store.claim.exists():
        raise RequestError(f"{path} has no plan yet: {_maker(store)} is making it; ask again later")
    raise RequestError(f"{path} is neither a cache (no {PLAN}) nor lenses (no {LENS_JSON})")


def _maker(store: StorePaths) -> str:
    holder = read(store.claim)
    return "another job" if holder is None else held(holder)


def held(holder: Holder) -> str:
    """`process 12 on host, since 2026-01-01 12:00:00 UTC`."""
    if holder.since is None:
        return str(holder)
    return f"{holder}, since {datetime.fromtimestamp(holder.since, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _array(path: Path, num_workers: int) -> str:
    from alens.store.cache_reader import open_cache
    from alens.store.status import array_specification, missing_shards, workers_to_run

    return array_specification(workers_to_run(missing_shards(open_cache(path)), num_workers))


def _cache(path: Path, report: Report) -> dict[str, Any]:
    from alens.store import final_moments
    from alens.store.arrays import all_arrays
    from alens.store.cache_reader import open_cache
    from alens.store.status import array_specification, cache_status, specification_of, workers_to_run

    cache = open_cache(path)
    progress = cache_status(cache, report)
    plan, model = cache.plan, cache.plan.model
    specs = all_arrays(plan).values()
    software = progress.software
    to_run = array_specification(workers_to_run(progress.missing, progress.num_workers))
    return {
        "cache": str(cache.root),
        "state": "sealed"
        if cache.sealed
        else f"{progress.shards_done} of {progress.shards_planned} shards committed",
        "missing_shards": specification_of(progress.missing) or "none",
        "workers_to_run": f"{to_run} of {progress.num_workers}" if to_run else "none",
        "workers": [
            {
                "worker": worker.worker,
                "shards": number_of(worker.shards, "shard"),
                "rows_per_second": f"{whole(worker.rows_per_second)} rows/s",
                "last_commit": f"last at {datetime.fromtimestamp(worker.last_commit, UTC):%Y-%m-%d %H:%M:%S} UTC",
            }
            for worker in progress.workers
        ],
        "plan": plan.identity,
        "fingerprint": cache.fingerprint or "none yet",
        "model": f"{model.id}{f' at {model.revision}' if model.revision else ''}: {model.architecture}, {model.n_layers} layers{_heads_in(model)}, "
        f"{model.n_heads} heads of {model.d_head}, d_model {model.d_model}, vocabulary {model.d_vocab:,}",
        "corpus": f"{plan.corpus.id}{f' at {plan.corpus.revision}' if plan.corpus.revision else ''}: split {plan.corpus.split}, "
        f"{number_of(len(plan.corpus.files), 'file')}",
        **_sampled(progress),
        "rows": progress.shards_done * plan.settings.rows_per_shard,
        "rows_planned": plan.rows,
        "taken": _taken(plan),
        "documents": _documents(plan),
        "bos": bos_said(plan.tokens.bos),
        "layers": ",".join(map(str, plan.layers)),
        "sites": ",".join(("attn.z", *(plan.settings.sites or ()))),
        "z": _encoding(plan.settings),
        "targets": _targets(plan.settings),
        "effects": _effects(cache),
        **_jacobians(cache),
        "bytes_per_row": sum(spec.row_bytes for spec in specs if spec.dimensions[0] == "row"),
        "bytes": progress.bytes,
        "software": "; ".join(software)
        + (" (a mixture: shards may differ in the last bits)" if len(software) > 1 else ""),
        "r2": _r2(cache, report) if final_moments.kept(plan.settings) else [],
        "arrays": [
            {
                "name": spec.name,
                "shape": "x".join(map(str, spec.shape)),
                "dtype": spec.dtype,
                "meaning": spec.meaning,
            }
            for spec in specs
        ],
    }


def _sampled(progress: "CacheStatus") -> dict[str, str]:
    """That not all records were read."""
    if progress.records_read == progress.shards_done:
        return {}
    return {
        "records_read": f"{progress.records_read:,} of {progress.shards_done:,}: bytes, software and what workers did are "
        "of these shards (every byte: alens verify)"
    }


def _r2(cache: "Cache", report: Report) -> list[dict[str, Any]]:
    """By layer, the R2 of each head, on the rows of the first shards: where a lens is worth its fit."""
    from alens.heads import Heads
    from alens.lens.closed_form import closed_form
    from alens.store.status import counted_shards

    shards = counted_shards(cache)[:R2_SHARDS]
    shards = cache.commits.committed(shards)
    entries = []
    for layer in counted(cache.plan.layers if shards else (), report, "reading moments", "layers"):
        heads = Heads.grid([layer], range(cache.plan.model.n_heads))
        closed = closed_form(cache, heads, shards)[layer]
        r2 = [round(float(r2), 5) for r2 in closed.r2_H]
        entries.append({"layer": layer, "rows": closed.num_rows, "r2": r2})
    return entries


def _taken(plan: "Plan") -> str:
    """Which sequences of the text were taken."""
    tokens = plan.tokens
    if tokens.selection == "spread":
        return f"{tokens.sequences:,} sequences, spread over the whole text"
    if plan.settings.max_rows is not None and not tokens.sequences_left_out:
        return f"the first {tokens.sequences:,} sequences of the text"
    return "the whole text" + (
        f" but {tokens.sequences_left_out:,} sequences that do not fill a shard"
        if tokens.sequences_left_out
        else ""
    )


def _heads_in(model: "ModelRecord") -> str:
    """Which layers of a hybrid have heads."""
    return "" if model.attention_layers is None else f", of which {listed(model.attention_layers)} have heads"


def _documents(plan: "Plan") -> str:
    """What is known of documents, and which shards hold those that no fit trains on."""
    tokens, held_out = plan.tokens, plan.shards_of_held_out_documents
    if tokens.documents is None:
        return "not known"
    taken = f"{tokens.documents:,}"
    if tokens.documents_taken is not None:
        taken = f"{tokens.documents_taken:,} of {tokens.documents:,}"
    if not held_out:
        return f"{taken}, none held out"
    shards = f"shard {held_out[0]}" if len(held_out) == 1 else f"shards {held_out[0]}-{held_out[-1]}"
    count = "" if tokens.documents_held_out is None else f"{tokens.documents_held_out:,} "
    return f"{taken}, {count}held out in {shards}"


def _targets(settings: Any) -> str:
    if settings.moments_only:
        return "none, only the mean output"
    exact = ", exact teacher" if settings.exact_teacher else ""
    return f"top {settings.top_k} and {settings.tail_samples} tail samples{exact}"


def _effects(cache: "Cache") -> str:
    """How many effects `alens effects` has measured."""
    from alens.store.effect_reader import measured

    heads, rows = measured(cache)
    return f"of {number_of(heads, 'head')}, on up to {rows:,} rows" if heads else "not measured"


def _jacobians(cache: "Cache") -> dict[str, str]:
    """How many Jacobians `alens jacobians` has measured, of each reach that there is."""
    from alens.store.jacobian_reader import measured_jacobians

    by_reach = {reach: measured_jacobians(cache, reach) for reach in REACHES}
    lines = [
        f"{reach} of {number_of(heads, 'head')}, on up to {rows:,} rows"
        for reach, (heads, rows) in by_reach.items()
        if heads
    ]
    return {"jacobians": ", ".join(lines)} if lines else {}


def _encoding(settings: Any) -> str:
    if settings.moments_only:
        return "only sums over each shard"
    if settings.z_dtype == "int8":
        return "int8, with a scale for each row and head"
    if settings.keep_bits is not None:
        return f"float16 rounded to {settings.keep_bits} mantissa bits, compressed"
    return "float16"
