"""Prompts -> the numbers of the page of `alens read --html`: every head, every position, both rankings.

In: a reader and prompts. Out: a `PageData`, plain values that are small as JSON. Log-probabilities, entropies and KL
are whole numbers of thousandths of a nat; tokens are indices into one table; the cells of a grid stand in one list,
layer by layer. The lists of tokens are those of `HeadReader.read`.
Shapes: H heads, T tokens, K entries of a list, C tokens kept for the colours, V vocabulary.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from alens.errors import RequestError
from alens.heads import HeadNames, Heads
from alens.job.progress import Report, counting, silent
from alens.lens import marks
from alens.reading.head_attention import sources
from alens.reading.head_reader import HeadReader
from alens.reading.page_data import GridReadings, Lists, PageData, PromptPosition
from alens.reading.prompts import check_list
from alens.reading.ranking import NO_MASS, Ranking, best, term_log_probs
from alens.reading.settings import LIFT, MIN_PROBABILITY, PROBABILITY, Rank
from alens.reading.terms import Term
from alens.statistics.divergences import entropy, kl_of_log_probs

ANCHOR = 0
"""Any one token: its log-probability in each reading turns logits of other tokens into log-probabilities."""

MOST_CELLS = 60_000
"""Heads x positions of a page at most: some 30 MB."""

KEPT_NUMBERS = 400_000
"""Probabilities that are kept so that the grid can be coloured by a token of the lists: about 2.5 MB."""

LEAST_KEPT = 16
"""Tokens that are kept at each position, however large the page is."""

SHOWN_BEFORE = 80
"""Characters of the text before a position that are shown."""


class _TokenTable:
    """The table of tokens while it grows."""

    def __init__(self, reader: HeadReader, terms: Sequence[Term]) -> None:
        self.reader, self.log_mean_V = reader, reader.log_mean_V
        mean_C = (
            [] if not terms or self.log_mean_V is None else term_log_probs(self.log_mean_V, terms).tolist()
        )
        self.rows: list[list[Any]] = [
            [term.text, _known(mean_C[i]) if mean_C else None] for i, term in enumerate(terms)
        ]
        self.where: dict[int, int] = {}

    def index(self, token: int) -> int:
        if token not in self.where:
            self.where[token] = len(self.rows)
            mean = None if self.log_mean_V is None else _known(float(self.log_mean_V[token]))
            self.rows.append([self.reader.text(token), mean])
        return self.where[token]

    def lists(self, ids_TK: torch.Tensor, log_probs_TK: torch.Tensor) -> Lists:
        counts_T = (log_probs_TK > -math.inf).sum(-1).tolist()
        numbers_TK = _all(log_probs_TK.clamp(min=NO_MASS))
        return [
            [
                number
                for token, value in zip(ids[:count], values, strict=False)
                for number in (self.index(token), value)
            ]
            for ids, values, count in zip(ids_TK.tolist(), numbers_TK, counts_T, strict=True)
        ]


def read_page(
    reader: HeadReader,
    prompts: Sequence[str],
    *,
    layers: Sequence[int] | None = None,
    heads: HeadNames | None = None,
    positions: Sequence[int] | None = None,
    top: int = 8,
    rank: Rank | None = None,
    min_probability: float = MIN_PROBABILITY,
    terms: Sequence[Term] = (),
    report: Report = silent,
) -> PageData:
    """Read prompts at `positions`, by default all. Raises `RequestError` like `HeadReader.read`, and for too many cells."""
    check_list(prompts, "prompts")
    if not prompts:
        raise RequestError("there are no prompts: give one or more")
    chosen = reader.chosen(layers, heads).ordered()
    first = reader.ranking(rank, top, min_probability)
    ranks = [LIFT, PROBABILITY] if reader.log_mean_V is not None else [PROBABILITY]
    if first.rank not in ranks:
        raise RequestError(
            f"a page has lists by {' and by '.join(ranks)}: {first.rank} is for tables and JSON"
        )
    hows = {name: reader.ranking(name, top, min_probability) for name in ranks}
    ids = [reader.tokens(prompt) for prompt in prompts]
    places = [
        list(range(len(prompt_ids))) if positions is None else reader.places(positions, len(prompt_ids))
        for prompt_ids in ids
    ]
    cells = sum(map(len, places)) * len(chosen)
    if cells > MOST_CELLS:
        raise RequestError(
            f"the page would have {cells:,} heads x positions, {MOST_CELLS:,} at most: name some with --position, --layer or --head"
        )
    most = max(LEAST_KEPT, KEPT_NUMBERS // (2 * cells))
    table = _TokenTable(reader, terms)
    step = counting(report, "read", "readings", cells)
    shown = [
        {
            "text": prompt,
            "tokens": [table.index(token) for token in prompt_ids],
            "places": _PromptReader(reader, prompt_ids, where, chosen, step).places(table, hows, terms, most),
        }
        for prompt, prompt_ids, where in zip(prompts, ids, places, strict=True)
    ]
    record = reader.lenses.record
    return PageData(
        model=record.model.name,
        site=record.site,
        rank=first.rank,
        ranks=ranks,
        min_probability=min_probability,
        vocabulary=record.model.d_vocab,
        layers=list(chosen.layers),
        heads=list(chosen.columns),
        cells=list(chosen),
        says_nothing=[record.says_nothing(layer, head) for layer, head in chosen],
        nothing_means=f"{marks.SAYS_NOTHING}: {marks.MEANING}",
        tokens=table.rows,
        num_terms=len(terms),
        prompts=shown,
    )


class _PromptReader:
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
    ) -> None:
        self.reader, self.ids, self.where, self.chosen = reader, ids, where, chosen
        self.step = step
        self.activations = reader.run(ids, chosen.layers)
        self.model_TV = reader.model_log_probs(self.activations)[list(where)]
        self._anchors: dict[tuple[int, int], list[torch.Tensor]] = {}
        """(H, T) log-probabilities of token ANCHOR by layer and reading, one tensor for each block of positions."""

    def places(
        self, table: _TokenTable, hows: dict[str, Ranking], terms: Sequence[Term], most: int
    ) -> list[PromptPosition]:
        listed = table.lists(*best(self.model_TV, self.reader.log_mean_V, hows[PROBABILITY]))
        said = self._lists(table, hows)
        kept, left_out = zip(
            *(_kept(own, readings, most) for own, readings in zip(listed, said, strict=True)), strict=True
        )
        token_of = {index: token for token, index in table.where.items()}
        tokens = [[token_of[index] for index in indices] for indices in kept]
        self._fill(said, terms, kept, tokens)
        looks, moves = self._looks()
        unsure, nothing_T = _all(entropy(self.model_TV)), self.reader.mean_output_kl(self.model_TV)
        nothing = [None] * len(self.where) if nothing_T is None else _all(nothing_T)
        return [
            PromptPosition(
                position=position,
                before=_end(self.reader.prompt_text(self.ids[: position + 1])),
                entropy=unsure[at],
                mean_output_kl=nothing[at],
                model=listed[at],
                kept=[*range(len(terms)), *kept[at]],
                model_kept=_all(_columns(self.model_TV[at : at + 1], terms, tokens[at])[0]),
                left_out=left_out[at],
                lens=said[at][0],
                unembedding=None if self.reader.no_unembedding else said[at][1],
                looks=looks[at],
                moves=moves[at],
            )
            for at, position in enumerate(self.where)
        ]

    def _looks(self) -> tuple[list[Lists | None], list[Lists | None]]:
        """At each position, the cells' attention to the tokens before it, and what they move from there."""
        by_layer, reason = sources(self.reader, self.ids, self.chosen, self.where)
        if reason is not None:
            return [None] * len(self.where), [None] * len(self.where)
        weights_CQT = torch.cat([of_layer.weights_HQT for of_layer in by_layer.values()])
        moved_CQT = torch.cat([of_layer.moved_HQT for of_layer in by_layer.values()])
        moved_CQT = moved_CQT / moved_CQT.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        looks, moves = (
            [_all(values_CQT[:, at, : position + 1]) for at, position in enumerate(self.where)]
            for values_CQT in (weights_CQT, moved_CQT)
        )
        return looks, moves

    def _layer_readings(self) -> Iterator[tuple[int, range, torch.Tensor, torch.Tensor]]:
        """Lens (0) or unembedding (1), positions, and log-probabilities of the model (T, V) and of the heads (H, T, V)."""
        for layer in self.reader.layer_readings(self.activations, self.model_TV, self.chosen, self.where):
            places = range(*layer.places.indices(len(self.where)))
            for which, log_probs_HTV in enumerate((layer.lens_HTV, layer.unembedding_HTV)):
                if log_probs_HTV is not None:
                    anchor_HT = log_probs_HTV[..., ANCHOR].clone()
                    self._anchors.setdefault((layer.layer, which), []).append(anchor_HT)
                    yield which, places, layer.model_TV, log_probs_HTV
            self.step(len(places) * len(layer.heads))

    def _lists(self, table: _TokenTable, hows: dict[str, Ranking]) -> list[tuple[GridReadings, GridReadings]]:
        """Lens and unembedding at each position, without the probabilities of kept tokens."""
        said = [(GridReadings(kl=[], entropy=[]), GridReadings(kl=[], entropy=[])) for _ in self.where]
        for which, places, model_TV, log_probs_HTV in self._layer_readings():
            kl_HT, unsure_HT = kl_of_log_probs(model_TV, log_probs_HTV), entropy(log_probs_HTV)
            for name, how in hows.items():
                ids_HTK, log_probs_HTK = best(log_probs_HTV, self.reader.log_mean_V, how)
                for t, at in enumerate(places):
                    lists = said[at][which].lists.setdefault(name, [])
                    lists += table.lists(ids_HTK[:, t], log_probs_HTK[:, t])
            for at, kl_H, unsure_H in zip(places, _all(kl_HT.T), _all(unsure_HT.T), strict=True):
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
                for at, columns in enumerate(own):
                    chosen_HC = _columns(log_probs_HTC[:, at], terms, columns)
                    grids.setdefault((at, which), []).append(chosen_HC)
        for (at, which), layers in grids.items():
            said[at][which].keep(_all(torch.cat(layers).T), [*range(len(terms)), *kept[at]])

    def _logits(self, layer: int, tokens: Sequence[int]) -> Iterator[torch.Tensor]:
        """(H, T, C) logits of these tokens by the lenses, then by the unembedding where there is one."""
        reader, where, heads = self.reader, list(self.where), self.chosen.by_layer[layer]
        values_HTE = reader.values(self.activations, layer, heads)[:, where]
        yield reader.lens_logits(layer, heads, values_HTE, tokens)
        if reader.no_unembedding is None:
            scale_T = reader.scale(self.activations)[where]
            yield reader.unembedding_logits(layer, heads, values_HTE, scale_T, tokens)


def _kept(model: Sequence[int], said: tuple[GridReadings, GridReadings], most: int) -> tuple[list[int], int]:
    """The tokens to keep at a position, and how many are left out: the model's own first, then those of most lists."""
    counts = Counter(
        token
        for readings in said
        for lists in readings.lists.values()
        for entries in lists
        for token in entries[::2]
    )
    ordered = dict.fromkeys([*model[::2], *(token for token, _ in counts.most_common())])
    return list(ordered)[:most], max(0, len(ordered) - most)


def _columns(log_probs_HV: torch.Tensor, terms: Sequence[Term], tokens: Sequence[int]) -> torch.Tensor:
    """(H, C) the log-probability of each term and token."""
    chosen = [term_log_probs(log_probs_HV, terms)] if terms else []
    return torch.cat([*chosen, log_probs_HV[:, list(tokens)]], dim=1)


def _end(text: str) -> str:
    """The end of a long text: the whole prompt stands on the page anyway."""
    return text if len(text) <= SHOWN_BEFORE else f"...{text[-SHOWN_BEFORE:]}"


def _all(values: torch.Tensor) -> Any:
    """Thousandths, in nested lists."""
    return (1000 * values.double()).round().long().tolist()


def _thousandths(value: float) -> int:
    return round(1000 * value)


def _known(log_mean: float) -> int | None:
    return _thousandths(log_mean) if log_mean > NO_MASS else None
