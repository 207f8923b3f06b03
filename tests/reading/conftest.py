"""Lenses in closed form; tokenizers as those of Llama 2, tiny: pieces of words behind `▁`, bytes where a character has no
token."""

import os
from pathlib import Path
from unittest import mock

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from alens import FitRequest, FitSettings, fit_lenses

WORDS = ("king", "man", "the", "super")
"""Each is a token, with and without a space before it."""


@pytest.fixture(scope="session")
def closed_forms(demo_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads 1 and 4 of layer 3 of the demo, in closed form. Shared: never write to it."""
    root = tmp_path_factory.mktemp("closed-forms") / "lenses"
    settings = FitSettings(lens="regression", layers=(3,), heads=(1, 4), eval_rows=256)
    with mock.patch.dict(os.environ):
        fit_lenses(FitRequest(store=demo_cache, lenses=root, settings=settings, device="cpu"))
    return root


@pytest.fixture(params=["normaliser", "pre-tokenizer"])
def sentencepiece(request: pytest.FixtureRequest) -> Tokenizer:
    """Both ways in which a space comes before a text."""
    return llama_2() if request.param == "normaliser" else metaspace()


def llama_2() -> Tokenizer:
    """As it is in `tokenizer.json` of Llama 2: a normaliser puts `▁` before every text."""
    tokenizer = _tokenizer()
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer


def metaspace() -> Tokenizer:
    """As newer conversions have it: a pre-tokenizer puts `▁` before a text that does not begin with a space."""
    tokenizer = _tokenizer()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    return tokenizer


def _tokenizer() -> Tokenizer:
    tokens = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *"▁abcdefghijklmnopqrstuvwxyz.,é",
    ]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        merges += [(word[:end], word[end]) for end in range(1, len(word))] + [("▁", word)]
    tokens += dict.fromkeys(left + right for left, right in merges)
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: number for number, token in enumerate(dict.fromkeys(tokens))},
            merges=list(dict.fromkeys(merges)),
            byte_fallback=True,
            fuse_unk=True,
            unk_token="<unk>",
        )
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return tokenizer
