"""Which order of a head's list brings the right token to the top? Lift, own lift, z-score, probability, write.

    python benchmarks/list_orders.py LENSES STORE [--model DIR] [--rows 2048]

Prompts have an answer that is known (`real/known_answers.py`, and random tokens that repeat themselves). A prompt asks the
heads that have to do with its answer, chosen without a look at their lists: for indirect objects and repetitions, those
that look at the answer's place with a weight of 0.3 or more; for capitals and agreement, those that write 1 logit or more
on the answer. Of each prompt and head, the rank of the answer among the tokens that an order lists: their median, and
the share of ranks 1 to 10 with an interval of 95 % by prompt. Lenses that say nothing are left out. Prints Markdown.
Shapes: N rows, T tokens, E d_head, V vocabulary.
"""

import argparse
import functools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from real.known_answers import questions

from alens import HeadReader, load_lenses, open_cache
from alens.model.attention import see_attention
from alens.reading.settings import MIN_PROBABILITY
from alens.rows import moments
from alens.store.cache_reader import Cache
from alens.studies.families.repeated_tokens import RepeatedTokens

LOOKS, WRITES = 0.3, 1.0
"""The least attention to the answer's place, and the least logit on the answer."""

REPETITIONS, LENGTH = 60, 12
"""Sequences of random tokens, and how long what they repeat is."""

TOP = 10
RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Case:
    """A prompt with a known next token."""

    kind: str
    ids: list[int]
    answer: int
    place: int | None
    """Where the answer stands in the prompt; None where it does not."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a head reads at the last position of a case."""

    case: int
    z_E: torch.Tensor
    written_V: torch.Tensor


def cases(reader: HeadReader) -> Iterator[Case]:
    """All prompts."""
    for question in questions():
        ids = reader.tokens(question.prompt)
        answer = reader.model.tokenizer.encode(question.answer, add_special_tokens=False).ids[0]
        place = ids.index(answer) if question.kind == "indirect object" else None
        yield Case(kind=question.kind, ids=ids, answer=answer, place=place)
    repeated = RepeatedTokens(reader.model, LENGTH, 0)
    for number in range(REPETITIONS):
        sequence = repeated.pair(number)[0]
        last = 1 + LENGTH + LENGTH // 2
        yield Case(
            kind="repetition", ids=sequence[: last + 1], answer=sequence[last + 1], place=last + 1 - LENGTH
        )


def asked(reader: HeadReader, everything: Sequence[Case]) -> dict[tuple[int, int], list[Asked]]:
    """By layer and head, the cases that it has to do with."""
    by_head = defaultdict(list)
    record = reader.lenses.record
    heads = reader.chosen(None, None)
    for number, case in enumerate(everything):
        activations = reader.run(case.ids, heads.layers)
        looks: dict[int, torch.Tensor] = {}
        if case.place is not None:
            see_attention(
                reader.model,
                torch.tensor([case.ids]),
                heads.layers,
                lambda layer, pattern: looks.update({layer: pattern[0, :, -1]}),  # noqa: B023  # called at once
            )
        for layer, of_layer in heads.by_layer.items():
            z_HE = reader.values(activations, layer, of_layer)[:, -1:]
            scale_1 = reader.scale(activations)[-1:]
            on_answer_H = reader.writes.logits(layer, of_layer, z_HE, scale_1, [case.answer])[:, 0, 0]
            for h, head in enumerate(of_layer):
                chosen = (
                    float(on_answer_H[h]) >= WRITES
                    if case.place is None
                    else float(looks[layer][head, case.place]) >= LOOKS
                )
                if chosen and not record.says_nothing(layer, head):
                    written_V = reader.writes.logits(layer, [head], z_HE[h : h + 1], scale_1)[0, 0]
                    by_head[layer, head].append(
                        Asked(case=number, z_E=z_HE[h, 0], written_V=written_V.half())
                    )
    return by_head


def ranks(
    reader: HeadReader,
    cache: Cache,
    head: tuple[int, int],
    of_head: Sequence[Asked],
    everything: Sequence[Case],
    rows: int,
) -> list[dict[str, float]]:
    """For each case that was asked, by order, the rank of the answer; infinite where it is not listed."""
    layer, number = head
    weight_EV, bias_V = reader.lenses.layer(layer).maps.affine(reader.lenses.place(layer, number))
    of_cache = moments.of_cache(cache, (layer,), cache.shards)
    mean_E = torch.from_numpy(of_cache.mean_LHE[0, number]).float()
    covariance_EE = torch.from_numpy(of_cache.covariance_LHEE[0, number]).float()
    log_mean_V = reader.log_mean_V
    assert log_mean_V is not None
    around_EV = weight_EV - (weight_EV @ log_mean_V.softmax(-1))[:, None]
    sd_V = ((covariance_EE @ around_EV) * around_EV).sum(0).clamp_min(1e-12).sqrt()
    z_NE = _some_rows(cache, layer, rows)[:, number]
    total_V, sum_V, squares_V = (torch.zeros_like(bias_V) for _ in range(3))
    for block_NE in z_NE.split(256):
        log_probs_NV = torch.addmm(bias_V, block_NE, weight_EV).log_softmax(-1)
        sum_V += log_probs_NV.sum(0)
        squares_V += log_probs_NV.square().sum(0)
        total_V += log_probs_NV.exp_().sum(0)
    own_V, average_V = (total_V / len(z_NE)).log(), sum_V / len(z_NE)
    spread_V = (squares_V / len(z_NE) - average_V.square()).clamp_min(1e-12).sqrt()
    said = []
    for one in of_head:
        answer = everything[one.case].answer
        log_probs_V = (one.z_E @ weight_EV + bias_V).log_softmax(-1)
        listed_V = log_probs_V >= min(float(np.log(MIN_PROBABILITY)), float(log_probs_V.topk(TOP).values[-1]))
        scores = {
            "lift": log_probs_V - log_mean_V,
            "own lift": log_probs_V - own_V,
            "z-score": ((one.z_E - mean_E) @ around_EV) / sd_V,
            "z-score of log-probability": (log_probs_V - average_V) / spread_V,
            "above its mean logit": (one.z_E - mean_E) @ around_EV,
        }
        by_order = {"probability": _rank(log_probs_V, answer), "write": _rank(one.written_V.float(), answer)}
        for name, score_V in scores.items():
            by_order[f"{name}, no floor"] = _rank(score_V, answer)
            by_order[name] = _rank(score_V.masked_fill(~listed_V, -torch.inf), answer)
        said.append(by_order)
    return said


@functools.lru_cache(maxsize=1)  # heads come layer by layer
def _some_rows(cache: Cache, layer: int, rows: int) -> torch.Tensor:
    """(N, H, E) float32: about so many rows of the cache, evenly spaced, without the first of each sequence."""
    settings = cache.plan.settings
    every = max(1, settings.rows_per_shard * len(cache.shards) // rows)
    parts = []
    for shard in cache.shards:
        first = shard * settings.rows_per_shard
        z_NHE = cache.z(layer, slice(first, first + settings.rows_per_shard))
        places_N = np.arange(len(z_NHE))
        parts.append(torch.from_numpy(z_NHE[places_N[places_N % settings.seq_len != 0][::every]]))
    return torch.cat(parts).float()


def _rank(score_V: torch.Tensor, answer: int) -> float:
    mine = float(score_V[answer])
    return float("inf") if mine == -float("inf") else 1.0 + float((score_V > mine).sum())


def table(kind: str, by_prompt: dict[int, list[dict[str, float]]]) -> Iterator[str]:
    """The lines of one kind."""
    pairs = [one for several in by_prompt.values() for one in several]
    yield f"\n## {kind}: {len(by_prompt)} prompts, {len(pairs)} of prompt and head\n"
    yield "| order | median rank | in the first ten | first |\n| --- | --- | --- | --- |"
    draws = np.random.default_rng(0)
    for order in pairs[0]:
        all_ranks = np.array([one[order] for one in pairs])
        hits = np.array(
            [[sum(one[order] <= TOP for one in several), len(several)] for several in by_prompt.values()]
        )
        drawn = hits[draws.integers(0, len(hits), (RESAMPLES, len(hits)))].sum(1)
        low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
        yield (
            f"| {order} | {np.median(all_ranks):,.0f} | {hits[:, 0].sum() / hits[:, 1].sum():.2f} ({low:.2f} to {high:.2f}) "
            f"| {np.mean(all_ranks == 1):.2f} |"
        )


def main() -> None:
    """Print a table for each kind."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lenses", help="a directory of affine lenses")
    parser.add_argument("store", help="a cache of the same model with rows")
    parser.add_argument("--model", help="where the model lies, if not where the lenses say")
    parser.add_argument("--rows", type=int, default=2048, help="rows of the lens's own mean output")
    parser.add_argument("--limit", type=int, help="prompts of each kind at most")
    args = parser.parse_args()
    reader = HeadReader(load_lenses(args.lenses), model=args.model, store=args.store)
    cache = open_cache(args.store)
    with torch.inference_mode():
        count: dict[str, int] = defaultdict(int)
        everything = []
        for case in cases(reader):
            count[case.kind] += 1
            if args.limit is None or count[case.kind] <= args.limit:
                everything.append(case)
        by_head = asked(reader, everything)
        by_kind: dict[str, dict[int, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
        for head, of_head in sorted(by_head.items()):
            for one, said in zip(
                of_head, ranks(reader, cache, head, of_head, everything, args.rows), strict=True
            ):
                by_kind[everything[one.case].kind][one.case].append(said)
    for kind, by_prompt in by_kind.items():
        print("\n".join(table(kind, by_prompt)), flush=True)


if __name__ == "__main__":
    main()
