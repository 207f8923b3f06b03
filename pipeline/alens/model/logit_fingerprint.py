"""The logits of a few fixed tokens, which tell whether a model still computes what it computed before.

In: a model that was loaded. Out: its logits after `NUM_TOKENS` tokens, compared within a tolerance between devices and
dtypes, never hashed. Files and settings say what a model is; its logits say what the installed libraries make of them.
A record keeps them as `probe`.
Shapes: T tokens, V vocabulary.
"""

from typing import Any

import torch

from alens.errors import RequestError
from alens.store.model_record import ModelRecord

NUM_TOKENS = 16


def tokens(model: ModelRecord) -> list[int]:
    """Token ids spread over the vocabulary."""
    num_tokens = min(NUM_TOKENS, model.n_ctx)
    return [(2 * number + 1) * model.d_vocab // (2 * num_tokens) for number in range(num_tokens)]


def logits(model: Any, record: ModelRecord) -> torch.Tensor:
    """(T, V) float32 logits, by transformers' model or TransformerLens' bridge."""
    with torch.inference_mode():
        output = model(torch.tensor([tokens(record)], device=next(model.parameters()).device))
    logits_BTV: torch.Tensor = getattr(output, "logits", output)
    return logits_BTV[0].float()


def record(logits_TV: torch.Tensor, model: ModelRecord, dtype: str) -> dict[str, Any] | None:
    """The `probe` of a `ModelRecord`: the logits of these tokens after the last of them; None where one is not finite."""
    ids = tokens(model)
    if not bool(torch.isfinite(logits_TV[-1, ids]).all()):
        return None
    return {
        "dtype": dtype,
        "tokens": ids,
        "logits": [float(f"{float(logit):.6g}") for logit in logits_TV[-1, ids]],
    }


def check_same(plain_TV: torch.Tensor, hooked_TV: torch.Tensor, record: ModelRecord, dtype: str) -> None:
    """Raises `RequestError` when TransformerLens computes another function than transformers does.

    TransformerLens ignores some settings, such as GPT-2's `scale_attn_weights: false`.
    """
    if not bool(torch.isfinite(plain_TV).all()):
        return  # the first batch of a cache is refused with a better message
    difference = float((plain_TV - hooked_TV).abs().max())
    allowed = record.rounding(dtype) * max(1.0, float(plain_TV.abs().max()))
    if not difference <= allowed:
        raise RequestError(
            f"TransformerLens computes other logits for {record.id} than transformers does, {difference:.3g} apart with "
            f"{allowed:.3g} allowed: its config.json asks for something that TransformerLens does not do"
        )
