"""Does an instruction that overrides others show in the heads, in sentences of a kind that no detector was fitted on?

In: lenses with their model, and four families of prompts; in each pair an instruction of the same length overrides the task
or keeps it. Out: Markdown: the area under the ROC curve of detectors fitted on three families and judged on the fourth, and
fitted and judged on halves of all four. Detectors: `contrast` of heads (KL to the clean mean less KL to the suspect mean,
summed over heads) by each reading, the same of the model's own next token, the residual stream after some layers (the
difference of means, whitened with a ridge), and the words of the prompt (smoothed log-odds of its tokens).
Shapes: P prompts (clean ones first), F heads, V vocabulary, D d_model.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from alens.heads import Head
from alens.reading.lensed_model import LensedModel
from alens.statistics.divergences import jensen_shannon

from .controls import other_heads
from .heads_at_end import Array, at_end, log_probs, without

EXAMPLES = Path(__file__).parents[2] / "docs/tutorials/examples"
FAMILIES, PAIRS = ("summary", "translation", "question", "label"), 12
STREAMS = (10, 15, 20, 25)
"""Layers whose residual stream is a rival."""

RIDGE = 0.1
"""The penalty, as a share of the mean variance of the residual stream."""

RESAMPLES = 1000

Labels = npt.NDArray[np.bool_]
Split = tuple[Labels, Labels]
"""Which pairs to fit on, and which to judge on."""


def instructions(
    reader: LensedModel, readings: Sequence[str], layers: Sequence[int], first: int, draws: int
) -> Iterator[str]:
    """The lines of the tables."""
    clean, suspect = _prompts()
    said = at_end(
        reader, [*clean, *suspect], [layer for layer in STREAMS if layer in reader.lenses.record.layers]
    )
    pairs = len(clean)
    family_P = np.arange(pairs) // PAIRS
    splits = [(family_P != family, family_P == family) for family in range(len(FAMILIES))]
    halves = [(np.arange(pairs) % 2 == part, np.arange(pairs) % 2 != part) for part in (0, 1)]
    heads = [head for head in reader.lenses.record.lenses if head[0] in layers]
    lengths = [len(ids) for ids in said.ids]
    yield (
        f"\n## Instructions: {pairs} pairs in {len(FAMILIES)} families, {len(heads)} heads of layers "
        f"{', '.join(map(str, layers))}\n"
    )
    same = sum(lengths[place] == lengths[place + pairs] for place in range(pairs))
    yield f"{same} of {pairs} pairs have the same number of tokens.\n"
    yield f"| detector | other half, same families | {' | '.join(FAMILIES)} | mean of the families, 95 % |"
    yield f"| --- | --- |{' --- |' * len(FAMILIES)} --- |"
    changes: dict[str, Array] = {}
    for reading in readings:
        by_split = dict.fromkeys(range(len(splits) + len(halves)), 0.0)
        scores = [np.zeros(2 * pairs) for _ in by_split]
        change_F = np.zeros(len(heads))
        for place, head in enumerate(heads):
            readings_PV = log_probs(reader, said, reading, head)
            for number, (fit_P, _) in enumerate([*splits, *halves]):
                scores[number] += _contrast(readings_PV, fit_P)
            known = np.flatnonzero(family_P != len(FAMILIES) - 1)
            change_F[place] = float(
                jensen_shannon(
                    readings_PV[known].double().exp().mean(0),
                    readings_PV[known + pairs].double().exp().mean(0),
                )
            )
        changes[reading] = change_F
        yield _line(f"heads, {reading}", scores, splits, halves)
    model = [_contrast(said.log_probs_PV, fit_P) for fit_P, _ in [*splits, *halves]]
    yield _line("the model's next token", model, splits, halves)
    for layer, rows_PD in said.residual_PD.items():
        scores = [_whitened(rows_PD.double().numpy(), fit_P) for fit_P, _ in [*splits, *halves]]
        yield _line(f"residual stream after {layer}", scores, splits, halves)
    counts_PV = np.stack([np.bincount(ids, minlength=reader.model.W_U_DV.shape[1]) for ids in said.ids]) > 0
    words = [_log_odds(counts_PV, fit_P) for fit_P, _ in [*splits, *halves]]
    yield _line("words", words, splits, halves)
    lengths_P = np.array(lengths, dtype=np.float64)
    length = [lengths_P * _longer(lengths_P, fit_P) for fit_P, _ in [*splits, *halves]]
    yield _line("length", length, splits, halves)
    judged = family_P == len(FAMILIES) - 1
    ids = [said.ids[place] for place in np.flatnonzero(np.concatenate([judged, judged]))]

    def moved(taken: Sequence[Head]) -> float:
        """How far the instruction moves the model's next token, in the family that no head was chosen on."""
        ran_PV = without(reader, ids, taken).double().exp()
        return float(jensen_shannon(ran_PV[: len(ids) // 2], ran_PV[len(ids) // 2 :]).mean())

    yield f"\nJS of the model's next token between the two of a pair, family {FAMILIES[-1]}: {moved([]):.4f} nats\n"
    yield f"| reading | first {first} heads by change, other families | JS without them | without {first} others, {draws} draws |"
    yield "| --- | --- | --- | --- |"
    for reading, change_F in changes.items():
        order = np.argsort(-change_F)
        top = [heads[place] for place in order[:first]]
        others = [
            moved(other_heads(top, [heads[place] for place in order[2 * first :]], draw))
            for draw in range(draws)
        ]
        yield (
            f"| {reading} | {', '.join(f'{layer}.{head}' for layer, head in top)} | {moved(top):.4f} "
            f"| {np.mean(others):.4f} ({min(others):.4f} to {max(others):.4f}) |"
        )


def _prompts() -> tuple[list[str], list[str]]:
    """Clean and suspect prompts, family by family; line i of one belongs to line i of the other."""
    other = [json.loads(line) for line in (EXAMPLES / "instructions-other.jsonl").read_text().splitlines()]
    both = []
    for label in ("clean", "suspect"):
        known = (EXAMPLES / f"instructions-{label}.txt").read_text().splitlines()
        both.append([*known, *(one["prompt"] for one in other if one["label"] == label)])
    return both[0], both[1]


def _contrast(log_probs_PV: torch.Tensor, fit_P: Labels) -> Array:
    """KL of each reading to the clean mean less that to the suspect mean."""
    p_PV = log_probs_PV.exp()
    clean_V, suspect_V = (half_PV[torch.from_numpy(fit_P)].mean(0) for half_PV in p_PV.chunk(2))
    scores_P: Array = (
        (p_PV @ (suspect_V.clamp_min(1e-30).log() - clean_V.clamp_min(1e-30).log())).double().numpy()
    )
    return scores_P


def _whitened(rows_PD: Array, fit_P: Labels) -> Array:
    """Along the difference of means, whitened by the spread within the two."""
    clean_PD, suspect_PD = (half_PD[fit_P] for half_PD in np.split(rows_PD, 2))
    within_PD = np.concatenate([clean_PD - clean_PD.mean(0), suspect_PD - suspect_PD.mean(0)])
    covariance_DD = within_PD.T @ within_PD / len(within_PD)
    covariance_DD += RIDGE * np.trace(covariance_DD) / len(covariance_DD) * np.eye(len(covariance_DD))
    return rows_PD @ np.linalg.solve(covariance_DD, suspect_PD.mean(0) - clean_PD.mean(0))


def _log_odds(counts_PV: Labels, fit_P: Labels) -> Array:
    """Naive Bayes on which tokens a prompt holds."""
    clean_V, suspect_V = (np.log(half_PV[fit_P].sum(0) + 1.0) for half_PV in np.split(counts_PV, 2))
    scores_P: Array = counts_PV @ (suspect_V - clean_V)
    return scores_P


def _longer(lengths_P: Array, fit_P: Labels) -> float:
    """1 where suspect prompts are longer in the mean, -1 where they are shorter."""
    clean_P, suspect_P = np.split(lengths_P, 2)
    return float(np.sign(suspect_P[fit_P].mean() - clean_P[fit_P].mean()))


def _line(name: str, scores: Sequence[Array], splits: Sequence[Split], halves: Sequence[Split]) -> str:
    """Areas of one detector; `scores` of all prompts, for each split and half."""
    by_family = [_area(score_P, judge_P) for score_P, (_, judge_P) in zip(scores, splits, strict=False)]
    in_family = [
        _area(score_P, judge_P) for score_P, (_, judge_P) in zip(scores[len(splits) :], halves, strict=True)
    ]
    drawn = np.random.default_rng(0)
    means_R = []
    for _ in range(RESAMPLES):
        areas = []
        for score_P, (_, judge_P) in zip(scores, splits, strict=False):
            places = drawn.choice(np.flatnonzero(judge_P), size=int(judge_P.sum()))
            areas.append(_area_of(score_P[places], score_P[places + len(judge_P)]))
        means_R.append(np.mean(areas))
    low, high = np.quantile(means_R, (0.025, 0.975))
    cells = [f"{np.mean(in_family):.2f}", *(f"{area:.2f}" for area in by_family)]
    return f"| {name} | {' | '.join(cells)} | {np.mean(by_family):.2f} ({low:.2f} to {high:.2f}) |"


def _area(score_P: Array, judge_P: Labels) -> float:
    return _area_of(score_P[: len(judge_P)][judge_P], score_P[len(judge_P) :][judge_P])


def _area_of(clean_P: Array, suspect_P: Array) -> float:
    """The chance that a suspect prompt scores above a clean one."""
    above = suspect_P[:, None] > clean_P
    return float((above + 0.5 * (suspect_P[:, None] == clean_P)).mean())
