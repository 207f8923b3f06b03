"""The result of `locate`: heads ranked by how far they raise some terms, with tests and intervals."""

from dataclasses import dataclass
from typing import Any

from alens.result import Result, chosen, plain
from alens.statistics.permutation import FEWEST_OF_UNEQUAL_SPREAD
from alens.store.schema import ATTN_Z
from alens.studies.location.settings import LocateSettings

TEST_SETTINGS = ("by", "paired", "alternative", "correction", "alpha", "permutations", "seed")
"""Settings that the JSON document repeats: how heads were tested."""

UNEQUAL = 2.0
"""From this ratio of spreads on, skewed scores make p-values too small: docs/decisions/0034."""


@dataclass(frozen=True, kw_only=True)
class ReaderEffect:
    """How far one reader raises the terms, or the targets that prompts have of their own above their foils."""

    effect: float
    """Nats."""
    low: float
    """Lower end of the interval of `effect`, for this head alone, over prompts like these."""
    high: float
    """Its upper end."""
    p: float
    """p-value, for this head alone."""
    p_corrected: float
    """Corrected for the number of heads; the same as `p` for the model, which is tested alone."""
    probability: float
    """The terms' summed probability, mean over prompts; that of the prompts' own targets where they have these."""
    control_probability: float
    """The same over controls; in the mean output where there are none."""
    lift: float | None
    """`probability` divided by the terms' share of the model's mean output; None where the lenses lack it."""
    share_above: float | None
    """Share of prompts, or of pairs, whose own effect is above 0; None for prompts and controls that are not pairs."""


@dataclass(frozen=True, kw_only=True)
class AnswerFigures:
    """How well the model itself does on some prompts with targets of their own; intervals have the level 1 - alpha."""

    right: float
    """Share of prompts where it prefers the target to the foil; without foils, where the target is its first choice."""
    right_low: float
    """Lower end of the Wilson interval of that share."""
    right_high: float
    difference: float
    """Logit of the target less that of the foil, mean over prompts; without foils, log-probability of the target, nats."""
    difference_low: float
    """Lower end of its interval over prompts, by Student's t."""
    difference_high: float


@dataclass(frozen=True, kw_only=True)
class ModelAnswers:
    """The same on prompts and on controls."""

    foils: bool
    """Whether prompts have foils."""
    prompts: AnswerFigures
    controls: AnswerFigures | None
    """Target and foil of the prompt, after its control; None without controls."""


@dataclass(frozen=True, kw_only=True)
class TermShare:
    """How probable one term is by one reading."""

    term: str
    probability: float
    """On the prompts."""
    control_probability: float
    """On the controls; in the mean output where there are none."""


@dataclass(frozen=True, kw_only=True)
class HeadEffect:
    """One head: the effect by its lens, and by other readings of the same values."""

    layer: int
    head: int
    says_nothing: bool
    """Whether the fit found its lens to do no better than the mean output."""
    lens: ReaderEffect
    unembedding: ReaderEffect | None
    """None where it was not asked for, or where what heads write cannot be unembedded."""
    written: ReaderEffect | None
    """By what the head writes, added to the model's mean output; None unless heads are ranked by it."""
    pursuit: ReaderEffect | None
    """By Head Pursuit: the share of what the head writes that lies along the terms' unembedding vectors, in the place of
    their probability, and in that of the mean output what random tokens explain; None unless heads are ranked by it."""
    effect: ReaderEffect | None
    """By what its effect lens says that it adds, the same way; None unless heads are ranked by it."""
    significant: bool
    """Whether the corrected p of the reading that heads are ranked by is at most alpha."""
    lens_kl: float
    """KL(model, lens) in nats, mean over prompts and controls: how far its readings here are from the model's."""
    unembedding_kl: float | None
    """KL(model, unembedding), the same way."""
    written_kl: float | None
    """KL(model, written), the same way."""
    effect_kl: float | None
    """KL(model, effect), the same way."""
    terms: list[TermShare]
    """By the reading that heads are ranked by; the term whose probability rises most comes first. `target`, and `foil`, where
    prompts have their own."""


@dataclass(frozen=True, kw_only=True)
class Location(Result):
    """Heads, ranked by the effect in one of their readings."""

    site: str
    """What the lenses read."""
    terms: list[str]
    """The terms; where prompts have targets of their own, these, each once."""
    own_answers: bool
    """Whether each prompt has its own target."""
    position: str
    """`last` or `all`."""
    prompts: int
    """How many prompts there were, each text counted once."""
    controls: int | None
    """How many controls; None: compared with the mean output."""
    prompts_with_terms: int
    """Prompts and controls that hold a term, or their own target, themselves: a head that copies raises it there."""
    settings: LocateSettings
    relabellings: int
    """Relabellings that the tests took."""
    exact: bool
    """Whether these are all relabellings that exist; if not, they were drawn."""
    more_draws: int
    """Draws of the second kind of chance: flipped signs, or redrawn prompts without controls; 0 for pairs."""
    spread_ratio: float | None
    """Standard deviation of the prompts' scores over that of the controls', geometric mean over heads; None without
    controls, and where the scores of some head are all equal."""
    smallest_p: float
    """The least corrected p that one head could have with so many prompts when no other head shows anything."""
    heads: list[HeadEffect]
    """The largest effect first."""
    model: ReaderEffect
    """The effect in the model's own next-token distribution."""
    model_does: ModelAnswers | None
    """How well the model itself does where prompts have targets of their own; else None."""
    mean_output_kl: float | None
    """KL(model, mean output) on the same prompts and controls: the KL of a reading that ignores its input. None where
    the lenses lack the mean output."""
    notes: list[str]
    """What to know about the prompts, such as repeats, which count once."""

    def ranked(self, head: HeadEffect) -> ReaderEffect:
        """The effect of a head in the reading that heads are ranked by."""
        effect: ReaderEffect | None = getattr(head, self.settings.by)
        assert effect is not None, "it was asked for"
        return effect

    @property
    def unit(self) -> str:
        """The unit of effects."""
        return "share of what a head writes" if self.settings.by == "pursuit" else "nats"

    @property
    def reference(self) -> str:
        """What prompts are compared with."""
        if self.controls is not None:
            return f"{self.controls} controls"
        if self.settings.by == "pursuit":
            return "random tokens"
        has_foils = self.model_does is not None and self.model_does.foils
        return "their foils" if has_foils else "the mean output"

    @property
    def on_heads(self) -> bool:
        """Whether the lenses read heads. If not, they read a site of the residual stream, with one lens per layer."""
        return self.site == ATTN_Z

    @property
    def can_be_significant(self) -> bool:
        """Whether there are enough prompts for a single head to be significant."""
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

    def headline(self) -> str:
        """The number of heads and the head that raises the terms most."""
        first = self.heads[0]
        significant, effect = sum(head.significant for head in self.heads), self.ranked(first)
        return (
            f"prompts: {self.prompts} against {self.reference}, significant heads: {significant} of {len(self.heads)}, "
            f"first {first.layer}.{first.head} by {effect.effect:+.3f} {self.unit} (p {effect.p_corrected:.3g})"
        )

    def telling(self) -> list[dict[str, Any]]:
        """The effect of each head in the reading that heads are ranked by."""
        names = ("effect", "low", "high", "p_corrected", "probability", "control_probability")
        by = [f"{self.settings.by}.{name}" for name in names]
        return chosen(self.records(), "layer", "head", "says_nothing", *by, "significant")

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the rank of each head and what the tests can and cannot show."""
        ranked = [{"rank": rank, **plain(head)} for rank, head in enumerate(self.heads, start=1)]
        return {
            **super().to_json(),
            "settings": {name: getattr(self.settings, name) for name in TEST_SETTINGS},
            "can_be_significant": self.can_be_significant,
            "needs_equal_spread": self.needs_equal_spread,
            "spreads_unequally": self.spreads_unequally,
            "heads": ranked,
        }
