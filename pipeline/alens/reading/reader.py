"""A prompt -> what each head says about it: the top tokens by its lens, beside those of the unembedding.

In: lenses, the model they were fitted on, a prompt. Out: a `Reading`: for each position, layer and head
two ranked lists of tokens, and the model's own list (Fig. 1 and section 3 of "Attention Lens", arXiv
2310.16270, compare the same two).
Shapes: T tokens, H heads, E width of the site's values, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from alens.errors import RequestError
from alens.reading.lensed import LensedModel


@dataclass(frozen=True, kw_only=True)
class TokenScore:
    """One entry of a ranked list."""

    token: str
    id: int
    probability: float
    lift: float | None
    """Probability over the token's share of the model's mean output: above 1, the head raises it. None where the
    lenses, from elsewhere, do not say the mean output."""


@dataclass(frozen=True, kw_only=True)
class HeadReading:
    """What one head says at one position."""

    position: int
    layer: int
    head: int
    lens: list[TokenScore]
    unembedding: list[TokenScore]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What heads say about a prompt."""

    prompt: str
    tokens: list[str]
    positions: list[int]
    before: dict[int, str]
    """By position: the prompt up to and with its token. A character may take several tokens."""
    model: dict[int, list[TokenScore]]
    """By position: the model's own next-token list."""
    heads: list[HeadReading]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class HeadReader(LensedModel):
    """Lenses with their model loaded, to read any number of prompts."""

    def read(
        self,
        prompt: str,
        *,
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        positions: Sequence[int] | None = None,
        top: int = 10,
    ) -> Reading:
        """Read a prompt at `positions` (negative from the end; default the last), `top` tokens a list.

        Raises `RequestError` for an empty or too long prompt, or what does not exist in model or lenses.
        """
        layers, heads = self.chosen(layers, heads)
        most = self.lenses.record.model.d_vocab
        if not 1 <= top <= most:
            raise RequestError(f"top is {top}: it must be in 1 .. {most}")
        ids = self.tokens(prompt)
        places = self._positions(positions, len(ids))
        found = self.run(ids, layers)
        model_TV = self.model(found)
        readings = []
        for layer in layers:
            values_HTE = self.values(found, layer, heads)[:, places]
            lens_HTV = self.lens(layer, heads, values_HTE)
            plain_HTV = self.unembedding(layer, heads, values_HTE)
            readings += [
                HeadReading(
                    position=position,
                    layer=layer,
                    head=head,
                    lens=self._top(lens_HTV[h, t], top),
                    unembedding=self._top(plain_HTV[h, t], top),
                )
                for t, position in enumerate(places)
                for h, head in enumerate(heads)
            ]
        return Reading(
            prompt=prompt,
            tokens=[self.text(token) for token in ids],
            positions=places,
            before={position: self.text(*ids[: position + 1]) for position in places},
            model={position: self._top(model_TV[position], top) for position in places},
            heads=sorted(readings, key=lambda r: (r.position, r.layer, r.head)),
        )

    def _positions(self, positions: Sequence[int] | None, num_tokens: int) -> list[int]:
        found = []
        for position in [-1] if positions is None else positions:
            if not -num_tokens <= position < num_tokens:
                raise RequestError(
                    f"position {position} does not exist: the prompt has {num_tokens} tokens, 0 to {num_tokens - 1}"
                )
            found.append(position % num_tokens)
        return found

    def _top(self, log_probs_V: torch.Tensor, top: int) -> list[TokenScore]:
        best = log_probs_V.topk(top)
        mean_V = self.log_mean_V
        lift = [None] * top if mean_V is None else (best.values - mean_V[best.indices]).exp().tolist()
        return [
            TokenScore(token=self.text(token), id=token, probability=probability, lift=ratio)
            for token, probability, ratio in zip(
                best.indices.tolist(), best.values.exp().tolist(), lift, strict=True
            )
        ]
