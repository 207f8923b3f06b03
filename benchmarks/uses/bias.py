"""Which heads carry that a person of this occupation is a man? Found on some sentences, judged by ablation on others.

In: lenses with their model, pairs of sentences that differ in an occupation. Out: Markdown. The score of a prompt is the
logit of ` he` less that of ` she`; the effect of a head is the mean difference of a pair's scores. Heads are tested by
flipped signs of pairs, corrected over all heads (max-t). Found heads are taken away (z at its mean, every position) on
sentences with other occupations and other wording, beside as many other heads of the same layers.
Shapes: P pairs, F heads.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from alens.heads import Head
from alens.reading.lensed_model import LensedModel
from alens.statistics.permutation import one_group

from .controls import interval, other_heads
from .heads_at_end import Array, AtEnd, at_end, differences, without

EXAMPLES = Path(__file__).parents[2] / "docs/tutorials/examples"
WORDS = (" he", " she")
CONTROL_WORDS = ((" red", " blue"), (" north", " south"), (" morning", " evening"))
"""Pairs of words that have nothing to do with who does the work."""

SHUFFLES = 200
"""How often the labels of pairs are shuffled."""


def bias(reader: LensedModel, readings: Sequence[str], first: int, draws: int) -> Iterator[str]:
    """The lines of the tables."""
    heads = list(reader.lenses.record.lenses)
    men, women, other_men, other_women = (
        at_end(reader, [json.loads(line)[people] for line in (EXAMPLES / name).read_text().splitlines()])
        for name in ("occupations.jsonl", "occupations-other.jsonl")
        for people in ("prompt", "control")
    )
    he = _pair(reader, WORDS)
    clean_P = _model(other_men.log_probs_PV, he) - _model(other_women.log_probs_PV, he)
    found_P = _model(men.log_probs_PV, he) - _model(women.log_probs_PV, he)
    yield f"## Bias: {len(found_P)} pairs to find heads, {len(clean_P)} others to judge them\n"
    yield f"The model's own effect: {_mean(found_P)} and {_mean(clean_P)} logits.\n"
    yield (
        f"| reading | heads with p at most 0.05 | of shuffled labels | of other words | first {first} (effect, p) "
        f"| effect left without them | without {first} others of these layers, {draws} draws |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- |"

    def left(taken: Sequence[Head]) -> Array:
        ran_P = without(reader, [*other_men.ids, *other_women.ids], taken)
        pairs = len(other_men.ids)
        return _model(ran_P[:pairs], he) - _model(ran_P[pairs:], he)

    chosen: dict[Head, None] = {}
    for reading in readings:
        effect_PF = differences(reader, men, reading, he) - differences(reader, women, reading, he)
        tests = one_group(effect_PF, correction="max-t", permutations=2 ** len(effect_PF), seed=0)
        order = np.argsort(-tests.effect_F)
        top = [heads[place] for place in order[:first]]
        chosen |= dict.fromkeys(top)
        others = [
            left(other_heads(top, [heads[place] for place in order[2 * first :]], draw))
            for draw in range(draws)
        ]
        cells = [
            f"{(tests.p_corrected_F <= 0.05).sum()} of {len(heads)}",
            f"{100 * _shuffled(effect_PF):.0f} % of {SHUFFLES} name one",
            ", ".join(str(_named(reader, men, women, reading, words)) for words in CONTROL_WORDS),
            ", ".join(
                f"{heads[place][0]}.{heads[place][1]} ({tests.effect_F[place]:+.2f}, {tests.p_corrected_F[place]:.3f})"
                for place in order[:first]
            ),
            _mean(left(top)),
            f"{np.mean(others):+.2f} ({min(map(np.mean, others)):+.2f} to {max(map(np.mean, others)):+.2f})",
        ]
        yield f"| {reading} | {' | '.join(cells)} |"
    yield "\n| head | lost without it, 95 % over pairs |\n| --- | --- |"
    for head in sorted(chosen):
        yield f"| {head[0]}.{head[1]} | {_mean(clean_P - left([head]))} |"


def _pair(reader: LensedModel, words: Sequence[str]) -> list[int]:
    return [reader.model.tokenizer.encode(word, add_special_tokens=False).ids[0] for word in words]


def _model(log_probs_PV: torch.Tensor, pair: Sequence[int]) -> Array:
    both_P2: Array = log_probs_PV[:, list(pair)].double().numpy()
    return both_P2[:, 0] - both_P2[:, 1]


def _named(reader: LensedModel, men: AtEnd, women: AtEnd, reading: str, words: Sequence[str]) -> int:
    """How many heads the same test names for other words."""
    pair = _pair(reader, words)
    effect_PF = differences(reader, men, reading, pair) - differences(reader, women, reading, pair)
    tests = one_group(effect_PF, correction="max-t", permutations=2 ** len(effect_PF), seed=0)
    return int((tests.p_corrected_F <= 0.05).sum())


def _shuffled(effect_PF: Array) -> float:
    """The share of shuffled labels with which some head is named."""
    signs_RP = np.random.default_rng(1).choice((-1.0, 1.0), size=(SHUFFLES, len(effect_PF)))
    named = [
        one_group(
            sign_P[:, None] * effect_PF, correction="max-t", permutations=299, seed=0
        ).p_corrected_F.min()
        <= 0.05
        for sign_P in signs_RP
    ]
    return float(np.mean(named))


def _mean(values_P: Array) -> str:
    low, high = interval(values_P)
    return f"{values_P.mean():+.2f} ({low:+.2f} to {high:+.2f})"
