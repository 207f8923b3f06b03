"""Small tokenizers of every family, made from the bundled text."""

import random
from collections.abc import Callable
from functools import cache

import pyarrow.parquet as pq
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from alens import demo

SIZE = 600

GPT_4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The pattern of Llama 3 and Qwen 2."""


def rows() -> list[str]:
    """The bundled text."""
    return [row for row in pq.read_table(demo.CORPUS).column("text").to_pylist() if row]


def _trained(tokenizer: Tokenizer, trainer: trainers.Trainer) -> Tokenizer:
    tokenizer.train_from_iterator(rows()[:1500], trainer)
    return tokenizer


def gpt2() -> Tokenizer:
    return Tokenizer.from_file(str(demo.MODEL / "tokenizer.json"))


def gpt2_with_trimmed_offsets() -> Tokenizer:
    tokenizer = gpt2()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer


def gpt2_with_added_tokens() -> Tokenizer:
    tokenizer = gpt2()
    tokenizer.add_tokens([AddedToken(" " * count, normalized=False) for count in range(16, 1, -1)])
    tokenizer.add_tokens([AddedToken("<mask>", lstrip=True, rstrip=True), AddedToken("of the"), "\n\n"])
    return tokenizer


def llama2() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    _trained(tokenizer, trainers.BpeTrainer(vocab_size=SIZE + 256, special_tokens=["<unk>", *byte_tokens]))
    tokenizer.pre_tokenizer = None
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer


def mistral() -> Tokenizer:
    tokenizer = llama2()
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return tokenizer


def llama3() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(GPT_4), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return _trained(
        tokenizer,
        trainers.BpeTrainer(vocab_size=SIZE, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"]),
    )


def qwen() -> Tokenizer:
    tokenizer = llama3()
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def t5() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return _trained(
        tokenizer, trainers.UnigramTrainer(vocab_size=SIZE, unk_token="<unk>", special_tokens=["<unk>"])
    )


def unigram_across_words() -> Tokenizer:
    """A unigram tokenizer: the most probable path through the whole text, which nothing splits before."""
    tokenizer = t5()
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = None
    return tokenizer


def bert() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return _trained(tokenizer, trainers.WordPieceTrainer(vocab_size=SIZE, special_tokens=["[UNK]"]))


def characters() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    alphabet = sorted({character for row in rows() for character in row})
    return _trained(
        tokenizer,
        trainers.BpeTrainer(
            vocab_size=len(alphabet) + 1, initial_alphabet=alphabet, special_tokens=["<unk>"]
        ),
    )


FAMILIES: dict[str, Callable[[], Tokenizer]] = {
    make.__name__: cache(make)
    for make in (
        gpt2, gpt2_with_trimmed_offsets, gpt2_with_added_tokens, llama2, mistral, llama3, qwen, t5,
        unigram_across_words, bert, characters,
    )
}  # fmt: skip
"""The tokenizer of each family, made once."""

ODD = (
    " " * 7, "  ", "\n\n\n", "\t", "\r\n", "<|endoftext|>", " <mask> ", "of the", "=" * 90, "e\u0301" * 5, "\u0301", "👩‍👩‍👧",
    "日本語の文章です。" * 9, "3" * 50, "1,234,567.89", "'s", "'ll", "ACGT" * 70, "x" * 130, "…", "\u3000", "\u00a0", "ﬁ",
    "\uff21", "▁", "ĠĠ", "0x00",
)  # fmt: skip
"""Strings that may stand where a text is cut."""


def odd_text(seed: int, length: int) -> str:
    """A text of about so many characters: rows of the bundled text, with odd strings between them."""
    draw, ordinary = random.Random(seed), rows()
    parts: list[str] = []
    size = 0
    while size < length:
        part = draw.choice(ODD if draw.random() < 0.3 else ordinary) + draw.choice(["", " ", " "])
        parts.append(part)
        size += len(part)
    return "".join(parts).strip()
