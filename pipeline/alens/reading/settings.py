"""What the lists of a reading can be asked for. It loads no torch, so that the options of `alens read` are made from it."""

from typing import Literal, get_args

Rank = Literal["lift", "probability", "own-lift", "z-score"]
"""What comes first in a list."""

LIFT, PROBABILITY, OWN_LIFT, Z_SCORE = get_args(Rank)

Looks = Literal["weights", "moved", "none"]
"""What is shown of where heads look."""

Sort = Literal["effect", "written", "gain", "kl", "token", "layer"]
"""Which heads come first in tables: those with the largest effect or write on any token, whose lens gains most over the
mean output, whose KL is lowest, who move the first chosen token most; or by layer and head."""

Role = Literal["user", "system"]
"""Whose message a plain prompt is, for the chat template of a model."""

RankedBy = Literal["lens", "written", "effect"]
"""By which reading of heads a study ranks them: what can be predicted from a head, what it writes, or what its effect lens says
that it adds."""

MIN_PROBABILITY = 0.001
"""Lists by lift have tokens of this probability or more, unless told otherwise."""

KNOWN_LIFT, SUPPRESSED_LOGIT = 4.0, 0.5
"""A head knows a token and suppresses it where its lens gives the token at least this lift, and `MIN_PROBABILITY`, and its
write lowers the token by at least so many logits (decision 0056)."""

SUPPRESSED_SHOWN = 3
"""Such tokens of a head that tables and pages show; results have as many as their lists."""


def suppression() -> str:
    """The same, in words for tables and pages."""
    return f"the lens gives {100 * MIN_PROBABILITY}% and {KNOWN_LIFT:g}x or more, and the write lowers by {SUPPRESSED_LOGIT} or more"
