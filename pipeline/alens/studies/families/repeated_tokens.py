"""Random tokens that repeat themselves, and the same without repetition.

In: a loaded model, and how many tokens. Out: pairs of sequences. Both end with the same tokens; in the first the same
tokens stand before these, in its control other ones. So what differs between the two is the repetition, not the tokens
and not their places. No token stands twice in a control, and none is a special token.
Source: the repeated random tokens of Olsson et al., "In-context learning and induction heads" (arXiv 2209.11895).
Shapes: B sequences, T = 1 + 2 length tokens.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from alens import randomness
from alens.errors import RequestError
from alens.model.models import LoadedModel


class RepeatedTokens:
    """Sequences `FIRST x x` and `FIRST y x` of random tokens x and y.

    FIRST is BOS, where the model has one. Else it is a random token that stands nowhere else, so that nothing
    that is scored lies at position 0, where heads look that have nothing to do.
    """

    def __init__(self, model: LoadedModel, length: int, seed: int) -> None:
        """`length` is that of x. Raises `RequestError` where model or vocabulary are too small for it."""
        record = model.source.record
        self.bos, self.length, self._seed = model.beginning.token, length, seed
        self._ordinary = ordinary_tokens(model)
        longest = min((record.n_ctx - 1) // 2, (len(self._ordinary) - 1) // 2)
        if length > longest:
            raise RequestError(
                f"length is {length}: {record.id} sees {record.n_ctx:,} tokens and has {len(self._ordinary):,} that are not "
                f"special: give {longest} at most"
                if longest > 2
                else f"{record.id} is too small for random tokens that repeat themselves: it sees {record.n_ctx:,} tokens and "
                f"has {len(self._ordinary):,} that are not special"
            )

    def pair(self, number: int) -> tuple[list[int], list[int]]:
        """The sequence of this number and its control; they depend on the seed and the number alone."""
        draws = randomness.generator(self._seed, randomness.RANDOM_TOKENS, number)
        drawn = draws.choice(self._ordinary, 1 + 2 * self.length, replace=False).tolist()
        first = drawn[0] if self.bos is None else self.bos
        x, y = drawn[1 : 1 + self.length], drawn[1 + self.length :]
        return [first, *x, *x], [first, *y, *x]

    def batch(self, numbers: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T) sequences, and (B, T) their controls."""
        repeated, controls = zip(*map(self.pair, numbers), strict=True)
        return torch.tensor(repeated), torch.tensor(controls)


def ordinary_tokens(model: LoadedModel) -> npt.NDArray[np.int64]:
    """The tokens that are not special, in order."""
    known = min(model.tokenizer.get_vocab_size(with_added_tokens=True), model.source.record.d_vocab)
    special = {*model.tokenizer.get_added_tokens_decoder(), model.beginning.token, model.end_of_text}
    return np.array([token for token in range(known) if token not in special])


def sampled_tokens(model: LoadedModel, count: int, seed: int) -> list[int]:
    """Ordinary tokens, drawn without replacement; all where there are no more than `count`."""
    ordinary = ordinary_tokens(model)
    draws = randomness.generator(seed, randomness.SAMPLED_TOKENS)
    chosen: list[int] = draws.choice(ordinary, min(count, len(ordinary)), replace=False).tolist()
    return chosen
