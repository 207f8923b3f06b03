"""`alens cache`: stage one from the command line."""

from pathlib import Path
from typing import Any

import click

from alens.cli.parameters import NUMBERS, chosen, config_option
from alens.store.schema import CacheSettings


@click.command(
    "cache",
    epilog="Example: alens cache gpt2 bookcorpus gpt2-cache --max-rows 20000000 --layers 8-11",
)
@click.argument("model")
@click.argument("corpus")
@click.argument("store", type=click.Path(path_type=Path))
@click.option(
    "--seq-len", type=int, default=CacheSettings.seq_len, show_default=True, help="Tokens a sequence."
)
@click.option(
    "--max-rows", type=int, help="At most this many rows, from the start of the text.  [default: all]"
)
@click.option("--layers", type=NUMBERS, help="Layers to cache, such as 0,2,5-7.  [default: all]")
@click.option(
    "--top-k",
    type=int,
    default=CacheSettings.top_k,
    show_default=True,
    help="Most probable next tokens kept exactly a row.",
)
@click.option(
    "--tail-samples",
    type=int,
    default=CacheSettings.tail_samples,
    show_default=True,
    help="Tokens drawn a row from outside the top k.",
)
@click.option(
    "--exact-teacher",
    is_flag=True,
    help="Also store the final residual: the exact output, 2 bytes x d_model a row.",
)
@click.option(
    "--rows-per-shard",
    type=int,
    default=CacheSettings.rows_per_shard,
    show_default=True,
    help="Rows a shard: the unit of work.",
)
@click.option(
    "--batch-size",
    type=int,
    default=CacheSettings.batch_size,
    show_default=True,
    help="Sequences a forward pass.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default=CacheSettings.dtype,
    show_default=True,
    help="Of the model.",
)
@click.option("--seed", type=int, default=CacheSettings.seed, show_default=True, help="Of all random draws.")
@click.option("--split", default="train", show_default=True, help="Split of the dataset.")
@click.option("--text-column", default="text", show_default=True, help="Column with the text.")
@click.option("--document-column", help="Column whose change of value starts a new document.")
@click.option("--row-documents", is_flag=True, help="Each row is a document of its own.")
@click.option("--revision", help="Branch, tag or commit of a hub MODEL.")
@click.option("--corpus-revision", help="Branch, tag or commit of a hub CORPUS.")
@click.option(
    "--worker",
    default="0/1",
    show_default=True,
    metavar="I/N",
    help="This job's share: the I-th (from 0) of N.",
)
@click.option("--max-minutes", type=float, help="Stop cleanly after so many minutes (exit code 75).")
@config_option
def command(**given: Any) -> None:
    """Run MODEL once over CORPUS and write what every head computes to STORE.

    MODEL is a hub id, a Hugging Face directory, or `demo`. CORPUS is `bookcorpus`, a hub id, a file or
    directory of .parquet, .jsonl or .txt, or `demo`. Run it again to go on: it writes what is missing.
    """
    from alens.cache.plan import parse_worker
    from alens.cache.run import CacheRequest, write_cache
    from alens.cache.text import CorpusOptions
    from alens.cli.watch import stopping, watching

    settings = CacheSettings(**chosen(CacheSettings, given))
    options = CorpusOptions(
        split=given["split"],
        text_column=given["text_column"],
        document_column=given["document_column"],
        row_documents=given["row_documents"],
        revision=given["corpus_revision"],
    )
    request = CacheRequest(
        model=given["model"],
        corpus=given["corpus"],
        store=given["store"],
        settings=settings,
        options=options,
        revision=given["revision"],
        device=given["device"],
        worker=parse_worker(given["worker"]),
    )
    with stopping(given["max_minutes"]) as should_stop, watching() as report:
        summary = write_cache(request, report=report, should_stop=should_stop)
    cache = summary.cache
    rate = f", {summary.rows_written / summary.seconds:,.0f} rows/s" if summary.rows_written else ""
    click.echo(f"wrote {summary.shards_written} shards ({summary.rows_written:,} rows{rate}) to {cache.root}")
    if cache.sealed:
        click.echo(f"sealed: {cache.plan.num_shards} shards, {cache.plan.rows:,} rows")
    else:
        click.echo(f"not sealed yet: {len(cache.shards)} of {cache.plan.num_shards} shards are committed")
    if cache.plan.tokens.sequences_left_out:
        click.echo(
            f"left out: the last {cache.plan.tokens.sequences_left_out} sequences of the text, which do not fill a shard"
        )
