"""In what a stored plan is not what is asked for now.

In: a plan, and the model, text, tokenizer and settings of a request. Out: the differences, for one line to a user.
"""

import dataclasses

from alens.store import same_model
from alens.store.model_record import ModelRecord
from alens.store.schema import NUMERICS, CacheSettings, CorpusFile, CorpusRecord, Plan


def differences(
    stored: Plan, model: ModelRecord, corpus: CorpusRecord, tokenizer_sha256: str, settings: CacheSettings
) -> list[str]:
    """What was asked for now and is not what `stored` was made from, a phrase each; empty when all agrees."""
    found = []
    if stored.numerics != NUMERICS:
        found.append("it was begun by another alens, which computes other last bits: finish it with that one")
    if (phrase := same_model.difference(stored.model, model)) is not None:
        found.append(f"the model is {model.id} with {phrase} (the cache: {stored.model.id})")
    if stored.tokens.tokenizer_sha256 != tokenizer_sha256:
        found.append("the tokenizer is another")
    if not _same_files(stored.corpus.files, corpus.files):
        found.append(f"the corpus is {corpus.id} with other files (the cache: {stored.corpus.id})")
    for name in ("split", "configuration", "text_column", "document_column", "row_documents"):
        found += _difference(name, getattr(stored.corpus, name), getattr(corpus, name))
    for field in dataclasses.fields(CacheSettings):
        if field.name != "layers":
            found += _difference(
                field.name, getattr(stored.settings, field.name), getattr(settings, field.name)
            )
    asked_layers = settings.layers if settings.layers is not None else tuple(range(model.n_layers))
    return found + _difference("layers", list(stored.layers), list(asked_layers))


def _same_files(stored: tuple[CorpusFile, ...], asked: tuple[CorpusFile, ...]) -> bool:
    """By size, and by hash where it is known: no worker but the first reads the text."""
    return len(stored) == len(asked) and all(
        one.bytes == other.bytes and other.sha256 in (None, one.sha256)
        for one, other in zip(stored, asked, strict=True)
    )


def _difference(name: str, stored: object, asked: object) -> list[str]:
    return [] if stored == asked else [f"{name} is {_said(asked)} (the cache: {_said(stored)})"]


def _said(value: object) -> object:
    return ",".join(map(str, value)) if isinstance(value, tuple) else value
