"""Prompts -> the numbers of the page of `alens read --html`: every head, every position, both rankings.

In: a reader and prompts. Out: a `PageData`, plain values that are small as JSON. Log-probabilities, entropies and KL
are whole numbers of thousandths of a nat; tokens are indices into one table; the cells of a grid stand in one list,
layer by layer. The lists of tokens are those of `HeadReader.read`.
Shapes: T tokens, K entries of a list, V vocabulary.
"""

from collections import Counter
from collections.abc import Sequence

import torch

from alens.errors import RequestError
from alens.heads import HeadNames
from alens.job.progress import Report, counting, silent
from alens.lens import marks
from alens.reading.head_reader import HeadReader
from alens.reading.page_data import PageData
from alens.reading.page_prompt import PromptOfPage
from alens.reading.page_tokens import TokenTable, turns_by_token
from alens.reading.prompts import Prompt, check_list, text_of
from alens.reading.settings import LIFT, MIN_PROBABILITY, PROBABILITY, Rank, suppression
from alens.reading.terms import Term

MOST_CELLS = 60_000
"""Heads x positions of a page at most: some 30 MB."""

KEPT_NUMBERS = 400_000
"""Probabilities that are kept so that the grid can be coloured by a token of the lists: about 2.5 MB."""

LEAST_KEPT = 12
"""Tokens that are kept at each position, however large the page is."""

EVERYWHERE = 8
"""Tokens, at most, that every position keeps, so that a page can show one of them over all heads and positions."""


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
    unembedding: bool = True,
    report: Report = silent,
) -> PageData:
    """Read prompts at `positions`, by default all. Without `unembedding` that reading is left out, which takes a third of
    the bytes, where what heads write is known in its place.

    Raises `RequestError` like `HeadReader.read`, and for too many cells.
    """
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
    unembedding = reader.no_unembedding is None and (unembedding or no_write is not None)
    readings = 1 + unembedding + (no_write is None) + (reader.effect is not None)
    room = KEPT_NUMBERS // (readings * cells)
    table = TokenTable(reader, terms)
    step = counting(report, "read", "readings", cells)
    readers = [
        PromptOfPage(
            reader, prompt_ids, where, chosen, step, unembedding=unembedding, coarse=room < LEAST_KEPT
        )
        for prompt_ids, where in zip(ids, places, strict=True)
    ]
    everywhere = _everywhere([one.model_TV for one in readers], max(2, min(EVERYWHERE, room)))
    indices = [table.index(token) for token in everywhere]
    shown = [
        {
            "text": text,
            "turns": turns_by_token(reader, text, turns, len(prompt_ids)),
            "tokens": [table.index(token) for token in prompt_ids],
            "places": one.places(table, hows, terms, indices, max(LEAST_KEPT, room)),
        }
        for (text, turns), prompt_ids, one in zip(texts, ids, readers, strict=True)
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
        everywhere=indices,
        stream_layers=list(range(record.model.n_layers)),
        prompts=shown,
    )


def _everywhere(model: Sequence[torch.Tensor], most: int) -> list[int]:
    """The tokens that every position keeps: what the model says next at the end of each prompt, first of all, then what it
    says most often elsewhere. `model` are its log-probabilities (T, V) of each prompt."""
    ends_PK = torch.stack([model_TV[-1] for model_TV in model]).topk(most).indices
    elsewhere = Counter(torch.cat([model_TV.argmax(-1) for model_TV in model]).tolist())
    ends = [token for of_rank in ends_PK[:, : max(1, most // 2)].T.tolist() for token in of_rank]
    return list(dict.fromkeys([*ends, *(token for token, _ in elsewhere.most_common())]))[:most]
