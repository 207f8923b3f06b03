"""The requests of `alens cache` and of `alens verify --deep`, and the checks that need no reading and no writing."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from alens.errors import RequestError
from alens.fields import check
from alens.job.worker import Worker
from alens.remote.address import refuse
from alens.store.schema import CacheSettings
from alens.text.corpus import CorpusOptions

if TYPE_CHECKING:
    from alens.model.models import LoadedModel, ModelSource


@dataclass(frozen=True, kw_only=True)
class CacheRequest:
    """A request to write a cache."""

    model: str
    """A hub id, a local directory, or `demo`."""
    corpus: str
    """`bookcorpus`, a hub id, a file or directory of .txt, .jsonl or .parquet, or `demo`."""
    store: Path
    """The directory to write."""
    settings: CacheSettings = field(default_factory=CacheSettings)
    options: CorpusOptions = field(default_factory=CorpusOptions)
    revision: str | None = None
    """Branch, tag or commit of a hub MODEL."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    worker: Worker = field(default_factory=Worker)

    def __post_init__(self) -> None:
        check(self)
        refuse(self.store, "a cache is not written to")


@dataclass(frozen=True, kw_only=True)
class RecomputeRequest:
    """Which rows of a cache the model computes again."""

    rows: Annotated[int, Ge(1)]
    """Also compute N rows again with the model and compare, and as many sums of whole shards and effects of heads on sequences as have N rows."""
    model: str | None = None
    """Where the model for --deep is, if it is not where the cache says."""
    device: str = "auto"
    """For --deep: auto, cpu, cuda or cuda:N."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of the choice of rows for --deep."""

    def __post_init__(self) -> None:
        check(self)


def check_settings(settings: CacheSettings, source: "ModelSource") -> None:
    """Raises `RequestError` for settings that this model cannot have."""
    model = source.record
    for layer in settings.layers or ():
        if not 0 <= layer < model.n_layers:
            raise RequestError(
                f"layer {layer} does not exist: {model.id} has layers 0 to {model.n_layers - 1}"
            )
    if settings.layers is not None and (
        not settings.layers or len(set(settings.layers)) != len(settings.layers)
    ):
        raise RequestError("layers is empty or names a layer twice: name each layer once")
    if settings.top_k > model.d_vocab:
        raise RequestError(
            f"top_k is {settings.top_k}: {model.id} has {model.d_vocab} tokens in its vocabulary"
        )
    if settings.seq_len > model.n_ctx:
        raise RequestError(f"seq_len is {settings.seq_len}: {model.id} sees {model.n_ctx} tokens at most")


def with_bos(settings: CacheSettings, model: "LoadedModel") -> tuple[CacheSettings, int | None]:
    """Settings as a plan has them, `bos` true or None, and the token that each sequence begins with.

    Raises `RequestError` where BOS is asked for and the tokenizer has none.
    """
    token = model.beginning.chosen(settings.bos, f"the tokenizer of {model.source.record.id}")
    return dataclasses.replace(settings, bos=None if token is None else True), token
