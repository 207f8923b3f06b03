"""Prompts -> the numbers of the page of `alens read --html`: every head, every position, both rankings.

In: a reader and prompts. Out: a `PageData`, plain values that are small as JSON. Log-probabilities, entropies and KL
are whole numbers of thousandths of a nat; tokens are indices into one table; the cells of a grid stand in one list,
layer by layer. The lists of tokens are those of `HeadReader.read`.
Shapes: H heads, T tokens, K entries of a list, C tokens kept for the colours, V vocabulary.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from alens.errors import RequestError
from alens.heads import HeadNames, Heads
from alens.job.progress import Report, counting, silent
from alens.lens import marks
from alens.reading.head_attention import sources
from alens.reading.head_reader import HeadReader
from alens.reading.page_data import GridReadings, Lists, PageData, PromptPosition, WrittenGrid
from alens.reading.page_tokens import TokenTable, thousandths, turns_by_token
from alens.reading.page_writes import PageWrites
from alens.reading.prompts import Prompt, check_list, text_of
from alens.reading.ranking import Ranking, best, term_log_probs
from alens.reading.settings import LIFT, MIN_PROBABILITY, PROBABILITY, Rank, suppression
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


def read_page(
    reader: HeadReader,
    prompts: Sequence[str | Prompt],
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
    texts = [text_of(reader, prompt) for prompt in prompts]
    ids = [reader.tokens(text) for text, _ in texts]
    places = [
        list(range(len(prompt_ids))) if positions is None else reader.places(positions, len(prompt_ids))
        for prompt_ids in ids
    ]
    cells = sum(map(len, places)) * len(chosen)
    if cells > MOST_CELLS:
        raise RequestError(
            f"the page would have {cells:,} heads x positions, {MOST_CELLS:,} at most: name some with --position, --layer or --head"
        )
    no_write = reader.writes.lacking(chosen)
    readings = 1 + (reader.no_unembedding is None) + (no_write is None)
    most = max(LEAST_KEPT, KEPT_NUMBERS // (readings * cells))
    table = TokenTable(reader, terms)
    step = counting(report, "read", "readings", cells)
    shown = [
        {
            "text": text,
            "turns": turns_by_token(reader, text, turns, len(prompt_ids)),
            "tokens": [table.index(token) for token in prompt_ids],
            "places": _PromptReader(reader, prompt_ids, where, chosen, step).places(table, hows, terms, most),
        }
        for (text, turns), prompt_ids, where in zip(texts, ids, places, strict=True)
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
        no_write=no_write,
        suppressed_means=f"{marks.SUPPRESSES}: {suppression()}",
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
        self, table: TokenTable, hows: dict[str, Ranking], terms: Sequence[Term], most: int
    ) -> list[PromptPosition]:
        listed = table.lists(*best(self.model_TV, self.reader.log_mean_V, hows[PROBABILITY]))
        writes = PageWrites(self.reader, len(self.where), hows[PROBABILITY].top)
        said = self._lists(table, hows, writes)
        kept, left_out = zip(
            *(_kept(*of_place, most) for of_place in zip(listed, said, writes.grids, strict=True)),
            strict=True,
        )
        token_of = {index: token for token, index in table.where.items()}
        tokens = [[token_of[index] for index in indices] for indices in kept]
        self._fill(said, terms, kept, tokens)
        looks, moves = self._looks()
        has_writes = self.reader.writes.lacking(self.chosen) is None
        if has_writes:
            for layer, heads in self.chosen.by_layer.items():
                writes.keep(layer, heads, *self._values(layer, heads), terms, tokens)
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
                model_kept=thousandths(_columns(self.model_TV[at : at + 1], terms, tokens[at])[0]),
                left_out=left_out[at],
                lens=said[at][0],
                unembedding=None if self.reader.no_unembedding else said[at][1],
                looks=looks[at],
                moves=moves[at],
                written=writes.grids[at] if has_writes else None,
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
            [thousandths(values_CQT[:, at, : position + 1]) for at, position in enumerate(self.where)]
            for values_CQT in (weights_CQT, moved_CQT)
        )
        return looks, moves

    def _layer_readings(
        self, table: TokenTable, writes: PageWrites
    ) -> Iterator[tuple[int, range, torch.Tensor, torch.Tensor]]:
        """Lens (0) or unembedding (1), positions, and log-probabilities of the model (T, V) and of the heads (H, T, V);
        fills the lists of `writes`."""
        for layer in self.reader.layer_readings(self.activations, self.model_TV, self.chosen, self.where):
            places = range(*layer.places.indices(len(self.where)))
            writes.add(layer, places, table.lists)
            for which, log_probs_HTV in enumerate((layer.lens_HTV, layer.unembedding_HTV)):
                if log_probs_HTV is not None:
                    anchor_HT = log_probs_HTV[..., ANCHOR].clone()
                    self._anchors.setdefault((layer.layer, which), []).append(anchor_HT)
                    yield which, places, layer.model_TV, log_probs_HTV
            self.step(len(places) * len(layer.heads))

    def _lists(
        self, table: TokenTable, hows: dict[str, Ranking], writes: PageWrites
    ) -> list[tuple[GridReadings, GridReadings]]:
        """Lens and unembedding at each position, without the probabilities of kept tokens."""
        said = [(GridReadings(kl=[], entropy=[]), GridReadings(kl=[], entropy=[])) for _ in self.where]
        for which, places, model_TV, log_probs_HTV in self._layer_readings(table, writes):
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
                for at, columns in enumerate(own):
                    chosen_HC = _columns(log_probs_HTC[:, at], terms, columns)
                    grids.setdefault((at, which), []).append(chosen_HC)
        for (at, which), layers in grids.items():
            said[at][which].keep(thousandths(torch.cat(layers).T), [*range(len(terms)), *kept[at]])

    def _logits(self, layer: int, tokens: Sequence[int]) -> Iterator[torch.Tensor]:
        """(H, T, C) logits of these tokens by the lenses, then by the unembedding where there is one."""
        reader, heads = self.reader, self.chosen.by_layer[layer]
        values_HTE, scale_T = self._values(layer, heads)
        yield reader.lens_logits(layer, heads, values_HTE, tokens)
        if reader.no_unembedding is None:
            yield reader.unembedding_logits(layer, heads, values_HTE, scale_T, tokens)

    def _values(self, layer: int, heads: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """(H, T, E) values of these heads and (T,) scales of the last norm, at the positions that are read."""
        where = list(self.where)
        values_HTE = self.reader.values(self.activations, layer, heads)[:, where]
        return values_HTE, self.reader.scale(self.activations)[where]


def _kept(
    model: Sequence[int], said: tuple[GridReadings, GridReadings], written: WrittenGrid, most: int
) -> tuple[list[int], int]:
    """The tokens to keep at a position, and how many are left out: the model's own first, then those of most lists."""
    all_lists = [lists for readings in said for lists in readings.lists.values()]
    all_lists += [written.raised, written.lowered, written.suppressed]
    counts = Counter(token for lists in all_lists for entries in lists for token in entries[::2])
    ordered = dict.fromkeys([*model[::2], *(token for token, _ in counts.most_common())])
    return list(ordered)[:most], max(0, len(ordered) - most)


def _columns(log_probs_HV: torch.Tensor, terms: Sequence[Term], tokens: Sequence[int]) -> torch.Tensor:
    """(H, C) the log-probability of each term and token."""
    chosen = [term_log_probs(log_probs_HV, terms)] if terms else []
    return torch.cat([*chosen, log_probs_HV[:, list(tokens)]], dim=1)


def _end(text: str) -> str:
    """The end of a long text: the whole prompt stands on the page anyway."""
    return text if len(text) <= SHOWN_BEFORE else f"...{text[-SHOWN_BEFORE:]}"
