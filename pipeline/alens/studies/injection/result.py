"""The results of `inject` and `ablate`: the next token and the loss, compared with those of the unchanged model."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alens.heads import Head
from alens.reading.terms import Term
from alens.result import Result


@dataclass(frozen=True, kw_only=True)
class NextToken:
    """One of the most probable next tokens."""

    token: str
    id: int
    probability: float


@dataclass(frozen=True, kw_only=True)
class TermEffect:
    """One term after a prompt."""

    term: str
    probability: float
    """Summed over its tokens."""
    rank: int
    """The rank of its most probable token: 1 is the model's first choice."""


@dataclass(frozen=True, kw_only=True)
class NextTokenEffect:
    """The next token after a prompt, with edits of the model or without."""

    probability: float
    """Probability of any of the terms; 0 without terms."""
    log_probability: float | None
    """Mean over terms of the log of the probability of each, nats: what a direction is made to raise."""
    terms: tuple[TermEffect, ...]
    kl: float
    """KL(model as it is || edited model), nats."""
    top: tuple[NextToken, ...]


@dataclass(frozen=True, kw_only=True)
class TextChange:
    """The loss on the text under edits."""

    nats: float
    """Loss per token."""
    added: float
    """Loss above that of the model as it is, nats per token."""
    interval: tuple[float, float] | None
    """The 95 % interval of `added`, by a bootstrap over windows; None where there is one window."""


@dataclass(frozen=True, kw_only=True)
class EditEffect:
    """The effect of a list of edits."""

    prompts: tuple[NextTokenEffect, ...]
    text: TextChange | None
    """None without a text."""


@dataclass(frozen=True, kw_only=True)
class CleanRun:
    """The model as it is."""

    prompts: tuple[NextTokenEffect, ...]
    nats: float | None
    """Loss per token of the text; None, as the next two, without a text."""
    tokens: int | None
    """How many tokens of the text are predicted."""
    windows: int | None
    """How many windows these tokens are cut into."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One direction at one strength."""

    strength: float
    norm: float
    """The norm of what is added."""
    change: EditEffect


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One direction at all strengths."""

    by: str
    """`lens`, `unembedding` or `random 1`, `random 2`, ..."""
    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class StrengthUnit:
    """The size of strength 1."""

    norm: float
    """The norm that is added: the root mean square norm of what the head writes."""
    rows: int
    """How many rows this norm is the root mean square of."""
    rows_of: str
    """Where these rows are from: `text` or `prompts`."""


@dataclass(frozen=True, kw_only=True)
class RandomSpread:
    """Mean and standard deviation of a figure over random directions."""

    mean: float
    sd: float
    """0 for one direction."""


@dataclass(frozen=True, kw_only=True)
class Injection(Result):
    """Directions added at a head, strength by strength."""

    layer: int
    head: int | None
    """None for lenses of the residual stream."""
    says_nothing: bool
    """Whether the fit found the lens to do no better than the mean output: its direction then means nothing."""
    site: str
    scaling: str
    within_head: bool
    position: str
    seed: int
    prompts: tuple[str, ...]
    terms: tuple[Term, ...]
    tokens: dict[str, list[str]]
    """For each term, its tokens as text."""
    unit: StrengthUnit
    cosine: float | None
    """Between the lens's direction and the unembedding's, where both were asked for."""
    writable: float | None
    """Share of the unembedding's whole direction (of its squared norm) that the head can write; None without a head."""
    clean: CleanRun
    curves: tuple[Curve, ...]
    """One for each reading that was asked for."""
    random: tuple[Curve, ...]

    def random_at(self, point: int) -> list[EditEffect]:
        """What the random directions do at the strength with that number."""
        return [curve.points[point].change for curve in self.random]

    def headline(self) -> str:
        """Where directions were added, and how many."""
        where = f"layer {self.layer}" if self.head is None else f"head {self.layer}.{self.head}"
        names = " and ".join(curve.by for curve in self.curves)
        return (
            f"{where}, direction of {names}, random directions: {len(self.random)}, "
            f"strengths: {len(self.curves[0].points)}, prompts: {len(self.prompts)}, terms: {len(self.terms)}"
        )

    def records(self) -> list[dict[str, Any]]:
        """One row for each direction, strength and prompt."""
        return [
            {"by": curve.by, "strength": point.strength, "norm": point.norm}
            | _row(self.prompts[number], point.change, number)
            for curve in (*self.curves, *self.random)
            for point in curve.points
            for number in range(len(self.prompts))
        ]


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Some heads ablated together."""

    heads: tuple[Head, ...]
    """One, or all that were asked for."""
    change: EditEffect


@dataclass(frozen=True, kw_only=True)
class Ablations(Result):
    """Heads ablated, one by one and together."""

    kind: str
    """`zero` or `mean`."""
    means_of: str | None
    """Where the means are from: `text`, or the name of the lenses or of the cache that hold them; None for `zero`."""
    prompts: tuple[str, ...]
    terms: tuple[Term, ...]
    clean: CleanRun
    ablations: tuple[Ablation, ...]
    """Each head alone; then, where there are several, all of them together."""

    def headline(self) -> str:
        """How heads were ablated, and how many."""
        heads = {head for ablation in self.ablations for head in ablation.heads}
        return f"ablated heads: {len(heads)} ({self.kind}), prompts: {len(self.prompts)}, terms: {len(self.terms)}"

    def records(self) -> list[dict[str, Any]]:
        """One row for each ablation and prompt."""
        return [
            {"heads": " ".join(f"{layer}.{head}" for layer, head in ablation.heads)}
            | _row(self.prompts[number], ablation.change, number)
            for ablation in self.ablations
            for number in range(len(self.prompts))
        ]

    def telling(self) -> list[dict[str, Any]]:
        """The records, the largest change first."""
        return sorted(self.records(), key=lambda record: -float(record["kl"]))


def spread(values: Sequence[float]) -> RandomSpread:
    """The spread of a figure over random directions, at least one."""
    return RandomSpread(
        mean=statistics.fmean(values), sd=statistics.stdev(values) if len(values) > 1 else 0.0
    )


def _row(prompt: str, change: EditEffect, number: int) -> dict[str, Any]:
    effect, text = change.prompts[number], change.text
    return {
        "prompt": prompt,
        "probability": effect.probability,
        "log_probability": effect.log_probability,
        "kl": effect.kl,
        "text_nats": None if text is None else text.nats,
        "text_added": None if text is None else text.added,
    }
