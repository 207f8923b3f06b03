"""What heads write -> the tokens that each raises and lowers most, and those that it knows and suppresses.

In: logits of the direct write of some heads at some positions, centred over the vocabulary, and the lens's
log-probabilities. Out: `Written`, and the logits of chosen terms.
Shapes: H heads, T tokens, K entries of a list, V vocabulary.
"""

import math
from collections.abc import Callable, Sequence

import torch

from alens.machine.top_tokens import top_tokens
from alens.reading.ranking import NO_MASS
from alens.reading.result import Written, WrittenTerm, WrittenToken
from alens.reading.settings import KNOWN_LIFT, MIN_PROBABILITY, SUPPRESSED_LOGIT
from alens.reading.terms import Term


def written_lists(
    written_HTV: torch.Tensor,
    lens_HTV: torch.Tensor,
    log_mean_V: torch.Tensor | None,
    top: int,
    text: Callable[[int], str],
) -> list[list[Written]]:
    """What each head writes, by head, then by position, `top` tokens a list; `text` gives the text of a token."""
    return [
        [
            Written(raised=raised, lowered=lowered, suppressed=suppressed)
            for raised, lowered, suppressed in zip(
                _tokens(written_TV, top, text),
                _tokens(-written_TV, top, text, sign=-1.0),
                _suppressed(written_TV, lens_TV, log_mean_V, top, text),
                strict=True,
            )
        ]
        for written_TV, lens_TV in zip(written_HTV, lens_HTV, strict=True)
    ]


def written_terms(written_V: torch.Tensor, terms: Sequence[Term]) -> list[WrittenTerm]:
    """What a head writes on chosen terms at one position."""
    logits_C = written_V[[term.token for term in terms]].tolist()
    return [
        WrittenTerm(term=term.text, id=term.token, logit=logit)
        for term, logit in zip(terms, logits_C, strict=True)
    ]


def is_suppressed(written_TV: torch.Tensor, lens_TV: torch.Tensor, log_mean_V: torch.Tensor) -> torch.Tensor:
    """(T, V) whether the lens raises a token and the write lowers it, both clearly (`reading.settings`)."""
    known_TV = (lens_TV - log_mean_V >= math.log(KNOWN_LIFT)) & (lens_TV >= math.log(MIN_PROBABILITY))
    return known_TV & (written_TV <= -SUPPRESSED_LOGIT) & (log_mean_V > NO_MASS)


def _tokens(
    logits_TV: torch.Tensor, top: int, text: Callable[[int], str], sign: float = 1.0
) -> list[list[WrittenToken]]:
    """The tokens with the largest values at each position; each is given times `sign`."""
    values_TK, ids_TK = top_tokens(logits_TV, top)
    return [
        [
            WrittenToken(token=text(token), id=token, logit=sign * value)
            for token, value in zip(ids, values, strict=True)
            if value > -math.inf
        ]
        for ids, values in zip(ids_TK.tolist(), values_TK.tolist(), strict=True)
    ]


def _suppressed(
    written_TV: torch.Tensor,
    lens_TV: torch.Tensor,
    log_mean_V: torch.Tensor | None,
    top: int,
    text: Callable[[int], str],
) -> list[list[WrittenToken]]:
    if log_mean_V is None:
        return [[] for _ in written_TV]
    lowered_TV = -written_TV.masked_fill(~is_suppressed(written_TV, lens_TV, log_mean_V), math.inf)
    return _tokens(lowered_TV, top, text, sign=-1.0)
