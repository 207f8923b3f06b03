"""Heads whose work is known: are they first in their families, and which reading has the sign of what they do?

    python benchmarks/known_heads.py [MODEL] [--lenses LENSES] [--effect-lenses LENSES] [--published gpt2-small]
        [--parts families,loss,names,capitals,agreement] [--prompts N] [--layers 17,23] [--keep DIR]

MODEL is a directory or an id, `demo` by default. `families`: the first heads of each family by `alens heads`, and with
`--published` the places of the heads that papers name. `loss`: the loss on the second copy of repeated random tokens
without the first induction heads, beside as many other heads of the same layers, drawn at random. `names`, `capitals` and
`agreement` take prompts whose answer is known (`real/known_answers.py`: indirect objects, capitals of countries, verbs
behind another noun), each with a foil: what the logits of the two words lose when z of a head is replaced by its mean at
every position (E[z] of the lenses; without lenses, of the prompts); the heads that raise the answer above the foil most
(movers) and those that lower it most (suppressors); and for each reading

- the sign test: the share of words that gain or lose at least 0.2 logits by the head whose reading has that sign, of
  movers, of suppressors, and of all heads,
- the rank correlation over all heads of its difference between answer and foil with the measured one,
- the places it gives to movers (from above) and to suppressors (from below) by that difference, mean,
- sign test and places for the heads of each sixth of the layers: its own movers and suppressors, among its heads.

Intervals hold 95 % over prompts; movers and suppressors are those of all prompts.
Readings that know some heads alone are compared with the others on these heads. `--keep DIR` keeps what was measured, for
another run with other lenses. Prints Markdown. SmolLM2 takes minutes on two cores.
"""

import argparse
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.stats
from known import ablation
from known.answers import AnswerEffects, Array, answer_effects

from alens import load_lenses, score_heads
from alens.heads import Head
from alens.lens.effect_lenses import load_effect_lenses
from alens.model import models
from alens.model.models import LoadedModel
from alens.reading.lensed_model import LensedModel
from alens.studies.families.repeated_tokens import RepeatedTokens
from alens.studies.families.result import HeadFamilies

PUBLISHED: dict[str, dict[str, tuple[Head, ...]]] = {
    "gpt2-small": {
        "previous-token": ((2, 2), (4, 11)),
        "duplicate-token": ((0, 1), (3, 0)),
        "induction": ((5, 5), (6, 9), (7, 10), (5, 1), (7, 2)),
        "copying": ((9, 9), (9, 6), (10, 0)),
        "suppression": ((10, 7), (11, 10)),
    }
}
"""Heads that papers name (arXiv 2211.00593, 2310.04625); those that move names are copying heads."""

KINDS = {"names": "indirect object", "capitals": "capital", "agreement": "agreement"}
"""Parts that take prompts, and the kind of these prompts."""

PARTS = ("families", "loss", *KINDS)
FIRST = 5
"""How many heads of a family, movers and suppressors are looked at."""

DRAWS = 10
"""Sets of random other heads."""

SEQUENCES, LENGTH = 8, 64
"""Repeated random tokens on which the loss is taken: of another seed than the scores."""

MOVES = 0.2
"""Logits: what counts in the sign test."""

RESAMPLES = 1000

STRETCHES = 6
"""Parts of the layers, from below, each with a sign test and places of its own."""


def families_part(families: HeadFamilies, published: str | None) -> Iterator[str]:
    """The first heads of each family, and the places of published ones."""
    yield "## Families\n\n| family | first heads: score (control) |\n| --- | --- |"
    for name, scores in families.families.items():
        cells = (f"{one.layer}.{one.head} {one.score:.2f} ({one.control:.3f})" for one in scores[:FIRST])
        yield f"| {name} | {', '.join(cells)} |"
    if published is not None:
        yield f"\n| family | heads of {published}: place |\n| --- | --- |"
        for name, heads in PUBLISHED[published].items():
            places = [(one.layer, one.head) for one in families.families[name]]
            yield f"| {name} | {', '.join(f'{_name(head)}: {places.index(head) + 1}' for head in heads)} |"


def loss_part(model: LoadedModel, families: HeadFamilies) -> Iterator[str]:
    """The loss without induction heads, and without others."""
    ranked = [(one.layer, one.head) for one in families.families["induction"]]
    first, others = ranked[:FIRST], ranked[2 * FIRST :]
    repeated_BT, other_BT = RepeatedTokens(model, LENGTH, seed=1).batch(range(SEQUENCES))
    means = ablation.mean_z(model, [repeated_BT])

    def loss(heads: Sequence[Head]) -> float:
        return ablation.repeated_loss(model, repeated_BT, LENGTH, heads, means)

    draws = random.Random(0)
    drawn = [_others(first, others, draws) for _ in range(DRAWS)]
    unrepeated = ablation.repeated_loss(model, other_BT, LENGTH, [], means)
    yield f"\n## Loss on the second copy of {LENGTH} random tokens, {SEQUENCES} sequences\n"
    yield "| without | nats |\n| --- | --- |"
    yield f"| nothing; tokens that do not repeat | {unrepeated:.3f} |"
    yield f"| nothing | {loss([]):.3f} |"
    for head in first:
        yield f"| {_name(head)} | {loss([head]):.3f} |"
    yield f"| these {len(first)} | {loss(first):.3f} |"
    losses = [loss(heads) for heads in drawn]
    yield (
        f"| {len(first)} other heads of these layers, {DRAWS} draws | {statistics.mean(losses):.3f} "
        f"({min(losses):.3f} to {max(losses):.3f}) |"
    )


def _others(first: Sequence[Head], others: Sequence[Head], draws: random.Random) -> list[Head]:
    """As many heads, each of the layer of one of the first where it has others."""
    chosen: list[Head] = []
    for layer, _ in first:
        left = [head for head in others if head not in chosen]
        chosen.append(draws.choice([head for head in left if head[0] == layer] or left))
    return chosen


def answers_part(part: str, effects: AnswerEffects) -> Iterator[str]:
    """Movers, suppressors, and how each reading tells them."""
    by_effect = sorted(effects.effects, key=lambda head: -_difference(effects.effects[head]))
    model_P = effects.difference_P
    yield (
        f"\n## {part.capitalize()}: {len(model_P)} prompts, answer above the foil in {(model_P > 0).sum()}, "
        f"by {model_P.mean():.2f} logits\n"
    )
    names = list(effects.readings)
    yield f"| head | answer, foil: effect | {' | '.join(names)} |\n| --- | --- |{' --- |' * len(names)}"
    for head in (*by_effect[:FIRST], *by_effect[: -FIRST - 1 : -1]):
        cells = [effects.effects[head], *(effects.readings[name].get(head) for name in names)]
        yield f"| {_name(head)} | {' | '.join(_pair(cell) for cell in cells)} |"
    complete = [name for name in names if len(effects.readings[name]) == len(by_effect)]
    yield from _readings_table(effects, complete, by_effect)
    yield from _stretches_table("sign test", effects, complete, by_effect, _sign_test)
    yield from _stretches_table("place of those moved most", effects, complete, by_effect, _both_places)
    shared = [head for head in by_effect if all(head in effects.readings[name] for name in names)]
    if shared and len(shared) < len(by_effect):
        yield f"\nThe {len(shared)} heads that every reading knows:"
        yield from _readings_table(effects, names, shared)


def _readings_table(effects: AnswerEffects, names: Sequence[str], heads: Sequence[Head]) -> Iterator[str]:
    """A line a reading, over `heads`, which are ranked by their measured effect."""
    first = min(FIRST, len(heads) // 2)
    movers, suppressors = heads[:first], heads[: -first - 1 : -1]
    yield f"\n| reading | sign: {first} movers | {first} suppressors | all heads | rank correlation | place of movers | of suppressors |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for name in names:
        read = effects.readings[name]
        cells = [_sign_test(effects, read, group) for group in (movers, suppressors, heads)]
        cells.append(_rank_correlation(effects, read, heads))
        cells.append(_places(read, heads, movers, ()))
        cells.append(_places(read, heads, (), suppressors))
        yield f"| {name} | {' | '.join(cells)} |"


Figure = Callable[[AnswerEffects, dict[Head, Array], Sequence[Head]], str]


def _stretches_table(
    what: str, effects: AnswerEffects, names: Sequence[str], by_effect: Sequence[Head], figure: Figure
) -> Iterator[str]:
    """A line for each sixth of the layers."""
    yield f"\n| layers, {what} | {' | '.join(names)} |\n| --- |{' --- |' * len(names)}"
    for layers in np.array_split(sorted({layer for layer, _ in by_effect}), STRETCHES):
        heads = [head for head in by_effect if head[0] in layers]
        if heads:
            cells = [figure(effects, effects.readings[name], heads) for name in names]
            yield f"| {layers[0]} to {layers[-1]} | {' | '.join(cells)} |"


def _sign_test(effects: AnswerEffects, read: dict[Head, Array], heads: Sequence[Head]) -> str:
    """The share of words that move whose reading has the sign."""
    effect_HP2, reading_HP2 = _stacked(effects.effects, heads), _stacked(read, heads)
    moves_P = (np.abs(effect_HP2) >= MOVES).sum((0, 2))
    right_P = ((np.abs(effect_HP2) >= MOVES) & (np.sign(effect_HP2) == np.sign(reading_HP2))).sum((0, 2))
    if not moves_P.sum():
        return "-"
    drawn_RP = _resamples(len(moves_P))
    shares_R = right_P[drawn_RP].sum(1) / np.maximum(1, moves_P[drawn_RP].sum(1))
    return f"{100 * right_P.sum() / moves_P.sum():.0f} % {_interval(100 * shares_R, 0)} of {moves_P.sum()}"


def _rank_correlation(effects: AnswerEffects, read: dict[Head, Array], heads: Sequence[Head]) -> str:
    """Spearman's, of the mean differences between answer and foil, over heads."""
    effect_HP, read_HP = (
        values_HP2[..., 0] - values_HP2[..., 1]
        for values_HP2 in (_stacked(effects.effects, heads), _stacked(read, heads))
    )
    value = float(scipy.stats.spearmanr(effect_HP.mean(1), read_HP.mean(1)).statistic)
    drawn_RP = _resamples(effect_HP.shape[1])
    ranks = (
        scipy.stats.rankdata(values_HP[:, drawn_RP].mean(2), axis=0) for values_HP in (effect_HP, read_HP)
    )
    effect_HR, read_HR = (ranks_HR - ranks_HR.mean(0) for ranks_HR in ranks)
    norms_R = np.linalg.norm(effect_HR, axis=0) * np.linalg.norm(read_HR, axis=0)
    return f"{value:.2f} {_interval((effect_HR * read_HR).sum(0) / norms_R, 2)}"


def _both_places(effects: AnswerEffects, read: dict[Head, Array], heads: Sequence[Head]) -> str:
    """The mean places of the first movers and suppressors among `heads`, which are ranked by their measured effect."""
    first = min(FIRST, len(heads) // 2)
    return _places(read, heads, heads[:first], heads[: -first - 1 : -1])


def _places(
    read: dict[Head, Array], heads: Sequence[Head], movers: Sequence[Head], suppressors: Sequence[Head]
) -> str:
    """The mean of the movers' places from above and of the suppressors' from below, by a reading's difference."""
    read_HP2 = _stacked(read, heads)
    read_HP = read_HP2[..., 0] - read_HP2[..., 1]

    def place(means_HR: Array) -> Array:
        places_HR = scipy.stats.rankdata(-means_HR, axis=0)
        above = [places_HR[heads.index(head)] for head in movers]
        below = [len(heads) + 1 - places_HR[heads.index(head)] for head in suppressors]
        mean_R: Array = np.mean([*above, *below], axis=0)
        return mean_R

    value = float(place(read_HP.mean(1)[:, None])[0])
    places_R = place(read_HP[:, _resamples(read_HP.shape[1])].mean(2))
    return f"{value:.0f} {_interval(places_R, 0)} of {len(heads)}"


def _resamples(prompts: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(0).integers(prompts, size=(RESAMPLES, prompts))


def _interval(values_R: Array, digits: int) -> str:
    low, high = np.quantile(values_R, (0.025, 0.975))
    return f"({low:.{digits}f} to {high:.{digits}f})"


def _stacked(values: dict[Head, Array], heads: Sequence[Head]) -> Array:
    return np.stack([values[head] for head in heads])


def _difference(values_P2: Array) -> float:
    return float((values_P2[:, 0] - values_P2[:, 1]).mean())


def _pair(values_P2: Array | None) -> str:
    if values_P2 is None:
        return "-"
    return ", ".join(f"{value:+.2f}" for value in values_P2.mean(0))


def _name(head: Head) -> str:
    return f"{head[0]}.{head[1]}"


def main() -> None:
    """Print the parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default="demo")
    parser.add_argument("--lenses", help="lenses of all heads of the model")
    parser.add_argument("--effect-lenses", help="effect lenses of some of its heads")
    parser.add_argument("--published", choices=list(PUBLISHED), help="heads of a model that papers name")
    parser.add_argument("--parts", default=",".join(PARTS), help="which parts to run")
    parser.add_argument("--prompts", type=int, help="prompts of each kind; all by default")
    parser.add_argument("--layers", help="layers whose heads take part, such as 17,23,24; all by default")
    parser.add_argument("--keep", type=Path, help="a directory for what was measured")
    args = parser.parse_args()
    parts = args.parts.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}: take some of {','.join(PARTS)}")
    model = models.load(models.find(args.model, hash_weights=False), dtype="float32", device="cpu")
    print(f"# {model.source.record.name}\n", flush=True)
    if {"families", "loss"} & set(parts):
        families = score_heads(args.model, device="cpu")
        if "families" in parts:
            print("\n".join(families_part(families, args.published)), flush=True)
        if "loss" in parts:
            print("\n".join(loss_part(model, families)), flush=True)
    reader, effect_lenses = None, None
    if args.lenses is not None and set(KINDS) & set(parts):
        reader = LensedModel(load_lenses(args.lenses), model=args.model, device="cpu")
    if args.effect_lenses is not None:
        effect_lenses = load_effect_lenses(args.effect_lenses)
    if args.keep is not None:
        args.keep.mkdir(exist_ok=True)
    layers = None if args.layers is None else [int(layer) for layer in args.layers.split(",")]
    for part in [part for part in parts if part in KINDS]:
        measured = None if args.keep is None else args.keep / f"{part}.npz"
        effects = answer_effects(
            model,
            reader,
            effect_lenses,
            kind=KINDS[part],
            most=args.prompts,
            layers=layers,
            measured=measured,
        )
        print("\n".join(answers_part(part, effects)), flush=True)


if __name__ == "__main__":
    main()
