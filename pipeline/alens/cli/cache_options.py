"""What a cache can be asked for: the options that `alens cache` and `alens plan` share, and the request they make."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from alens.cli.parameters import NAMES, chosen, layers_option
from alens.store.schema import CacheSettings

if TYPE_CHECKING:
    from alens.cache.request import CacheRequest

OPTIONS = (
    click.option(
        "--seq-len", type=int, default=CacheSettings.seq_len, show_default=True, help="Tokens a sequence."
    ),
    click.option(
        "--max-rows", type=int, help="At most this many rows, spread over the whole text.  [default: all]"
    ),
    layers_option("cache, such as 0,2,5-7", default="all"),
    click.option(
        "--top-k",
        type=int,
        default=CacheSettings.top_k,
        show_default=True,
        help="Most probable next tokens kept exactly a row.",
    ),
    click.option(
        "--tail-samples",
        type=int,
        default=CacheSettings.tail_samples,
        show_default=True,
        help="Tokens drawn a row from outside the top k.",
    ),
    click.option(
        "--exact-teacher",
        is_flag=True,
        help="Also store the final residual: the exact output, 2 bytes x d_model a row.",
    ),
    click.option(
        "--keep-bits",
        type=int,
        help="Round z to so many mantissa bits of 10 and compress it.  [default: all, uncompressed]",
    ),
    click.option(
        "--z-dtype",
        type=click.Choice(["float16", "int8"]),
        default=CacheSettings.z_dtype,
        show_default=True,
        help="Of stored z; int8 has a scale for each row and head.",
    ),
    click.option(
        "--sites",
        type=NAMES,
        metavar="SITES",
        help="Further sites beside attn.z: resid_post, mlp_out, or both.  [default: none]",
    ),
    click.option(
        "--rows-per-shard",
        type=int,
        default=CacheSettings.rows_per_shard,
        show_default=True,
        help="Rows a shard: the unit of work.",
    ),
    click.option(
        "--batch-size",
        type=int,
        default=CacheSettings.batch_size,
        show_default=True,
        help="Sequences a forward pass.",
    ),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
    click.option(
        "--dtype",
        type=click.Choice(["float32", "bfloat16", "float16"]),
        default=CacheSettings.dtype,
        show_default=True,
        help="Of the model.",
    ),
    click.option(
        "--seed", type=int, default=CacheSettings.seed, show_default=True, help="Of all random draws."
    ),
    click.option(
        "--split",
        help="Split of a data set, or `all` for every file.  [default: train, where files are split]",
    ),
    click.option("--corpus-config", help="Configuration of a data set that has several."),
    click.option("--text-column", default="text", show_default=True, help="Column with the text."),
    click.option("--document-column", help="Column whose change of value starts a new document."),
    click.option("--row-documents", is_flag=True, help="Each row is a document of its own."),
    click.option("--revision", help="Branch, tag or commit of a hub MODEL."),
    click.option("--corpus-revision", help="Branch, tag or commit of a hub CORPUS."),
)


def cache_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds all of OPTIONS, in their order."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def cache_request(given: dict[str, Any]) -> "CacheRequest":
    """The request that MODEL, CORPUS, STORE and the options make; worker 0/1 where none is given."""
    from alens.cache.request import CacheRequest
    from alens.job.worker import parse_worker
    from alens.text.corpus import CorpusOptions

    return CacheRequest(
        model=given["model"],
        corpus=given["corpus"],
        store=given["store"],
        settings=CacheSettings(**chosen(CacheSettings, given)),
        options=CorpusOptions(
            split=given["split"],
            configuration=given["corpus_config"],
            text_column=given["text_column"],
            document_column=given["document_column"],
            row_documents=given["row_documents"],
            revision=given["corpus_revision"],
        ),
        revision=given["revision"],
        device=given["device"],
        worker=parse_worker(given.get("worker", "0/1")),
    )
