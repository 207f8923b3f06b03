"""Does `alens locate` find a head whose answer is known, and how often does it find one where there is none?

Three tables, on the bundled model. (1) A head of the *model* is made to look for a trigger word and to write some terms
(`planted/in_model.py`); lenses are fitted on that model, and the head's rank among all is told, by its lens and by
its unembedding. (2) The same in one head's *lens* alone (`planted/in_lens.py`), which is quick: many heads and
strengths. (3) Nothing is planted: prompts and controls are drawn from the same text; how often any head is called
significant, and how often the intervals hold the true effect, 0. Prompts with the trigger and their controls
come from different stretches of text; those that are tested are not those that planted. Prints Markdown.

    python benchmarks/planted_locate.py [--seeds 4] [--strengths 2,4] [--rows 16384] [--splits 200] [--only nothing,lens,model]
"""

import argparse
import copy
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from planted import in_lens, in_model
from planted.prompts import lines, stretches, with_word, words

from alens import CacheRequest, FitRequest, demo, fit_lenses, load_lenses, write_cache
from alens.fit.settings import FitSettings
from alens.reading.lensed_model import LensedModel
from alens.reading.prompts import Prompt
from alens.reading.terms import Term
from alens.store.schema import CacheSettings
from alens.studies.location.effect_tests import tested_effects
from alens.studies.location.locate import locate
from alens.studies.location.result import Location
from alens.studies.location.scored import TermList
from alens.studies.location.settings import Correction, LocateSettings
from alens.studies.location.term_rates import Rates, mean_rates, term_rates

PROMPTS = 12
"""And as many controls."""

TO_PLANT = 100
TOKENS = 12
TERMS = 3
LENS_SEEDS = 12
"""Heads, spread over the layers."""
LENS_STRENGTHS = (0.25, 0.5, 1.0, 2.0)
POOL = 400
GROUPS = (5, 10, 20)
CORRECTIONS: tuple[Correction, ...] = ("max-t", "holm", "bh", "none")
PERMUTATIONS = 999


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A trigger, terms, and stretches of text, all by a seed."""

    trigger: int
    terms: list[Term]
    to_plant: list[list[int]]
    """With the trigger."""
    to_plant_without: list[list[int]]
    prompts: list[Prompt]
    controls: list[Prompt]
    """Each with another word where the prompts have the trigger."""


def case(tokenizer: Any, text: list[list[int]], seed: int) -> Case:
    """The case of a seed. The trigger is a word that the text has often enough to be learned from."""
    (trigger,) = tokenizer.encode(" money", add_special_tokens=False).ids
    others = [word for word in words(tokenizer, TERMS + TO_PLANT + PROMPTS + 1, seed) if word != trigger]
    terms = [Term(text=tokenizer.decode([word]), ids=(word,)) for word in others[:TERMS]]
    texts = stretches(text, 2 * (TO_PLANT + PROMPTS), TOKENS, seed)
    halves = texts[: TO_PLANT + PROMPTS], texts[TO_PLANT + PROMPTS :]
    with_trigger = [with_word(stretch, trigger) for stretch in halves[0]]
    without = [with_word(stretch, word) for stretch, word in zip(halves[1], others[TERMS:], strict=False)]
    return Case(
        trigger=trigger,
        terms=terms,
        to_plant=with_trigger[:TO_PLANT],
        to_plant_without=without[:TO_PLANT],
        prompts=_prompts(tokenizer, with_trigger[TO_PLANT:]),
        controls=_prompts(tokenizer, without[TO_PLANT:]),
    )


def _prompts(tokenizer: Any, many: list[list[int]]) -> list[Prompt]:
    return [Prompt(text=tokenizer.decode(ids), label=None, source=f"{n}") for n, ids in enumerate(many)]


def fitted(model: str, folder: Path, rows: int) -> LensedModel:
    """All heads of a model, fitted on the bundled text."""
    settings = CacheSettings(max_rows=rows, rows_per_shard=rows // 8, exact_teacher=True)
    write_cache(
        CacheRequest(model=model, corpus="demo", store=folder / "cache", settings=settings, device="cpu")
    )
    fit = FitSettings(eval_rows=1024)
    fit_lenses(FitRequest(store=folder / "cache", lenses=folder / "lenses", settings=fit, device="cpu"))
    return LensedModel(load_lenses(folder / "lenses"), device="cpu")


def rank(location: Location, layer: int, head: int, reading: str) -> int:
    """1 is the most raised."""
    by_effect = sorted(location.heads, key=lambda one: -getattr(one, reading).effect)
    return [(one.layer, one.head) for one in by_effect].index((layer, head)) + 1


def in_the_model(
    plain: LensedModel, text: list[list[int]], strengths: list[float], seeds: int, rows: int
) -> Iterator[list[str]]:
    """One row a planted model; a head of each layer in turn."""
    model = plain.lenses.record.model
    for seed in range(seeds):
        layer = seed % model.n_layers
        head = int(np.random.default_rng(seed).integers(model.n_heads))
        given = case(plain.model.tokenizer, text, seed)
        for strength in strengths:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                in_model.plant(
                    demo.MODEL,
                    folder / "model",
                    layer=layer,
                    head=head,
                    trigger=given.trigger,
                    terms=[term.ids[0] for term in given.terms],
                    strength=strength,
                    texts_BT=torch.tensor(given.to_plant),
                    seed=seed,
                )
                changed = fitted(str(folder / "model"), folder, rows)
                location = locate(changed, given.terms, given.prompts, given.controls)
            at = rank(location, layer, head, "lens")
            ours = location.heads[at - 1]
            others = [(one.layer, one.head) for one in location.heads if one.significant and one is not ours]
            yield [
                f"{layer}.{head}",
                f"{strength:g}",
                f"{location.model.effect:+.2f}",
                f"{ours.lens.effect:+.2f} [{ours.lens.low:+.2f}, {ours.lens.high:+.2f}]",
                f"{ours.lens.p_corrected:.4f}",
                f"{at} of {len(location.heads)}",
                f"{rank(location, layer, head, 'unembedding')} of {len(location.heads)}",
                ", ".join(f"{a}.{b}" for a, b in others) or "none",
            ]


def in_a_lens(plain: LensedModel, text: list[list[int]]) -> Iterator[list[str]]:
    """One row a strength, over heads and seeds."""
    model = plain.lenses.record.model
    by_strength: dict[float, list[tuple[int, bool, int]]] = {strength: [] for strength in LENS_STRENGTHS}
    num_heads = model.n_layers * model.n_heads
    for seed in range(LENS_SEEDS):
        layer, head = divmod(seed * num_heads // LENS_SEEDS, model.n_heads)
        given = case(plain.model.tokenizer, text, 1000 + seed)
        detector = in_lens.detector(plain, layer, head, given.to_plant, given.to_plant_without)
        for strength in LENS_STRENGTHS:
            with tempfile.TemporaryDirectory() as name:
                in_lens.plant(
                    plain.lenses.root,
                    Path(name) / "lenses",
                    layer=layer,
                    head=head,
                    terms=[term.ids[0] for term in given.terms],
                    strength=strength,
                    detector=detector,
                )
                changed = copy.copy(plain)  # the model is loaded once
                changed.lenses = load_lenses(Path(name) / "lenses")
                told = locate(
                    changed,
                    given.terms,
                    given.prompts,
                    given.controls,
                    settings=LocateSettings(compare="none"),
                )
            at = rank(told, layer, head, "lens")
            ours = told.heads[at - 1].significant
            by_strength[strength].append((at, ours, sum(one.significant for one in told.heads) - ours))
    for strength, cases in by_strength.items():
        ranks = [at for at, _, _ in cases]
        yield [
            f"{strength:g}",
            f"{sum(at == 1 for at in ranks)} of {len(ranks)}",
            f"{np.median(ranks):g}",
            f"{max(ranks)}",
            f"{sum(ours for _, ours, _ in cases)} of {len(cases)}",
            f"{sum(others for _, _, others in cases)} of {len(cases) * (num_heads - 1)}",
        ]


def chosen(rates: Rates, places: np.ndarray) -> Rates:
    """The rates of some prompts."""
    return dataclasses.replace(rates, log_p_PF=rates.log_p_PF[places], p_PF=rates.p_PF[places])


def nothing(plain: LensedModel, text: list[list[int]], splits: int) -> Iterator[list[str]]:
    """One row a number of prompts: nothing tells prompts from controls."""
    tokenizer = plain.model.tokenizer
    ids = [tokenizer.encode(f" {word}", add_special_tokens=False).ids for word in ("he", "his", "him", "man")]
    terms = [Term(text="", ids=tuple(ids_of_term)) for ids_of_term in ids]
    pool = term_rates(
        plain,
        TermList(terms),
        stretches(text, POOL, TOKENS, 0),
        plain.chosen(None, None),
        LocateSettings(compare="none"),
    ).lens
    mean = mean_rates(plain, TermList(terms))
    for group in GROUPS:
        for form in ("two groups", "pairs", "mean output"):
            false = dict.fromkeys(CORRECTIONS, 0)
            held = np.zeros(2)
            for split in range(splits):
                order = np.random.default_rng([split, group]).permutation(POOL)
                ours = chosen(pool, order[:group])
                theirs = None if form == "mean output" else chosen(pool, order[group : 2 * group])
                for correction in CORRECTIONS:
                    settings = LocateSettings(
                        paired=form == "pairs", correction=correction, permutations=PERMUTATIONS, seed=split
                    )
                    effects, _ = tested_effects(
                        ours, theirs, mean, settings, "greater" if theirs is None else settings.alternative
                    )
                    false[correction] += any(one.p_corrected <= settings.alpha for one in effects)
                held += [sum(one.low <= 0 <= one.high for one in effects), len(effects)]
            covered = "" if form == "mean output" else f"{100 * held[0] / held[1]:.1f}%"
            yield [f"{group}", form, *(f"{100 * n / splits:.1f}%" for n in false.values()), covered]


def table(title: str, names: list[str], rows: Iterator[list[str]]) -> None:
    """Rows are shown as they come."""
    print(f"\n{title}\n\n| {' | '.join(names)} |\n|{' --- |' * len(names)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def main() -> None:
    """All three tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--strengths", default="2,4")
    parser.add_argument("--rows", type=int, default=16_384)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--only", default="nothing,lens,model")
    asked = parser.parse_args()
    strengths = [float(strength) for strength in asked.strengths.split(",")]
    only = asked.only.split(",")
    with tempfile.TemporaryDirectory() as name:
        plain = fitted("demo", Path(name), asked.rows)
        text = lines(plain.model.tokenizer)
        if "nothing" in only:
            table(
                f"Nothing planted: splits of {asked.splits} in which any head is significant at 5 %",
                ["prompts and controls", "form", *CORRECTIONS, "intervals that hold 0"],
                nothing(plain, text, asked.splits),
            )
        if "lens" in only:
            table(
                f"Planted in one lens: {LENS_SEEDS} heads, {PROMPTS} prompts and controls each",
                [
                    "strength, nats",
                    "rank 1",
                    "median rank",
                    "worst rank",
                    "significant",
                    "other heads significant",
                ],
                in_a_lens(plain, text),
            )
        if "model" in only:
            table(
                f"Planted in the model: {PROMPTS} prompts and controls",
                ["head", "strength, nats", "model", "effect by lens", "p max-t", "rank by lens", "by unembedding", "other heads significant"],
                in_the_model(plain, text, strengths, asked.seeds, asked.rows),
            )  # fmt: skip


if __name__ == "__main__":
    main()
