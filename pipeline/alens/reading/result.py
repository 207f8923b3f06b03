"""A `Reading`: what each head says about a prompt, at some positions. Plain values, without torch.

In: nothing; `alens.reading.head_reader` fills it. Out: the document of `alens read --json`, and a frame.
"""

from dataclasses import dataclass
from typing import Any

from alens.result import Result, chosen, number_of


@dataclass(frozen=True, kw_only=True)
class TokenScore:
    """One token of a ranked list."""

    token: str
    id: int
    probability: float
    lift: float | None
    """Probability over the token's share of the model's mean output: above 1, the head raises the token. None where
    the lenses do not hold the mean output, or the mean output has never seen the token."""
    score: float | None = None
    """What the list is ordered by, where that is own lift (a ratio) or z-score (standard deviations); else None."""


@dataclass(frozen=True, kw_only=True)
class TermScore:
    """The probability that a distribution gives to a chosen term."""

    term: str
    ids: list[int]
    """The tokens that stand for it; their probabilities are added up."""
    probability: float
    lift: float | None


@dataclass(frozen=True, kw_only=True)
class WrittenToken:
    """What a head writes on one token."""

    token: str
    id: int
    logit: float
    """Signed; centred over the vocabulary."""


@dataclass(frozen=True, kw_only=True)
class WrittenTerm:
    """What a head writes on a chosen term: on its form with a space before it where that is a single token, else on its
    form as written. Logits of forms are not added up."""

    term: str
    id: int
    logit: float


@dataclass(frozen=True, kw_only=True)
class Written:
    """What one head adds to the logits at one position: its direct write, or its effect."""

    raised: list[WrittenToken]
    """The tokens that the head raises most, the most raised first."""
    lowered: list[WrittenToken]
    """The tokens that it lowers most, the most lowered first."""
    suppressed: list[WrittenToken]
    """The tokens that its lens raises and the head lowers, both clearly, the most lowered first: the head knows, and
    suppresses. Empty where the lenses do not hold the mean output."""


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Where one head looks from one position: a number for each token of the prompt up to there."""

    weights: list[float]
    """The attention weights; they sum to 1, or to less where the model gives a part to no token."""
    moved: list[float]
    """The norm of what each of these tokens adds to the residual stream through the head: of weight v W_O."""


@dataclass(frozen=True, kw_only=True)
class HeadReading:
    """What one head says at one position."""

    position: int
    layer: int
    head: int
    says_nothing: bool
    """Whether the fit found this lens to do no better than the mean output on held-out rows."""
    lens: list[TokenScore]
    unembedding: list[TokenScore]
    """Empty where what the head writes cannot be unembedded; the two figures are None then."""
    lens_kl: float
    """KL(model, lens) in nats: how far the lens's distribution is from the model's output."""
    lens_entropy: float
    """In nats."""
    unembedding_kl: float | None
    unembedding_entropy: float | None
    lens_terms: list[TermScore]
    """The chosen terms, in their order."""
    unembedding_terms: list[TermScore]
    written: Written | None
    """None where `Reading.no_write` gives a reason."""
    written_terms: list[WrittenTerm]
    """The chosen terms, in their order; empty where `written` is None."""
    effect: Written | None
    """What its effect lens says that the head adds to the logits, all in all; None where there is none."""
    effect_terms: list[WrittenTerm]
    """The chosen terms, in their order; empty where `effect` is None."""
    attention: Attention | None = None
    """None where `Reading.no_attention` gives a reason."""


@dataclass(frozen=True, kw_only=True)
class Reading(Result):
    """What heads say about a prompt."""

    prompt: str
    tokens: list[str]
    vocabulary: int
    """The number of tokens of the model; an entropy is at most its log."""
    positions: list[int]
    before: dict[int, str]
    """By position: the prompt up to and with its token. A character may take several tokens."""
    site: str
    """What the lenses read: `attn.z`, or a site of the residual stream; such a site counts as one head, 0."""
    rank: str
    """How the lists of heads are ranked: by `lift` or `probability`."""
    min_probability: float
    """The least probability of a token in a list by lift. Fewer tokens than asked for may reach it."""
    model: dict[int, list[TokenScore]]
    """By position: the model's own next-token list, always by probability."""
    model_entropy: dict[int, float]
    """By position, in nats."""
    model_terms: dict[int, list[TermScore]]
    """By position: the chosen terms."""
    mean_output_kl: dict[int, float | None]
    """By position: KL(model, mean output) in nats, the KL of a reading that ignores its input. None where it is not
    known."""
    no_write: str | None
    """Why it is left out what heads write; None where it is there."""
    no_attention: str | None
    """Why it is left out where heads look; None where it is there."""
    heads: list[HeadReading]

    def headline(self) -> str:
        """The prompt, and how many heads were read at which positions."""
        heads = len({(head.layer, head.head) for head in self.heads})
        prompt = self.prompt if len(self.prompt) <= 60 else f"{self.prompt[:57]}..."
        where = number_of(len(self.positions), "position")
        return f"{prompt!r}, {number_of(heads, 'head')} at {where}, listed by {self.rank}"

    def records(self) -> list[dict[str, Any]]:
        """One record for each head and position: its figures, the tokens of its lists, and the chosen terms."""
        return [self._record(head) for head in self.heads]

    def telling(self) -> list[dict[str, Any]]:
        """Heads at the last position, those first that move any token most by their effect, else by what they write; else
        those with the lowest KL."""
        last = [head for head in self.heads if head.position == max(self.positions)]
        rows = [self._record(head) for head in sorted(last, key=_least_telling_last)]
        return chosen(
            rows, "layer", "head", "position", "says_nothing", "lens_kl", "mean_output_kl", "lens",
            *(f"{reading}.{name}" for reading in ("effect", "written") for name in ("raised", "lowered")),
        )  # fmt: skip

    def _record(self, head: "HeadReading") -> dict[str, Any]:
        terms = {
            f"{reading}.{score.term}.{name}": getattr(score, name)
            for reading, scores in (("lens", head.lens_terms), ("unembedding", head.unembedding_terms))
            for score in scores
            for name in ("probability", "lift")
        }
        added: dict[str, list[str] | None] = {}
        for reading, lists, scores in (
            ("written", head.written, head.written_terms),
            ("effect", head.effect, head.effect_terms),
        ):
            terms |= {f"{reading}.{score.term}.logit": score.logit for score in scores}
            for name in ("raised", "lowered", "suppressed"):
                tokens = None if lists is None else [score.token for score in getattr(lists, name)]
                added[f"{reading}.{name}"] = tokens
        return {
            "layer": head.layer,
            "head": head.head,
            "position": head.position,
            "says_nothing": head.says_nothing,
            "lens_kl": head.lens_kl,
            "lens_entropy": head.lens_entropy,
            "unembedding_kl": head.unembedding_kl,
            "unembedding_entropy": head.unembedding_entropy,
            "mean_output_kl": self.mean_output_kl[head.position],
            "lens": [score.token for score in head.lens],
            "unembedding": [score.token for score in head.unembedding],
            **added,
            **terms,
        }


def _least_telling_last(head: HeadReading) -> float:
    """A sort key: minus the largest logit that the head moves, or its KL."""
    lists = head.effect or head.written
    if lists is None:
        return head.lens_kl
    return -max((abs(one.logit) for one in [*lists.raised[:1], *lists.lowered[:1]]), default=0.0)
