"""`alens cache`: stage one from the command line. `alens plan` shares its options and the request they make."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from alens.cache.request import CacheRequest
from alens.cli.config_file import config_option
from alens.cli.console import aside, show
from alens.cli.options import LAYERS, Flag, SettingsOptions, max_minutes_option, worker_option
from alens.cli.value_types import PathName, not_empty
from alens.cli.watch import starting, stopping, watching
from alens.pictures.numbers import number_of, whole
from alens.store.schema import CacheSettings
from alens.text.corpus import CorpusOptions

if TYPE_CHECKING:
    from alens.cache.write_cache import CacheSummary

CACHE = SettingsOptions(
    CacheSettings,
    ranges=False,
    layers=LAYERS,
    sites=Flag(metavar="SITES"),
    moments_only=Flag("--moments-only"),
    final_moments=Flag("--final-moments/--no-final-moments"),
)
CORPUS = SettingsOptions(
    CorpusOptions, configuration=Flag("--corpus-config"), revision=Flag("--corpus-revision")
)
REQUEST = SettingsOptions(CacheRequest, only=("revision", "device"))


def cache_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds what `alens cache` and `alens plan` share."""
    return CACHE(CORPUS(REQUEST(command)))


def cache_request(given: dict[str, Any]) -> CacheRequest:
    """The request, with the job's share of the work where there is `worker`."""
    from alens.job.worker import parse_worker

    return CacheRequest(
        model=given["model"],
        corpus=given["corpus"],
        store=given["store"],
        settings=CacheSettings(**CACHE.values(given)),
        options=CorpusOptions(**CORPUS.values(given)),
        worker=parse_worker(given["worker"]),
        **REQUEST.values(given),
    )


@click.command(
    "cache",
    epilog="Example: alens cache gpt2 bookcorpus gpt2-cache --max-rows 20000000 --layers 8-11",
)
@click.argument("model", callback=not_empty)
@click.argument("corpus", callback=not_empty)
@click.argument("store", type=PathName())
@cache_options
@worker_option
@max_minutes_option
@config_option
def command(**given: Any) -> None:
    """Run MODEL once over CORPUS and write what every head computes to STORE.

    MODEL is a hub id, a Hugging Face directory, a GGUF file, or `demo`. CORPUS is `bookcorpus`, a hub id, a file or directory of
    .parquet, .arrow, .jsonl or .txt, or `demo`. Run the same command again to resume: it writes what is missing.

    If CORPUS is a directory, every .parquet, .arrow, .jsonl or .txt file below it is read once, in the order of the
    paths; links to files and folders are followed. Hidden files, README.txt, LICENSE.txt and files of other kinds,
    .txt.gz among them, are not read; one line says what was left out. A split is chosen only where it is named by the
    files (train-00000-of-00002.parquet), by folders such as train/ and test/, by files that are all called train,
    validation or test, or by the card (README.md) of a data set.
    """

    with stopping(given["max_minutes"]) as should_stop, watching() as report:
        with starting():
            from alens.cache.write_cache import (
                write_cache,
            )  # seconds of imports, in which a signal may come, too

        request = cache_request(given)
        summary = write_cache(request, report=report, should_stop=should_stop)
    with aside():
        _show(summary)


def _show(summary: "CacheSummary") -> None:
    cache = summary.cache
    rate = f", {whole(summary.rows_written / summary.seconds)} rows/s" if summary.rows_written else ""
    show(
        f"wrote {number_of(summary.shards_written, 'shard')} ({summary.rows_written:,} rows{rate}) to {cache.root}"
    )
    if cache.sealed:
        show(f"sealed: {number_of(cache.plan.num_shards, 'shard')}, {cache.plan.rows:,} rows")
    else:
        show(f"not sealed yet: {summary.shards_committed} of {cache.plan.num_shards} shards are committed")
    tokens, most = cache.plan.tokens, cache.plan.settings.max_rows
    if tokens.selection == "spread" and most is not None and cache.plan.rows < most:
        size = cache.plan.settings.rows_per_shard
        show(f"of the {most:,} rows of --max-rows, {cache.plan.rows:,}: shards are whole, of {size:,} rows")
    if tokens.sequences_left_out:
        sides = "the text, or of a side of it," if tokens.held_out_sequences else "the text,"
        show(f"left out: the last {tokens.sequences_left_out} sequences of {sides} which do not fill a shard")
