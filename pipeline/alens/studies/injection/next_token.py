"""What a change of the model does to the next token of a prompt.

In: a prompt's tokens, edits, and terms to watch. Out: a `NextTokenEffect`: the terms' probability and rank, the KL to the
model as it is, and the most probable tokens.
Shapes: T tokens, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from alens.model.edits import Edit, run_edited
from alens.reading.lensed import LensedModel
from alens.reading.terms import Term


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
    """Of its most probable token: 1 is the model's first choice."""


@dataclass(frozen=True, kw_only=True)
class NextTokenEffect:
    """The next token after a prompt, with a change or without."""

    probability: float
    """Of any of the terms; 0 without terms."""
    log_probability: float | None
    """Mean over terms of the log of the probability of each, nats: what a direction is made to raise."""
    terms: tuple[TermEffect, ...]
    kl: float
    """KL(model as it is || changed model), nats."""
    top: tuple[NextToken, ...]


class PromptEffects:
    """One prompt under changes. Attributes: `ids`, `clean` (a `NextTokenEffect`)."""

    def __init__(self, reader: LensedModel, ids: Sequence[int], terms: Sequence[Term], top: int) -> None:
        self.ids, self._reader, self._terms, self._top = list(ids), reader, list(terms), top
        self._clean_V = self._run([])
        self.clean = self._effect(self._clean_V)

    def under(self, edits: Sequence[Edit]) -> NextTokenEffect:
        """The effect of `edits`; one forward pass."""
        return self._effect(self._run(edits))

    def _run(self, edits: Sequence[Edit]) -> torch.Tensor:
        final_BTD = run_edited(self._reader.model, torch.tensor([self.ids]), edits)
        return self._reader.log_probs(final_BTD[:, -1:])[0, 0].double()

    def _effect(self, log_probs_V: torch.Tensor) -> NextTokenEffect:
        best = log_probs_V.topk(self._top)
        found = tuple(_term(term, log_probs_V) for term in self._terms)
        ids = list(dict.fromkeys(token for term in self._terms for token in term.ids))
        logs = [float(log_probs_V[list(term.ids)].logsumexp(0)) for term in self._terms]
        kl = (self._clean_V.exp() * (self._clean_V - log_probs_V)).sum()
        return NextTokenEffect(
            probability=float(log_probs_V[ids].exp().sum()),
            log_probability=sum(logs) / len(logs) if logs else None,
            terms=found,
            kl=max(0.0, float(kl)),  # never below zero but by rounding
            top=tuple(
                NextToken(token=self._reader.text(token), id=token, probability=probability)
                for token, probability in zip(best.indices.tolist(), best.values.exp().tolist(), strict=True)
            ),
        )


def _term(term: Term, log_probs_V: torch.Tensor) -> TermEffect:
    of_term = log_probs_V[list(term.ids)]
    return TermEffect(
        term=term.text,
        probability=float(of_term.exp().sum()),
        rank=1 + int((log_probs_V > of_term.max()).sum()),
    )
