"""Bias localisation: which heads raise a list of terms on some prompts above their rate on control prompts.

In: lenses with their model, terms, prompts, controls. Out: a `Location`: for each head the effect, with an interval,
a p-value and one corrected for the number of heads; ranked, the most raised first.
Source: "Attention Lens" (arXiv 2310.16270), section 3.1; intervals, tests and corrections are ours.

The score of a prompt is the log of the terms' summed probability at its last position (or the mean over positions),
in nats. The effect is the mean score of the prompts less that of the controls; exp(effect) is how many times more
probable. How probable the terms are in general is in both means, and cancels. Without controls the effect is the mean
of the score less the log of the terms' probability in the model's mean output.
Shapes: P prompts, C controls, F heads (layer by layer), W terms.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from alens.errors import RequestError
from alens.job.progress import Progress, Report, silent
from alens.reading.lensed import LensedModel
from alens.reading.prompts import Prompt, tokens_of
from alens.reading.terms import Term
from alens.statistics.permutation import FEWEST_OF_UNEQUAL_SPREAD
from alens.store.schema import ATTN_Z
from alens.studies.location.effect_tests import (
    ReaderEffect,
    contrast,
    smallest_corrected,
    spread_ratio,
)
from alens.studies.location.prompt_groups import groups
from alens.studies.location.settings import LocateSettings
from alens.studies.location.term_rates import Array, Rates, TermRates, mean_rates, term_rates

CONTROL = "control"
"""The label of control prompts in a file that holds both."""

TESTED = ("paired", "alternative", "correction", "alpha", "permutations", "seed")
"""Settings that a result repeats: how heads were tested."""

UNEQUAL = 2.0
"""From this ratio of spreads on, skewed scores cost the test its level: docs/decisions/0034."""


@dataclass(frozen=True, kw_only=True)
class TermShare:
    """What one term has to do with a head's effect."""

    term: str
    probability: float
    control_probability: float


@dataclass(frozen=True, kw_only=True)
class HeadEffect:
    """One head."""

    layer: int
    head: int
    says_nothing: bool
    """Whether the fit found its lens to do no better than the mean output."""
    lens: ReaderEffect
    unembedding: ReaderEffect | None
    significant: bool
    """By its lens."""
    lens_kl: float
    """KL(model, lens) in nats, mean over prompts and controls: how far its readings here are from the model's."""
    unembedding_kl: float | None
    terms: list[TermShare]
    """By the lens; the term whose probability rises most comes first."""


@dataclass(frozen=True, kw_only=True)
class Location:
    """Heads, ranked by the effect in their lenses."""

    site: str
    terms: list[str]
    position: str
    prompts: int
    controls: int | None
    """None: compared with the mean output."""
    prompts_with_terms: int
    """Prompts and controls that themselves hold a term: a head that copies raises it there."""
    settings: LocateSettings
    relabellings: int
    exact: bool
    """All relabellings were taken, not drawn."""
    more_draws: int
    """Beside the relabellings: flipped signs, or redrawn prompts without controls; 0 for pairs."""
    spread_ratio: float | None
    """Standard deviation of the prompts' scores over that of the controls', geometric mean over heads; None without
    controls, and where some head has no spread."""
    smallest_p: float
    """The least corrected p that one head could have with so many prompts when no other head shows anything."""
    heads: list[HeadEffect]
    model: ReaderEffect
    mean_output_kl: float | None
    """KL(model, mean output) on the same prompts and controls: what a reader has that looks at nothing. None where the
    lenses do not say the mean output."""
    notes: list[str]
    """What to know about the prompts: repeats that count once."""

    @property
    def on_heads(self) -> bool:
        """Whether the lenses read heads; else a site of the residual stream, which has one lens a layer."""
        return self.site == ATTN_Z

    @property
    def can_be_significant(self) -> bool:
        """Whether there are prompts enough for one head alone to be significant."""
        return self.smallest_p <= self.settings.alpha

    @property
    def needs_equal_spread(self) -> bool:
        """Whether a group has too few prompts for p-values that hold when one group spreads more than the other."""
        if self.controls is None or self.settings.paired:
            return False
        return min(self.prompts, self.controls) < FEWEST_OF_UNEQUAL_SPREAD

    @property
    def spreads_unequally(self) -> bool:
        """Whether one group spreads so much more that p-values hold only for scores that are about symmetric."""
        return self.spread_ratio is not None and not 1 / UNEQUAL < self.spread_ratio < UNEQUAL

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        ranked = [{"rank": rank, **asdict(head)} for rank, head in enumerate(self.heads, start=1)]
        return {
            **asdict(self),
            "settings": {name: getattr(self.settings, name) for name in TESTED},
            "can_be_significant": self.can_be_significant,
            "needs_equal_spread": self.needs_equal_spread,
            "spreads_unequally": self.spreads_unequally,
            "heads": ranked,
        }


def by_label(prompts: Sequence[Prompt]) -> tuple[list[Prompt], list[Prompt]]:
    """Prompts, and controls: those of one file that are labelled `control`."""
    controls = [prompt for prompt in prompts if prompt.label == CONTROL]
    return [prompt for prompt in prompts if prompt.label != CONTROL], controls


def locate(
    reader: LensedModel,
    terms: Sequence[Term],
    prompts: Sequence[Prompt],
    controls: Sequence[Prompt] | None = None,
    *,
    settings: LocateSettings | None = None,
    report: Report = silent,
) -> Location:
    """Rank heads by how far they raise `terms` on `prompts` above `controls` (None: above the mean output).

    A text counts once, and so does a pair. Raises `RequestError` for too few prompts, pairs that do not match, or what model or lenses lack.
    """
    settings = settings or LocateSettings()
    prompts, controls, notes = groups(prompts, controls, settings)
    if not terms:
        raise RequestError("there is no term: give one or more")
    if controls is None and reader.log_mean_V is None:
        raise RequestError(
            f"{reader.lenses.name} does not say the model's mean output: give control prompts to compare with"
        )
    layers, heads = reader.chosen(settings.layers, settings.heads)
    ids = [tokens_of(reader, prompt) for prompt in prompts]
    control_ids = None if controls is None else [tokens_of(reader, prompt) for prompt in controls]

    def rates(of: list[list[int]], stage: str) -> TermRates:
        return term_rates(
            reader,
            terms,
            of,
            layers=layers,
            heads=heads,
            positions=settings.position,
            unembedding=settings.compare == "unembedding",
            report=report,
            stage=stage,
        )

    found = rates(ids, "prompts")
    other = None if control_ids is None else rates(control_ids, "controls")
    report(Progress(stage="permutations"))
    mean = mean_rates(reader, terms)
    lens, tests = contrast(found.lens, other.lens if other else None, mean, settings)
    plain: list[ReaderEffect] | list[None] = [None] * len(lens)
    if found.unembedding is not None:
        plain, _ = contrast(found.unembedding, other.unembedding if other else None, mean, settings)
    (model,), _ = contrast(found.model, other.model if other else None, mean, settings)
    numbers = [(layer, head) for layer in layers for head in heads]
    lens_kl, plain_kl, mean_output_kl = _kl(found, other, len(prompts), len(controls or ()))
    ranked = [
        HeadEffect(
            layer=layer,
            head=head,
            says_nothing=reader.lenses.record.says_nothing(layer, head),
            lens=effect,
            unembedding=beside,
            significant=effect.p_corrected <= settings.alpha,
            lens_kl=float(lens_kl[f]),
            unembedding_kl=None if plain_kl is None else float(plain_kl[f]),
            terms=_shares(terms, found.lens, other.lens if other else mean, f),
        )
        for f, ((layer, head), effect, beside) in enumerate(zip(numbers, lens, plain, strict=True))
    ]
    return Location(
        site=reader.lenses.record.site,
        terms=[term.text for term in terms],
        position=settings.position,
        prompts=len(prompts),
        controls=None if controls is None else len(controls),
        prompts_with_terms=_with_terms([*ids, *(control_ids or [])], terms),
        settings=settings,
        relabellings=tests.relabellings,
        exact=tests.exact,
        more_draws=tests.more_draws,
        spread_ratio=None if other is None else spread_ratio(found.lens, other.lens),
        smallest_p=smallest_corrected(
            len(prompts), None if controls is None else len(controls), len(numbers), settings
        ),
        heads=sorted(ranked, key=lambda head: -head.lens.effect),
        model=model,
        mean_output_kl=mean_output_kl,
        notes=notes,
    )


def _kl(
    found: TermRates, other: TermRates | None, num_prompts: int, num_controls: int
) -> tuple[Array, Array | None, float | None]:
    """KL of lenses, unembeddings and the mean output, over prompts and controls together."""

    def both(ours: Any, theirs: Any) -> Any:
        if other is None or ours is None:
            return ours
        return (num_prompts * ours + num_controls * theirs) / (num_prompts + num_controls)

    beside = other or found
    return (
        both(found.lens_kl_F, beside.lens_kl_F),
        both(found.unembedding_kl_F, beside.unembedding_kl_F),
        both(found.mean_output_kl, beside.mean_output_kl),
    )


def _shares(terms: Sequence[Term], rates: Rates, beside: Rates | None, head: int) -> list[TermShare]:
    assert beside is not None  # without controls there is a mean output
    other_W = beside.by_term_FW[head % len(beside.by_term_FW)]  # the mean output is one reader
    found = [
        TermShare(term=term.text, probability=float(ours), control_probability=float(theirs))
        for term, ours, theirs in zip(terms, rates.by_term_FW[head], other_W, strict=True)
    ]
    return sorted(found, key=lambda share: share.control_probability - share.probability)


def _with_terms(prompts: Sequence[Sequence[int]], terms: Sequence[Term]) -> int:
    ids = {token for term in terms for token in term.ids}
    return sum(not ids.isdisjoint(prompt) for prompt in prompts)
