"""Heads whose work is known: are they first in their families, and which reading has the sign of what they do?

    python benchmarks/known_heads.py [MODEL] [--lenses LENSES] [--effect-lenses LENSES] [--published gpt2-small]
        [--parts families,loss,names] [--prompts N]

MODEL is a directory or an id, `demo` by default. `families`: the first heads of each family by `alens heads`, and with
`--published` the places of the heads that papers name. `loss`: the loss on the second copy of repeated random tokens
without the first induction heads, beside as many other heads of the same layers, drawn at random. `names`: on
indirect-object prompts, what the logits of the two names lose when z of a head is replaced by its mean at every position
(E[z] of the lenses; without lenses, of the prompts); the heads that raise the answer above the foil most (movers) and
those that lower it most (suppressors); and for each reading

- the sign test: the share of names that gain or lose at least 0.2 logits by the head whose reading has that sign, of
  movers, of suppressors, and of all heads, with a 95 % interval over prompts,
- the same for the heads of each sixth of the layers,
- the rank correlation over all heads of its difference between answer and foil with the measured one,
- the places it gives to movers (from above) and to suppressors (from below) by that difference, mean.

Readings that know some heads alone are compared with the others on these heads.
Prints Markdown. SmolLM2 takes minutes on two cores.
"""

import argparse
import random
import statistics
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.stats
from known import ablation
from known.names import Array, NameEffects, name_effects

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

PARTS = ("families", "loss", "names")
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
"""Parts of the layers, from below, each with a sign test of its own."""


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


def names_part(effects: NameEffects) -> Iterator[str]:
    """Movers, suppressors, and how each reading tells them."""
    by_effect = sorted(effects.effects, key=lambda head: -_difference(effects.effects[head]))
    movers, suppressors = by_effect[:FIRST], by_effect[: -FIRST - 1 : -1]
    model_P = effects.difference_P
    yield (
        f"\n## Indirect objects: {len(model_P)} prompts, answer above the foil in {(model_P > 0).sum()}, by {model_P.mean():.2f} "
        "logits\n"
    )
    names = list(effects.readings)
    yield f"| head | answer, foil: effect | {' | '.join(names)} |\n| --- | --- |{' --- |' * len(names)}"
    for head in (*movers, *suppressors):
        cells = [effects.effects[head], *(effects.readings[name].get(head) for name in names)]
        yield f"| {_name(head)} | {' | '.join(_pair(cell) for cell in cells)} |"
    complete = [name for name in names if len(effects.readings[name]) == len(by_effect)]
    yield from _readings_table(effects, complete, by_effect)
    yield f"\n| layers, sign test | {' | '.join(complete)} |\n| --- |{' --- |' * len(complete)}"
    for layers in np.array_split(sorted({layer for layer, _ in by_effect}), STRETCHES):
        heads = [head for head in by_effect if head[0] in layers]
        if heads:
            shares = [_sign_test(effects, effects.readings[name], heads) for name in complete]
            yield f"| {layers[0]} to {layers[-1]} | {' | '.join(shares)} |"
    shared = [head for head in by_effect if all(head in effects.readings[name] for name in names)]
    if shared and len(shared) < len(by_effect):
        yield f"\nThe {len(shared)} heads that every reading knows:"
        yield from _readings_table(effects, names, shared)


def _readings_table(effects: NameEffects, names: Sequence[str], heads: Sequence[Head]) -> Iterator[str]:
    """A line a reading, over `heads`, which are ranked by their measured effect."""
    first = min(FIRST, len(heads) // 2)
    movers, suppressors = heads[:first], heads[: -first - 1 : -1]
    yield f"\n| reading | sign: {first} movers | {first} suppressors | all heads | rank correlation | place of movers | of suppressors |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for name in names:
        read = {head: effects.readings[name][head] for head in heads}
        cells = [_sign_test(effects, read, group) for group in (movers, suppressors, heads)]
        by_head = [(_difference(effects.effects[head]), _difference(read[head])) for head in heads]
        cells.append(f"{scipy.stats.spearmanr(*zip(*by_head, strict=True)).statistic:.2f}")
        places = sorted(read, key=lambda head: -_difference(read[head]))
        above = [places.index(head) + 1 for head in movers]
        below = [len(places) - places.index(head) for head in suppressors]
        cells += [f"{statistics.mean(ranks):.1f} of {len(heads)}" for ranks in (above, below)]
        yield f"| {name} | {' | '.join(cells)} |"


def _sign_test(effects: NameEffects, read: dict[Head, Array], heads: Sequence[Head]) -> str:
    """The share of names that move whose reading has the sign; the interval is over prompts."""
    effect_HP2, reading_HP2 = (
        np.stack([values[head] for head in heads]) for values in (effects.effects, read)
    )
    moves_P = (np.abs(effect_HP2) >= MOVES).sum((0, 2))
    right_P = ((np.abs(effect_HP2) >= MOVES) & (np.sign(effect_HP2) == np.sign(reading_HP2))).sum((0, 2))
    if not moves_P.sum():
        return "-"
    drawn = np.random.default_rng(0).integers(len(moves_P), size=(RESAMPLES, len(moves_P)))
    shares = right_P[drawn].sum(1) / np.maximum(1, moves_P[drawn].sum(1))
    low, high = np.quantile(shares, (0.025, 0.975))
    return f"{100 * right_P.sum() / moves_P.sum():.0f} % ({100 * low:.0f} to {100 * high:.0f}) of {moves_P.sum()}"


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
    parser.add_argument("--prompts", type=int, help="prompts of the part `names`; all by default")
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
    if "names" in parts:
        reader, effects = None, None
        if args.lenses is not None:
            reader = LensedModel(load_lenses(args.lenses), model=args.model, device="cpu")
        if args.effect_lenses is not None:
            effects = load_effect_lenses(args.effect_lenses)
        measured = name_effects(model, reader, effects, args.prompts)
        print("\n".join(names_part(measured)), flush=True)


if __name__ == "__main__":
    main()
