"""A prompt -> what each head says about it: the top tokens by its lens, beside those of the unembedding.

In: lenses with their model, and a prompt. Out: a `Reading`: for each position, layer and head two ranked lists of tokens
with KL and entropy in nats (Fig. 1 and section 3 of "Attention Lens", arXiv 2310.16270, compare the same two), the tokens
that the head raises and lowers by what it writes, and the model's own list.
Shapes: T tokens, H heads, K entries of a list, V vocabulary.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from alens.errors import RequestError
from alens.heads import HeadNames, Heads
from alens.machine.blocks import REUSED_BYTES, slices
from alens.model.activations import Activations
from alens.reading import own_moments
from alens.reading.head_attention import attention, sources
from alens.reading.lensed_model import LensedModel
from alens.reading.prompts import Prompt, text_of
from alens.reading.ranking import NO_MASS, Own, Ranking, best_scored, ranking, term_log_probs
from alens.reading.result import HeadReading, Reading, TermScore, TokenScore
from alens.reading.settings import MIN_PROBABILITY, OWN_LIFT, PROBABILITY, Z_SCORE, Rank
from alens.reading.terms import Term, to_tokens
from alens.reading.written_lists import written_lists, written_terms
from alens.rows.direct_write import centred_logits
from alens.rows.row_scales import RowScales
from alens.statistics.divergences import entropy, kl_of_log_probs


@dataclass(frozen=True, kw_only=True)
class LayerReading:
    """The whole distributions of the heads of one layer, at some positions."""

    layer: int
    heads: tuple[int, ...]
    places: slice
    """The indices of these positions among the requested ones."""
    model_TV: torch.Tensor
    """Log-probabilities, like the next two."""
    lens_HTV: torch.Tensor
    unembedding_HTV: torch.Tensor | None
    """None where `LensedModel.no_unembedding` gives a reason."""
    written_HTV: torch.Tensor | None
    """Logits of the direct write, centred over the vocabulary; None where `HeadWrites.lacking` gives a reason."""
    effect_TV: Mapping[int, torch.Tensor]
    """By head, where an effect lens of it was given: what the head adds to the logits, centred over the vocabulary."""


@dataclass(frozen=True, kw_only=True)
class _HeadFigures:
    """List and figures of one reading of one head, at one position."""

    scores: list[TokenScore]
    kl: float
    entropy: float
    terms: list[TermScore]


class HeadReader(LensedModel):
    """Lenses with their model loaded, to read any number of prompts."""

    def read(
        self,
        prompt: str | Prompt,
        *,
        layers: Sequence[int] | None = None,
        heads: HeadNames | None = None,
        positions: Sequence[int] | None = None,
        top: int = 10,
        rank: Rank | None = None,
        min_probability: float = MIN_PROBABILITY,
        terms: Sequence[Term] = (),
    ) -> Reading:
        """Read a prompt at `positions` (negative ones count from the end; the default is the last), `top` tokens a list.

        `layers` and `heads` say which heads, by default all that were fitted; `heads` is as `HeadNames` says.

        `rank` is `lift`, the default where the lenses hold the mean output, `own-lift`, `z-score` or `probability`; but by
        probability, tokens below `min_probability` are left out. `terms` come from `self.terms`.
        Raises `RequestError` for a prompt that is empty or too long, and for what model or lenses do not have.
        """
        chosen = self.chosen(layers, heads)
        how = self.ranking(rank, top, min_probability, chosen)
        text, _ = text_of(self, prompt)
        ids = self.tokens(text)
        places = self.places(positions, len(ids))
        activations = self.run(ids, chosen.layers)
        model_TV = self.model_log_probs(activations)[places]
        by_layer, no_attention = sources(self, ids, chosen, places)
        looks = attention(by_layer, chosen, places)
        readings = [
            replace(reading, attention=looks.get((reading.position, reading.layer, reading.head)))
            for layer_reading in self.layer_readings(activations, model_TV, chosen, places)
            for reading in self._heads(layer_reading, places, how, terms)
        ]
        by_probability = self.ranking(PROBABILITY, top, min_probability)
        return Reading(
            prompt=text,
            tokens=[self.text(token) for token in ids],
            vocabulary=self.lenses.record.model.d_vocab,
            positions=places,
            before={position: self.prompt_text(ids[: position + 1]) for position in places},
            site=self.lenses.record.site,
            rank=how.rank,
            min_probability=how.min_probability,
            model=dict(zip(places, self._lists(model_TV, by_probability), strict=True)),
            model_entropy=dict(zip(places, entropy(model_TV).tolist(), strict=True)),
            model_terms=dict(zip(places, self._terms(model_TV, terms), strict=True)),
            mean_output_kl=self._mean_output_kl(model_TV, places),
            no_write=self.writes.lacking(chosen),
            no_attention=no_attention,
            heads=sorted(readings, key=lambda r: (r.position, r.layer, r.head)),
        )

    def ranking(
        self, rank: str | None, top: int, min_probability: float, heads: Heads | None = None
    ) -> Ranking:
        """How lists are made. Raises `RequestError` for what the lenses of `heads` cannot give."""
        vocabulary, has_lift = self.lenses.record.model.d_vocab, self.log_mean_V is not None
        how = ranking(rank, top, min_probability, has_lift=has_lift, vocabulary=vocabulary)
        if heads is not None:
            own_moments.check(self.lenses, heads, how.rank)
        return how

    def own(self, layer: int, heads: Sequence[int], how: Ranking) -> Sequence[Own | None]:
        """What the lens of each head says on average, where lists are ordered by it."""
        return own_moments.own_moments(self, layer, heads, how.rank)

    def terms(self, texts: Sequence[str], *, first_token: bool = False) -> list[Term]:
        """The tokens of terms, for `read`. Raises `RequestError` for one that no token stands for."""
        return to_tokens(texts, self.model.tokenizer, first_token=first_token)

    def places(self, positions: Sequence[int] | None, num_tokens: int) -> list[int]:
        """Positions counted from the start; the default is the last. Raises `RequestError` for one that does not exist."""
        counted = []
        for position in [-1] if positions is None else positions:
            if not -num_tokens <= position < num_tokens:
                raise RequestError(
                    f"position {position} does not exist: the prompt has {num_tokens} tokens, 0 to {num_tokens - 1}"
                )
            counted.append(position % num_tokens)
        return list(dict.fromkeys(counted))

    def layer_readings(
        self,
        activations: Activations,
        model_TV: torch.Tensor,
        chosen: Heads,
        places: Sequence[int],
        *,
        unembedding: bool = True,
    ) -> Iterator[LayerReading]:
        """The distributions of all heads, layer by layer, with as many positions at once as memory should hold; that of
        the unembedding, where there is one, can be left out."""
        for layer, heads in chosen.by_layer.items():
            most = max(1, REUSED_BYTES // (4 * len(heads) * model_TV.shape[-1]))
            values_HTE = self.values(activations, layer, heads)[:, list(places)]
            scale_T = self.scale(activations)[list(places)]
            written = self.writes.lacking(chosen) is None
            for block in slices(len(places), most):
                yield LayerReading(
                    layer=layer,
                    heads=heads,
                    places=block,
                    model_TV=model_TV[block],
                    lens_HTV=self.lens(layer, heads, values_HTE[:, block]),
                    unembedding_HTV=None
                    if self.no_unembedding or not unembedding
                    else self.unembedding(layer, heads, values_HTE[:, block], scale_T[block]),
                    written_HTV=self.writes.logits(layer, heads, values_HTE[:, block], scale_T[block])
                    if written
                    else None,
                    effect_TV=self.effects(layer, heads, values_HTE[:, block], scale_T[block]),
                )

    def effects(
        self,
        layer: int,
        heads: Sequence[int],
        values_HTE: torch.Tensor,
        scale_T: RowScales,
        tokens: Sequence[int] | None = None,
    ) -> dict[int, torch.Tensor]:
        """(T, V) logits of the effect lens of each head that has one, centred over the vocabulary; (T, C) for `tokens` alone."""
        if self.effect is None:
            return {}
        having = [place for place, head in enumerate(heads) if self.effect.has(layer, head)]
        if not having:
            return {}
        numbers = [heads[place] for place in having]
        with torch.inference_mode():
            final_HTD = self.effect.final(layer, numbers, values_HTE[having], scale_T.final_N)
            return dict(zip(numbers, centred_logits(final_HTD, self.model.W_U_DV, tokens), strict=True))

    def _heads(
        self,
        layer_reading: LayerReading,
        places: Sequence[int],
        how: Ranking,
        terms: Sequence[Term],
    ) -> Iterator[HeadReading]:
        own_H = self.own(layer_reading.layer, layer_reading.heads, how)
        lens_HT, plain_HT = (
            None
            if log_probs_HTV is None
            else self._figures(log_probs_HTV, layer_reading.model_TV, how, terms, own)
            for log_probs_HTV, own in (
                (layer_reading.lens_HTV, own_H),
                (layer_reading.unembedding_HTV, [None] * len(own_H)),
            )
        )
        assert lens_HT is not None
        written_HTV, written_HT = layer_reading.written_HTV, None
        if written_HTV is not None:
            written_HT = written_lists(
                written_HTV, layer_reading.lens_HTV, self.log_mean_V, how.top, self.text
            )
        for h, head in enumerate(layer_reading.heads):
            effect_TV, effect_T = layer_reading.effect_TV.get(head), None
            if effect_TV is not None:
                lens_1TV = layer_reading.lens_HTV[h : h + 1]
                effect_T = written_lists(effect_TV[None], lens_1TV, self.log_mean_V, how.top, self.text)[0]
            for t, position in enumerate(places[layer_reading.places]):
                lens, plain = lens_HT[h][t], None if plain_HT is None else plain_HT[h][t]
                yield HeadReading(
                    position=position,
                    layer=layer_reading.layer,
                    head=head,
                    says_nothing=self.lenses.record.says_nothing(layer_reading.layer, head),
                    lens=lens.scores,
                    unembedding=plain.scores if plain else [],
                    lens_kl=lens.kl,
                    lens_entropy=lens.entropy,
                    unembedding_kl=plain.kl if plain else None,
                    unembedding_entropy=plain.entropy if plain else None,
                    lens_terms=lens.terms,
                    unembedding_terms=plain.terms if plain else [],
                    written=written_HT[h][t] if written_HT else None,
                    written_terms=[] if written_HTV is None else written_terms(written_HTV[h, t], terms),
                    effect=effect_T[t] if effect_T else None,
                    effect_terms=[] if effect_TV is None else written_terms(effect_TV[t], terms),
                )

    def _figures(
        self,
        log_probs_HTV: torch.Tensor,
        model_TV: torch.Tensor,
        how: Ranking,
        terms: Sequence[Term],
        own_H: Sequence[Own | None],
    ) -> list[list["_HeadFigures"]]:
        """List and figures by head, then by position."""
        kl_HT, unsure_HT = kl_of_log_probs(model_TV, log_probs_HTV).tolist(), entropy(log_probs_HTV).tolist()
        return [
            [
                _HeadFigures(scores=scores, kl=kl, entropy=unsure, terms=term_scores)
                for scores, kl, unsure, term_scores in zip(
                    self._lists(log_probs_TV, how, own_H[h]),
                    kl_HT[h],
                    unsure_HT[h],
                    self._terms(log_probs_TV, terms),
                    strict=True,
                )
            ]
            for h, log_probs_TV in enumerate(log_probs_HTV)
        ]

    def _mean_output_kl(self, model_TV: torch.Tensor, places: Sequence[int]) -> dict[int, float | None]:
        kl_T = self.mean_output_kl(model_TV)
        return dict(zip(places, [None] * len(places) if kl_T is None else kl_T.tolist(), strict=True))

    def _lists(
        self, log_probs_TV: torch.Tensor, how: Ranking, own: Own | None = None
    ) -> list[list[TokenScore]]:
        """A ranked list for each position."""
        ids_TK, log_probs_TK, scores_TK = best_scored(log_probs_TV, self.log_mean_V, how, own)
        if own is None or how.rank not in (OWN_LIFT, Z_SCORE):
            scored: list[list[float | None]] = [[None] * how.top for _ in ids_TK]
        else:
            scored = (scores_TK.exp() if how.rank == OWN_LIFT else scores_TK).tolist()
        lift_TK = self._lift(log_probs_TK, None if self.log_mean_V is None else self.log_mean_V[ids_TK])
        return [
            [
                TokenScore(
                    token=self.text(token), id=token, probability=math.exp(log_prob), lift=lift, score=score
                )
                for token, log_prob, lift, score in zip(ids, log_probs, lifts, scores, strict=True)
                if log_prob > -math.inf
            ]
            for ids, log_probs, lifts, scores in zip(
                ids_TK.tolist(), log_probs_TK.tolist(), lift_TK, scored, strict=True
            )
        ]

    def _terms(self, log_probs_TV: torch.Tensor, terms: Sequence[Term]) -> list[list[TermScore]]:
        """The chosen terms at each position."""
        if not terms:
            return [[] for _ in log_probs_TV]
        log_probs_TC = term_log_probs(log_probs_TV, terms)
        mean_C = None if self.log_mean_V is None else term_log_probs(self.log_mean_V, terms)
        lift_TC = self._lift(log_probs_TC, None if mean_C is None else mean_C.expand_as(log_probs_TC))
        return [
            [
                TermScore(term=term.text, ids=list(term.ids), probability=probability, lift=lift)
                for term, probability, lift in zip(terms, probabilities, lifts, strict=True)
            ]
            for probabilities, lifts in zip(log_probs_TC.exp().tolist(), lift_TC, strict=True)
        ]

    def _lift(self, log_probs: torch.Tensor, log_mean: torch.Tensor | None) -> list[list[float | None]]:
        """Rows of ratios; None where the mean output has never seen a token."""
        if log_mean is None:
            return [[None] * log_probs.shape[1] for _ in log_probs]
        return [
            [math.exp(v - mean) if mean > NO_MASS else None for v, mean in zip(values, means, strict=True)]
            for values, means in zip(log_probs.tolist(), log_mean.tolist(), strict=True)
        ]
