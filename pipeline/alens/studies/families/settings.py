"""The settings of the scores of heads."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from alens.fields import check


@dataclass(frozen=True, kw_only=True)
class FamilySettings:
    """What heads are scored on."""

    sequences: Annotated[int, Ge(1)] = 16
    """Random sequences whose tokens repeat, and as many without repetition."""
    length: Annotated[int, Ge(3)] = 64
    """Random tokens that are repeated: a sequence is its first token and twice as many."""
    batch_size: Annotated[int, Ge(1)] = 8
    """Sequences that the model takes at once."""
    tokens: Annotated[int, Ge(2)] = 256
    """Tokens, drawn from the vocabulary, on which copying and suppression are scored."""
    top_k: Annotated[int, Ge(1)] = 10
    """A head raises or lowers a token if it is among so many that it raises or lowers most."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of the tokens that are drawn."""

    def __post_init__(self) -> None:
        check(self)
