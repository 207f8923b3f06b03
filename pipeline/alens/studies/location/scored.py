"""What is scored on a prompt: a list of terms, the same for all prompts, or the answer that each prompt has of its own.

In: log-probabilities of one reader at rows of prompts. Out: `RowScores` of these rows. A list scores the log of the terms'
summed probability. An answer scores the log-probability of its target, less that of its foil where there is one: the
difference of their logits.
Shapes: N rows, P prompts, V vocabulary, W terms, or 2 for target and foil.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch

from alens.reading.terms import Term

TARGET, FOIL = "target", "foil"


class RowScores(NamedTuple):
    """Float64, on the CPU."""

    score_N: torch.Tensor
    """Nats."""
    probability_N: torch.Tensor
    """That of any of the terms, or that of the target."""
    by_term_NW: torch.Tensor
    """The probability of each."""


class Scored(Protocol):
    """What is scored."""

    @property
    def names(self) -> tuple[str, ...]:
        """W names, for `by_term_NW`."""

    @property
    def token_groups(self) -> Sequence[Sequence[int]]:
        """The tokens of each name."""

    @property
    def against_itself(self) -> bool:
        """Whether a score is the difference of two tokens of one distribution, 0 where a reader favours neither."""

    @property
    def num_prompts(self) -> int:
        """How many prompts have something of their own to score; 1 where it is the same for all."""

    def scores(self, prompt_N: torch.Tensor, log_probs_NV: torch.Tensor) -> RowScores:
        """The scores of rows of these prompts."""

    def right(self, prompt_N: torch.Tensor, log_probs_NV: torch.Tensor) -> torch.Tensor:
        """(N,) bool: whether the target is above its foil; without foils, whether it is the first choice. For a list, whether a
        term is."""


class TermList:
    """One list of terms."""

    against_itself, num_prompts = False, 1

    def __init__(self, terms: Sequence[Term]) -> None:
        self.names = tuple(term.text for term in terms)
        self.token_groups = [list(term.ids) for term in terms]
        self._ids = sorted({token for term in terms for token in term.ids})

    def scores(self, prompt_N: torch.Tensor, log_probs_NV: torch.Tensor) -> RowScores:
        log_p_N = log_probs_NV[:, self._ids].double().logsumexp(-1).cpu()
        by_term = [log_probs_NV[:, ids].double().exp().sum(-1) for ids in self.token_groups]
        return RowScores(log_p_N, log_p_N.exp(), torch.stack(by_term, -1).cpu())

    def right(self, prompt_N: torch.Tensor, log_probs_NV: torch.Tensor) -> torch.Tensor:
        return torch.isin(log_probs_NV.argmax(-1).cpu(), torch.tensor(self._ids))


class OwnAnswers:
    """A target for each prompt, as a token, and a foil where prompts have one."""

    def __init__(self, targets: Sequence[int], foils: Sequence[int] | None) -> None:
        self.names = (TARGET,) if foils is None else (TARGET, FOIL)
        self.against_itself, self.num_prompts = foils is not None, len(targets)
        self.token_groups = [list(dict.fromkeys(tokens)) for tokens in (targets, foils) if tokens is not None]
        self._ids_PW = torch.tensor([targets] if foils is None else [targets, foils]).T

    def scores(self, prompt_N: torch.Tensor, log_probs_NV: torch.Tensor) -> RowScores:
        log_p_NW = self._own(prompt_N, log_probs_NV)
        score_N = log_p_NW[:, 0] - log_p_NW[:, 1] if self.against_itself else log_p_NW[:, 0]
        return RowScores(score_N, log_p_NW[:, 0].exp(), log_p_NW.exp())

    def right(self, prompt_N: torch.Tensor, log_probs_NV: torch.Tensor) -> torch.Tensor:
        if self.against_itself:
            return self.scores(prompt_N, log_probs_NV).score_N > 0
        return log_probs_NV.argmax(-1).cpu() == self._ids_PW[prompt_N, 0]

    def _own(self, prompt_N: torch.Tensor, log_probs_NV: torch.Tensor) -> torch.Tensor:
        return log_probs_NV.gather(-1, self._ids_PW[prompt_N].to(log_probs_NV.device)).double().cpu()
