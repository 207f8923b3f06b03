"""`alens verify`: is every byte of a cache as it was written, and does the model still compute its numbers?"""

import contextlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alens.cache.request import RecomputeRequest
from alens.cli.console import aside, show, show_json
from alens.cli.options import Flag, SettingsOptions, json_option
from alens.cli.value_types import PathName, not_empty
from alens.cli.watch import stopping, watching
from alens.errors import DamageError, RequestError
from alens.pictures.numbers import duration, percent, significant
from alens.printable import printable
from alens.remote.address import address, refuse
from alens.store.paths import EFFECTS

if TYPE_CHECKING:
    from alens.cache.recompute import Recomputed
    from alens.job.progress import Report
    from alens.store.findings import Finding
    from alens.store.verify import Verdict

DEEP = SettingsOptions(
    RecomputeRequest, rows=Flag("--deep", metavar="N", required=False), model=Flag(callback=not_empty)
)


@click.command("verify", epilog="Example: alens verify gpt2-cache --deep 256")
@click.argument("store", type=PathName())
@click.option(
    "--repair", is_flag=True, help="Queue what is damaged: `alens cache` with the same arguments rewrites it."
)
@DEEP
@json_option
def command(store: Path, repair: bool, as_json: bool, **given: Any) -> None:
    """Read every byte of the cache STORE and name what is damaged, missing, foreign or unfinished.

    STORE may be at s3:// or https://: every byte is read from there, and none is kept. Foreign and unfinished files are
    named where objects can be listed (s3://). The exit code is 0 when nothing is damaged or missing, otherwise 1. Nothing is changed without --repair.
    """

    if given["model"] is not None and given["deep"] is None:
        raise RequestError("--model is for --deep: say how many rows to compute again, such as --deep 256")
    if repair:
        refuse(store, "--repair changes nothing at")
    deep = None if given["deep"] is None else RecomputeRequest(**DEEP.values(given))
    findings: list[Finding] = []
    verdict, recomputed = None, None
    try:
        with stopping() as should_stop, watching() as report:
            from alens.store.verify import verify_cache

            if deep is not None:
                _check_model(store, deep, report)
            verdict = verify_cache(store, on_finding=findings.append, report=report, should_stop=should_stop)
            if deep is not None and verdict.whole:
                from alens.cache.recompute import recompute
                from alens.store.cache_reader import open_cache

                recomputed = recompute(open_cache(store), deep, report=report, should_stop=should_stop)
    finally:  # also where the work is stopped or fails half-way
        if not as_json:
            with aside():  # the exit code says whether the cache is whole
                show(*map(_line, findings))
    from alens.store.repair import queued
    from alens.store.repair import repair as queue

    would = queued(store, findings) if address(store) is None else []
    went = queue(store, findings) if repair else {}
    with aside():
        if as_json:
            show_json(_body(store, verdict, would, went, recomputed))
        else:
            _queue(store, would, went)
            _summary(verdict, recomputed)
    _judge(store, verdict, list(went), deep, recomputed)


def _check_model(store: Path, deep: RecomputeRequest, report: "Report") -> None:
    """Raises `RequestError` when the model for --deep cannot be loaded, before all bytes are read and not after."""
    from alens.machine.device import torch_device
    from alens.model.models import find_again
    from alens.store.cache_reader import open_cache

    torch_device(deep.device)
    with contextlib.suppress(DamageError):  # verifying says it, and more
        find_again(open_cache(store).plan.model, store, model=deep.model, report=report)


def _line(finding: "Finding") -> str:
    hint = f" ({finding.mend})" if finding.fails and not finding.queue else ""
    return f"{finding.kind:<10}  {finding.path}  {finding.what}{hint}"


def _queue(store: Path, would: list[str], went: dict[str, str | None]) -> None:
    """Shows what --repair did, or would do: nothing is moved without a line."""
    from alens.store.durable import PARTIAL
    from alens.store.paths import ASIDE

    for path, to in went.items():
        where = "was removed" if to is None else f"was moved to {printable(to)}"
        show(f"{'queued':<10}  {printable(path)}  {where}")
    if any(went.values()):
        show(
            f"run {_again(list(went))} again, with the same arguments, to rewrite what was queued in {store}"
        )
    for path in () if went else would:
        what = "remove it" if path.endswith(PARTIAL) else f"move it into {ASIDE}/"
        show(f"{'repairable':<10}  {printable(path)}  --repair would {what}")


def _summary(verdict: "Verdict", recomputed: "Recomputed | None") -> None:
    if recomputed is not None:
        for array in recomputed.comparisons:
            state = "agrees" if array.agrees else "differs"
            where = "" if array.shard is None else f" in shard {array.shard}"
            if array.row is not None:
                where = f" at row {array.row} of shard {array.shard}"
            show(
                f"{state:<10}  {array.array}  by {significant(array.difference)} of {significant(array.tolerance)} allowed{where}"
            )
        if recomputed.rows:
            share = recomputed.tail_moved / recomputed.tail_draws
            show(
                f"{recomputed.rows:,} rows were computed again; {recomputed.tail_moved:,} of {recomputed.tail_draws:,} "
                f"tail draws ({percent(share)}) fall on another token"
            )
        if recomputed.shards:
            shards = "shard" if recomputed.shards == 1 else "shards"
            show(f"the sums of {recomputed.shards:,} whole {shards} were computed again")
        else:
            show("no sums were computed again: that takes --deep with as many rows as a shard has")
        if recomputed.effects:
            what = "one head" if recomputed.effects == 1 else f"{recomputed.effects:,} heads"
            show(f"effects of {what} on whole sequences were computed again")
    missing = "an unknown number" if verdict.shards_missing is None else verdict.shards_missing
    show(
        f"{verdict.files:,} files, {verdict.bytes:,} bytes in {duration(verdict.seconds)}; "
        f"{verdict.shards_committed} shards committed, {missing} missing"
    )


def _body(
    store: Path,
    verdict: "Verdict",
    would: list[str],
    went: dict[str, str | None],
    recomputed: "Recomputed | None",
) -> dict[str, Any]:
    checked = verdict.to_json()
    return {
        "store": str(address(store) or store),
        "whole": checked.pop("whole"),
        "findings": checked.pop("findings"),
        "repairable": [] if went else [printable(path) for path in would],
        "queued": [printable(path) for path in went],
        "moved_to": {printable(path): None if to is None else printable(to) for path, to in went.items()},
        **checked,
        "deep": None if recomputed is None else recomputed.to_json(),
    }


def _again(queued: list[str]) -> str:
    """The commands that rewrite these files."""
    effects = [path.startswith(f"{EFFECTS}/") for path in queued]
    commands = ["`alens cache`"] * (not all(effects)) + ["`alens effects`"] * any(effects)
    return " and ".join(commands)


def _files(counts: list[str]) -> str:
    """`3 damaged`, `1 missing` -> `3 files damaged, 1 missing`"""
    number, kind = counts[0].split()
    return ", ".join([f"{number} {'file' if number == '1' else 'files'} {kind}", *counts[1:]])


def _judge(
    store: Path,
    verdict: "Verdict",
    queued: list[str],
    deep: RecomputeRequest | None,
    recomputed: "Recomputed | None",
) -> None:
    """Raises `DamageError` with one line for all the findings."""
    remote = address(store)
    if not verdict.whole:
        damaged, missing = verdict.count("damaged"), verdict.count("missing")
        counts = [
            f"{number} {kind}" for number, kind in ((damaged, "damaged"), (missing, "missing")) if number
        ]
        mend = "the lines above say what to do"
        if queued:
            mend = f"run {_again(queued)} again to rewrite what was queued"
        elif remote is not None:
            mend = "mend the cache that was copied there, and copy it again"
        elif any(finding.fails and finding.queue for finding in verdict.findings):
            mend = f"`alens verify {shlex.quote(str(store))} --repair` queues them"
        skipped = "; --deep was left out" if deep is not None else ""
        raise DamageError(f"{_files(counts)} in {remote or store}: {mend}{skipped}")
    if recomputed is not None and not recomputed.agrees:
        wrong = [array for array in recomputed.comparisons if not array.agrees]
        if all(array.array.startswith(f"{EFFECTS}/") for array in wrong):
            raise DamageError(
                f"{wrong[0].array} in {store} is not what the model loses without these heads: move {store}/{EFFECTS} "
                f"away, then run `alens effects` again"
            )
        shards = sorted({array.shard for array in wrong if array.shard is not None})
        where = f"move away {store}/MANIFEST.json and the records in {store}/commits of shards {','.join(map(str, shards))}"
        if not shards:
            where = f"move {store}/commits/model.json away"
        raise DamageError(
            f"{len(wrong)} arrays in {store} are not what the model computes, {wrong[0].array} among them: "
            f"{where}, then run `alens cache` again"
        )
