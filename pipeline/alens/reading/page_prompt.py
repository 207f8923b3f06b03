"""One prompt -> all that a page shows of it, at each position: every head by every reading, both rankings.

In: a reader, the tokens of a prompt, positions and heads. Out: a `PromptPosition` for each. The model runs on the prompt
once for its heads, once for where they look, and once for its residual stream.
Shapes: H heads, T tokens, K entries of a list, C tokens kept for the colours, V vocabulary.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from alens.heads import Heads
from alens.reading.head_attention import sources
from alens.reading.head_reader import HeadReader
from alens.reading.page_data import GridReadings, Lists, PromptPosition, WrittenGrid
from alens.reading.page_stream import page_stream
from alens.reading.page_tokens import TokenTable, columns, thousandths
from alens.reading.page_writes import Added, PageWrites, added_by, single_tokens
from alens.reading.ranking import Ranking, best
from alens.reading.settings import PROBABILITY
from alens.reading.terms import Term
from alens.rows.row_scales import RowScales
from alens.statistics.divergences import entropy, kl_of_log_probs

ANCHOR = 0
"""Any one token: its log-probability in each reading turns logits of other tokens into log-probabilities."""

SHOWN_BEFORE = 80
"""Characters of the text before a position that are shown."""


class PromptOfPage:
    """One prompt, on which the model has run.

    The lenses are computed twice: once in full, for the lists, and once for the tokens of the lists alone, whose
    probabilities are kept for every head.
    """

    def __init__(
        self,
        reader: HeadReader,
        ids: Sequence[int],
        where: Sequence[int],
        chosen: Heads,
        step: Callable[[int], None],
        *,
        unembedding: bool,
        coarse: bool,
    ) -> None:
        """With `coarse`, numbers of kept tokens are whole hundredths, and shares of attention half percents."""
        self.reader, self.ids, self.where, self.chosen = reader, ids, where, chosen
        self.step, self.unembedding = step, unembedding
        self.kept_step, self.share_step = (10, 5) if coarse else (1, 1)
        self.activations = reader.run(ids, chosen.layers)
        self.model_TV = reader.model_log_probs(self.activations)[list(where)]
        self._anchors: dict[tuple[int, int], list[torch.Tensor]] = {}
        """(H, T) log-probabilities of token ANCHOR by layer and reading, one tensor for each block of positions."""

    def places(
        self,
        table: TokenTable,
        hows: dict[str, Ranking],
        terms: Sequence[Term],
        everywhere: Sequence[int],
        most: int,
    ) -> list[PromptPosition]:
        log_mean_V = self.reader.log_mean_V
        listed = table.lists(*best(self.model_TV, log_mean_V, hows[PROBABILITY]))
        writes, effects = (
            PageWrites(base_V, hows[PROBABILITY].top, self.kept_step, [WrittenGrid() for _ in self.where])
            for base_V in (log_mean_V, None)
        )
        said = self._lists(table, hows, writes, effects)
        stream = page_stream(self.reader, self.ids, self.where)
        if stream is not None:
            stream.add_lists(table, hows, self.model_TV, log_mean_V)
        of_places = zip(listed, said, writes.grids, effects.grids, strict=True)
        kept, left_out = zip(*(_kept(everywhere, *of_place, most) for of_place in of_places), strict=True)
        token_of = {index: token for token, index in table.where.items()}
        tokens = [[token_of[index] for index in indices] for indices in kept]
        self._fill(said, terms, kept, tokens)
        if stream is not None:
            stream.keep(terms, kept, tokens)
        looks, moves = self._looks()
        has_writes = self.reader.writes.lacking(self.chosen) is None
        self._keep_added(writes if has_writes else None, effects, terms, tokens)
        unsure, nothing_T = thousandths(entropy(self.model_TV)), self.reader.mean_output_kl(self.model_TV)
        nothing = [None] * len(self.where) if nothing_T is None else thousandths(nothing_T)
        return [
            PromptPosition(
                position=position,
                before=_end(self.reader.prompt_text(self.ids[: position + 1])),
                entropy=unsure[at],
                mean_output_kl=nothing[at],
                model=listed[at],
                kept=[*range(len(terms)), *kept[at]],
                model_kept=thousandths(columns(self.model_TV[at : at + 1], terms, tokens[at])[0]),
                left_out=left_out[at],
                lens=said[at][0],
                unembedding=said[at][1] if self.unembedding else None,
                stream=None if stream is None else stream.grids[at],
                looks=looks[at],
                moves=moves[at],
                written=writes.grids[at] if has_writes else None,
                effect=None if self.reader.effect is None else effects.grids[at],
            )
            for at, position in enumerate(self.where)
        ]

    def _keep_added(
        self,
        writes: PageWrites | None,
        effects: PageWrites,
        terms: Sequence[Term],
        tokens: Sequence[Sequence[int]],
    ) -> None:
        """Add what each head writes on terms and kept tokens, and its effect on them."""
        together, at_columns = single_tokens(terms, tokens)
        for layer, heads in self.chosen.by_layer.items():
            values_HTE, scale_T = self._values(layer, heads)
            if writes is not None:
                logits_HTC = self.reader.writes.logits(layer, heads, values_HTE, scale_T, together)
                every = range(len(heads))
                writes.keep(
                    Added(logits_HTV=logits_HTC, having=every, of_layer=len(heads)), len(heads), at_columns
                )
            if self.reader.effect is not None:
                by_head = self.reader.effects(layer, heads, values_HTE, scale_T, together)
                effects.keep(added_by(by_head, heads), len(heads), at_columns)

    def _looks(self) -> tuple[list[Lists | None], list[Lists | None]]:
        """At each position, the cells' attention to the tokens before it, and what they move from there."""
        by_layer, reason = sources(self.reader, self.ids, self.chosen, self.where)
        if reason is not None:
            return [None] * len(self.where), [None] * len(self.where)
        weights_CQT = torch.cat([of_layer.weights_HQT for of_layer in by_layer.values()])
        moved_CQT = torch.cat([of_layer.moved_HQT for of_layer in by_layer.values()])
        moved_CQT = moved_CQT / moved_CQT.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        looks, moves = (
            [
                thousandths(values_CQT[:, at, : position + 1], self.share_step)
                for at, position in enumerate(self.where)
            ]
            for values_CQT in (weights_CQT, moved_CQT)
        )
        return looks, moves

    def _layer_readings(
        self, table: TokenTable, writes: PageWrites, effects: PageWrites
    ) -> Iterator[tuple[int, range, torch.Tensor, torch.Tensor]]:
        """Lens (0) or unembedding (1), positions, and log-probabilities of the model (T, V) and of the heads (H, T, V);
        fills the lists of `writes` and `effects`."""
        for layer in self.reader.layer_readings(
            self.activations, self.model_TV, self.chosen, self.where, unembedding=self.unembedding
        ):
            places = range(*layer.places.indices(len(self.where)))
            every = range(len(layer.heads))
            if layer.written_HTV is not None:
                added = Added(logits_HTV=layer.written_HTV, having=every, of_layer=len(every))
                writes.add(added, layer, places, table.lists)
            if self.reader.effect is not None:
                effects.add(added_by(layer.effect_TV, layer.heads), layer, places, table.lists)
            for which, log_probs_HTV in enumerate((layer.lens_HTV, layer.unembedding_HTV)):
                if log_probs_HTV is not None:
                    anchor_HT = log_probs_HTV[..., ANCHOR].clone()
                    self._anchors.setdefault((layer.layer, which), []).append(anchor_HT)
                    yield which, places, layer.model_TV, log_probs_HTV
            self.step(len(places) * len(layer.heads))

    def _lists(
        self, table: TokenTable, hows: dict[str, Ranking], writes: PageWrites, effects: PageWrites
    ) -> list[tuple[GridReadings, GridReadings]]:
        """Lens and unembedding at each position, without the probabilities of kept tokens."""
        said = [(GridReadings(kl=[], entropy=[]), GridReadings(kl=[], entropy=[])) for _ in self.where]
        for which, places, model_TV, log_probs_HTV in self._layer_readings(table, writes, effects):
            kl_HT, unsure_HT = kl_of_log_probs(model_TV, log_probs_HTV), entropy(log_probs_HTV)
            for name, how in hows.items():
                ids_HTK, log_probs_HTK = best(log_probs_HTV, self.reader.log_mean_V, how)
                for t, at in enumerate(places):
                    lists = said[at][which].lists.setdefault(name, [])
                    lists += table.lists(ids_HTK[:, t], log_probs_HTK[:, t])
            for at, kl_H, unsure_H in zip(
                places, thousandths(kl_HT.T), thousandths(unsure_HT.T), strict=True
            ):
                said[at][which].kl.extend(kl_H)
                said[at][which].entropy.extend(unsure_H)
        return said

    def _fill(
        self,
        said: Sequence[tuple[GridReadings, GridReadings]],
        terms: Sequence[Term],
        kept: Sequence[Sequence[int]],
        tokens: Sequence[Sequence[int]],
    ) -> None:
        """Add the probabilities of terms, and of the `tokens` of each position, which the table has at `kept`."""
        listed = [token for position_tokens in tokens for token in position_tokens]
        together = list(dict.fromkeys([ANCHOR, *(token for term in terms for token in term.ids), *listed]))
        column = {token: c for c, token in enumerate(together)}
        own = [[column[token] for token in position_tokens] for position_tokens in tokens]
        terms = [replace(term, ids=tuple(column[token] for token in term.ids)) for term in terms]
        grids: dict[tuple[int, int], list[torch.Tensor]] = {}
        for layer in self.chosen.layers:
            for which, logits_HTC in enumerate(self._logits(layer, together)):
                anchor_HT1 = torch.cat(self._anchors[layer, which], dim=1)[..., None]
                log_probs_HTC = logits_HTC - logits_HTC[..., :1] + anchor_HT1
                for at, chosen in enumerate(own):
                    chosen_HC = columns(log_probs_HTC[:, at], terms, chosen)
                    grids.setdefault((at, which), []).append(chosen_HC)
        for (at, which), layers in grids.items():
            grids_C = thousandths(torch.cat(layers).T, self.kept_step)
            said[at][which].keep(grids_C, [*range(len(terms)), *kept[at]])

    def _logits(self, layer: int, tokens: Sequence[int]) -> Iterator[torch.Tensor]:
        """(H, T, C) logits of these tokens by the lenses, then by the unembedding where there is one."""
        reader, heads = self.reader, self.chosen.by_layer[layer]
        values_HTE, scale_T = self._values(layer, heads)
        yield reader.lens_logits(layer, heads, values_HTE, tokens)
        if self.unembedding:
            yield reader.unembedding_logits(layer, heads, values_HTE, scale_T, tokens)

    def _values(self, layer: int, heads: Sequence[int]) -> tuple[torch.Tensor, RowScales]:
        """(H, T, E) values of these heads, and what norms divide by, at the positions that are read."""
        where = list(self.where)
        values_HTE = self.reader.values(self.activations, layer, heads)[:, where]
        return values_HTE, self.reader.scale(self.activations)[where]


def _kept(
    everywhere: Sequence[int],
    model: Sequence[int],
    said: tuple[GridReadings, GridReadings],
    written: WrittenGrid,
    effect: WrittenGrid,
    most: int,
) -> tuple[list[int], int]:
    """The tokens to keep at a position, and how many are left out: those that all keep, then `most` others, the model's
    own first, then those of most lists."""
    all_lists = [lists for readings in said for lists in readings.lists.values()]
    for added in (written, effect):
        all_lists += [added.raised, added.lowered, added.suppressed]
    counts = Counter(token for lists in all_lists for entries in lists for token in entries[::2])
    ordered = dict.fromkeys([*model[::2], *(token for token, _ in counts.most_common())])
    others = [token for token in ordered if token not in set(everywhere)]
    return [*everywhere, *others[:most]], max(0, len(others) - most)


def _end(text: str) -> str:
    """The end of a long text: the whole prompt stands on the page anyway."""
    return text if len(text) <= SHOWN_BEFORE else f"...{text[-SHOWN_BEFORE:]}"
