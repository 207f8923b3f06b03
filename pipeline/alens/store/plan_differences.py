"""How a stored plan differs from a request.

In: a plan, and the model, text, tokenizer and settings of a request. Out: the differences, for one line to the user.
"""

import dataclasses

from alens.store import same_model
from alens.store.model_record import ModelRecord
from alens.store.schema import NUMERICS, CacheSettings, CorpusFile, CorpusRecord, Plan


def differences(
    stored: Plan, model: ModelRecord, corpus: CorpusRecord, tokenizer_sha256: str, settings: CacheSettings
) -> list[str]:
    """What differs between the request and the plan `stored`, a phrase for each difference; empty where all agrees."""
    phrases = []
    if stored.numerics != NUMERICS:
        phrases.append(
            "it was begun by another alens, which computes other last bits: finish it with that one"
        )
    if (phrase := same_model.difference(stored.model, model)) is not None:
        phrases.append(f"the model is {model.id} with {phrase} (the cache: {stored.model.id})")
    if stored.tokens.tokenizer_sha256 != tokenizer_sha256:
        phrases.append("the tokenizer is another")
    if not _same_files(stored.corpus.files, corpus.files):
        phrases.append(f"the corpus is {corpus.id} with other files (the cache: {stored.corpus.id})")
    for name in ("split", "configuration", "text_column", "document_column", "row_documents"):
        phrases += _difference(name, getattr(stored.corpus, name), getattr(corpus, name))
    if settings.final_moments is not None:  # what a default means may change, and either cache serves it
        phrases += _difference("final_moments", bool(stored.settings.final_moments), settings.final_moments)
    for field in dataclasses.fields(CacheSettings):
        if field.name not in ("layers", "bos", "final_moments"):
            phrases += _difference(
                field.name, getattr(stored.settings, field.name), getattr(settings, field.name)
            )
    if settings.bos is not None:  # otherwise a cache that was begun goes on as it is
        phrases += _difference("bos", bool(stored.settings.bos), settings.bos)
    asked_layers = settings.layers if settings.layers is not None else stored.model.layers_with_heads
    return phrases + _difference("layers", list(stored.layers), list(asked_layers))


def _same_files(stored: tuple[CorpusFile, ...], asked: tuple[CorpusFile, ...]) -> bool:
    """Compares sizes, and hashes where they are known: only the first worker reads the text."""
    return len(stored) == len(asked) and all(
        one.bytes == other.bytes and other.sha256 in (None, one.sha256)
        for one, other in zip(stored, asked, strict=True)
    )


def _difference(name: str, stored: object, asked: object) -> list[str]:
    return [] if stored == asked else [f"{name} is {_said(asked)} (the cache: {_said(stored)})"]


def _said(value: object) -> object:
    return ",".join(map(str, value)) if isinstance(value, tuple) else value
