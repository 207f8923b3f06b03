"""A GPT-2 of two layers whose weights are set by hand, so that it is known what each head does.

A third of the stream says which token stands here, a third which place this is, and a third takes what the previous-token
head moves. The MLPs do nothing, and the unembedding is the embedding.
"""

from pathlib import Path
from typing import Any

import torch

SIZE = 64
"""Tokens, d_head, and entries of each third of the stream."""

PLACES, NUM_HEADS = 40, 3
LENGTH = 8
"""How many random tokens are repeated: two repetitions and a first token find room."""

PREVIOUS, DUPLICATE, INDUCTION, FIRST, NEXT = (0, 1), (0, 2), (1, 2), (1, 0), (1, 1)
"""Layer and head. The induction head copies what it looks at, the duplicate-token head suppresses it, and NEXT raises the
token with the next number."""

TOKEN, PLACE, MOVED = (slice(start, start + SIZE) for start in (0, SIZE, 2 * SIZE))


def planted_model(folder: Path, *, bos: bool = True) -> Path:
    """Writes the model, with a tokenizer that has a BOS token or none."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_layer=2,
        n_head=NUM_HEADS,
        n_embd=NUM_HEADS * SIZE,
        n_inner=4,
        vocab_size=SIZE,
        n_positions=PLACES,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    one = torch.eye(SIZE)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if ".ln_" in name and name.endswith("weight") else 0.0)
        model.transformer.wte.weight[:, TOKEN] = one
        model.transformer.wpe.weight[:, PLACE] = one[:PLACES]
        to_first = torch.zeros(SIZE, SIZE)
        to_first[:, 0] = 1.0
        _set(model, PREVIOUS, query=(PLACE, one.roll(-1, 1)), key=(PLACE, one), writes=(MOVED, 0.1 * one))
        _set(model, DUPLICATE, query=(TOKEN, one), key=(TOKEN, one), writes=(TOKEN, -0.03 * one))
        _set(model, INDUCTION, query=(TOKEN, one), key=(MOVED, one), writes=(TOKEN, 0.1 * one))
        _set(model, NEXT, query=(TOKEN, 0.0 * one), key=(TOKEN, one), writes=(TOKEN, 0.1 * one.roll(1, 1)))
        _set(model, FIRST, query=(PLACE, to_first), key=(PLACE, one), writes=(TOKEN, 0.0 * one))
    model.save_pretrained(folder)
    _tokenizer(bos).save_pretrained(folder)
    return folder


def _set(
    model: Any,
    place: tuple[int, int],
    *,
    query: tuple[slice, torch.Tensor],
    key: tuple[slice, torch.Tensor],
    writes: tuple[slice, torch.Tensor],
) -> None:
    """One head: what it looks for, what it looks at, and where it writes the token that it finds there."""
    layer, head = place
    attention = model.transformer.h[layer].attn
    width = NUM_HEADS * SIZE
    for part, (rows, matrix) in enumerate((query, key, (TOKEN, torch.eye(SIZE)))):
        start = part * width + head * SIZE
        attention.c_attn.weight[rows, start : start + SIZE] = (3.0 if part == 0 else 1.0) * matrix
    columns, matrix = writes
    attention.c_proj.weight[head * SIZE : (head + 1) * SIZE, columns] = matrix


def _tokenizer(bos: bool) -> Any:
    """A word for each token; the first one is special."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    words = {"<s>": 0, "text": 1, **{f"w{token}": token for token in range(2, SIZE)}}
    tokenizer = Tokenizer(WordLevel(words, unk_token="text"))
    tokenizer.pre_tokenizer = Whitespace()
    special = {"bos_token": "<s>"} if bos else {"pad_token": "<s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="text", **special)
