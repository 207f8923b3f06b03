"""What a model does to `W_U x + b_U` before it calls it logits: nothing, a factor, a soft cap, or both.

In: TransformerLens' bridge. Out: `OutputLogits`, or None where the model does something else. The model is asked: its
unembedding is made to give chosen numbers, and what comes out of the model is compared with `cap tanh(scale x / cap)`. So
Cohere's factor, Granite's divisor and the caps of Gemma and nanochat need no case of their own, and no name is believed.
Shapes: T tokens, V vocabulary, G numbers that are asked.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from alens.model import logit_fingerprint
from alens.store.model_record import ModelRecord

AGREES = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
"""How far rounding may take the model from the formula, and a measured number from one that its configuration names, as
a share."""

DIGITS = {torch.float32: 6, torch.bfloat16: 3, torch.float16: 3}
"""Digits of a measured number that the configuration does not name."""

SMALLEST, LARGEST = -10, 15
"""Powers of two that are asked: at the smallest no cap bends, at the largest every cap is reached, and float16 holds it."""


@dataclass(frozen=True, kw_only=True)
class OutputLogits:
    """logits = cap tanh(scale x / cap), with x = W_U final + b_U; scale x where there is no cap."""

    scale: float = 1.0
    cap: float | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        scaled = x * self.scale
        return scaled if self.cap is None else self.cap * torch.tanh(scaled / self.cap)


def output_logits(bridge: Any, config: Any, record: ModelRecord) -> OutputLogits | None:
    """Ask the model; `config` is transformers' configuration, whose numbers are taken where a measured one agrees."""
    powers = 2.0 ** torch.arange(SMALLEST, LARGEST + 1)
    asked_G = torch.cat([torch.zeros(1), powers, -powers])[: record.d_vocab]

    def give(value_BTV: torch.Tensor, hook: Any) -> torch.Tensor:
        given_BTV = torch.zeros_like(value_BTV)
        given_BTV[..., : len(asked_G)] = asked_G.to(value_BTV)
        return given_BTV

    try:
        with bridge.hooks(fwd_hooks=[("unembed.hook_out", give)]):
            logits_TV = logit_fingerprint.logits(bridge, record)
    except (
        KeyError
    ):  # a bridge that does not show it: the logits of the first shard are compared all the same
        return OutputLogits()
    answer_G = logits_TV[-1, : len(asked_G)].cpu()
    dtype = next(bridge.parameters()).dtype
    return _fitted(asked_G, answer_G, list(_numbers(config.to_dict())), dtype)


def _fitted(
    asked_G: torch.Tensor, answer_G: torch.Tensor, named: list[float], dtype: torch.dtype
) -> OutputLogits | None:
    """The formula, if the answers have its form."""
    if torch.equal(asked_G, answer_G):
        return OutputLogits()
    first, last = 1, 1 + LARGEST - SMALLEST  # the smallest and the largest positive number
    if len(asked_G) <= last or not bool(answer_G.isfinite().all()) or not float(answer_G[first]) > 0:
        return None
    scale = _rounded(float(answer_G[first] / asked_G[first]), named, dtype)
    largest = float(answer_G[last])
    caps = abs(largest - scale * float(asked_G[last])) > AGREES[dtype] * abs(largest)
    made = OutputLogits(scale=scale, cap=_rounded(largest, named, dtype) if caps else None)
    apart_G = (made(asked_G) - answer_G).abs()
    return made if bool((apart_G <= AGREES[dtype] * answer_G.abs()).all()) else None


def _rounded(measured: float, named: list[float], dtype: torch.dtype) -> float:
    """The nearest number of the configuration, or its inverse, where it agrees; else what rounding leaves of the measured."""
    nearest = min(
        [*named, *(1 / number for number in named)], key=lambda one: abs(one - measured), default=0.0
    )
    if abs(nearest - measured) <= AGREES[dtype] * measured:
        return nearest
    return float(f"{measured:.{DIGITS[dtype]}g}")


def _numbers(value: Any) -> Iterator[float]:
    """The positive numbers of a configuration, at any depth."""
    if isinstance(value, dict):
        for part in value.values():
            yield from _numbers(part)
    elif isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf"):
        yield float(value)
