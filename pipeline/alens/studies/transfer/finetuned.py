"""`alens transfer --to`: the lenses of a model on a fine-tuned copy of it.

In: lenses of a model, a cache of it, a cache of the copy, perhaps lenses fitted on that. Out: `CopyTransfer`: figures
of each lens on its own head of the copy, beside the same lens at home, the copy's own lens and its mean output.
A head of the copy has another W_O, and values that training moved. Two ways to read it: its output a = z W_O through
the pseudo-inverse of the old W_O (`rebased`), or z as it is, because fine-tuning starts from the same basis.
Shapes: N rows, H heads, E width of the site's values, V vocabulary.
"""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch

from alens.errors import RequestError
from alens.evaluation.shards import JudgedText, check_same_model, judged_text, without_training_rows
from alens.evaluation.sums import HeadFigures, ReadingSums
from alens.job.progress import Report, silent
from alens.lens.lenses import Lenses, opened_lenses
from alens.store import same_model
from alens.store.cache_reader import Cache
from alens.store.opened_cache import opened_cache
from alens.store.schema import ATTN_Z
from alens.studies.transfer.copy_figures import CopyBaselines, CopyTransfer, JudgedHeads, Way
from alens.studies.transfer.judged_rows import (
    JudgedRows,
    TransferReading,
    as_fitted,
    judge_readings,
    judged_rows,
    mean_output,
)
from alens.studies.transfer.rebased import MATCHES, Frame, Rebased
from alens.studies.transfer.settings import ReadBy, TransferSettings

log = logging.getLogger("alens")

BY = get_args(ReadBy)

SAME = ("architecture", "n_layers", "n_heads", "d_head", "d_model", "d_vocab")
"""What a fine-tuned copy must have in common with its model."""


def transfer_to_copy(
    lenses: Lenses | Path | str,
    cache: Cache | Path | str,
    copy: Cache | Path | str,
    *,
    native: Lenses | Path | str | None = None,
    settings: TransferSettings | None = None,
    device: torch.device | None = None,
    report: Report = silent,
) -> CopyTransfer:
    """Judge each lens on its own head of the copy, read in every way; `native` are lenses of the copy.

    Raises `RequestError` when `copy` is not of a copy of the model, or no row is left that no fit has seen.
    """
    settings = settings or TransferSettings()
    lenses, cache, copy = opened_lenses(lenses), opened_cache(cache), opened_cache(copy)
    native = None if native is None else opened_lenses(native)
    check_copy(lenses, cache, copy, native)
    same_rows = same_rows_in(cache, copy)
    text, home_text = _texts(lenses, cache, copy, native, same_rows)
    at_home = judged_rows(lenses, cache, home_text, settings, device)
    on_copy = judged_rows(lenses, copy, text, settings, device)
    native_readings = [] if native is None else as_fitted(native, on_copy)  # says what they lack
    home, home_mean = _judge_home(lenses, at_home, report)
    ways, moved = _moved(lenses, at_home.frames(), on_copy)
    *sums, mean = judge_readings(
        on_copy, [*moved, *native_readings, mean_output(on_copy, native)], report=report, stage="on the copy"
    )
    native_heads = JudgedHeads.from_sums(sums[len(moved) :]) if native_readings else None
    baselines = _baselines(home, native_heads, mean, same_rows, settings.seed)
    pairs = on_copy.heads.pairs
    return CopyTransfer(
        site=on_copy.site,
        same_rows=same_rows,
        rows=on_copy.rows,
        home_rows=at_home.rows,
        sequences=on_copy.groups.sequences,
        intervals_over=on_copy.groups.over,
        groups=int((mean.rows_G > 0).sum()),
        teacher=on_copy.teacher,
        shards=on_copy.shards,
        home_shards=at_home.shards,
        trained_on=on_copy.text.trained_on,
        heads=pairs,
        says_nothing=_say_nothing(lenses, pairs),
        home=baselines.home.figures,
        home_mean_output=home_mean,
        native=None if baselines.native is None else baselines.native.figures,
        native_says_nothing=None if native is None else _say_nothing(native, pairs),
        mean_output=mean.means()[0],
        ways=tuple(_way_figures(baselines, ways, sums[: len(moved)])),
        seed=settings.seed,
    )


def _judge_home(lenses: Lenses, at_home: JudgedRows, report: Report) -> tuple[JudgedHeads, HeadFigures]:
    """The lenses on their own model, and its mean output."""
    readings = [*as_fitted(lenses, at_home), mean_output(at_home, lenses)]
    *sums, mean = judge_readings(at_home, readings, report=report, stage="at home")
    return JudgedHeads.from_sums(sums), mean.means()[0]


def _baselines(
    home: JudgedHeads, native: JudgedHeads | None, mean: ReadingSums, same_rows: bool, seed: int
) -> CopyBaselines:
    return CopyBaselines(
        home=home,
        native=native,
        mean=JudgedHeads.from_sums([mean]),
        rows_G=mean.rows_G.cpu().numpy(),
        next_G=mean.next_G.cpu().numpy(),
        same_rows=same_rows,
        seed=seed,
    )


def _way_figures(
    baselines: CopyBaselines, ways: Sequence[tuple[str, str]], sums: Sequence[ReadingSums]
) -> Iterator[Way]:
    """The figures of each way to read; `sums` hold all heads by the first way, then by the next."""
    num_heads = len(sums) // len(ways)
    for number, (by, match) in enumerate(ways):
        judged = JudgedHeads.from_sums(sums[number * num_heads : (number + 1) * num_heads])
        yield baselines.way(by, match, judged)


def _say_nothing(lenses: Lenses, heads: Sequence[tuple[int, int]]) -> tuple[bool, ...]:
    return tuple(lenses.record.says_nothing(layer, head) for layer, head in heads)


def check_copy(lenses: Lenses, cache: Cache, copy: Cache, native: Lenses | None) -> None:
    """Raises `RequestError` unless `copy` is of a model with the same shapes and tokens, and `native` are lenses of
    it."""
    check_same_model(lenses, cache)
    model, copied = cache.plan.model, copy.plan.model
    for name in SAME:
        if getattr(model, name) != getattr(copied, name):
            raise RequestError(
                f"{copy.root} is not of a copy of the model of {cache.root}: {name} is {getattr(copied, name)}, not {getattr(model, name)}"
            )
    if cache.plan.tokens.tokenizer_sha256 != copy.plan.tokens.tokenizer_sha256:
        raise RequestError(
            f"{copy.root} was cached with another tokenizer than {cache.root}: its tokens mean something else"
        )
    if cache.plan.tokens.bos != copy.plan.tokens.bos:
        asked = "--no-bos" if cache.plan.tokens.bos is None else "--bos"
        raise RequestError(
            f"{copy.root} and {cache.root} differ in whether sequences begin with BOS: cache the copy again with {asked}"
        )
    if same_model.difference(model, copied) is None:
        log.warning(
            f"{copy.root} and {cache.root} are of the same model: it is not a copy that was trained on"
        )
    if native is not None:
        check_same_model(native, copy)
        if native.record.site != lenses.record.site:
            raise RequestError(
                f"{native.name} reads {native.record.site}, and {lenses.name} {lenses.record.site}: give lenses of one site"
            )


def same_rows_in(cache: Cache, copy: Cache) -> bool:
    """Whether a shard with the same number holds the same rows of text in both."""
    plans = (cache.plan, copy.plan)
    one, other = ((p.tokens.sha256, p.settings.rows_per_shard, p.settings.seed) for p in plans)
    return one == other


def _texts(
    lenses: Lenses, cache: Cache, copy: Cache, native: Lenses | None, same_rows: bool
) -> tuple[JudgedText, JudgedText]:
    """The text to judge on, in the copy's cache and in the model's own: rows that no fit has seen, the same ones where
    that can be."""
    if not same_rows:
        log.warning(
            f"{copy.root} and {cache.root} hold other rows of text: figures at home and on the copy differ by the text too"
        )
    home = judged_text(lenses, cache)
    copied = judged_text(lenses if native is None else native, copy)
    if not same_rows:
        return copied if native is None else without_training_rows(copied, lenses, copy), home
    both = tuple(shard for shard in home.shards if shard in copied.shards)
    if not both:
        raise RequestError(
            f"{copy.root} holds the text of {cache.root}, and no shard of it was held out of every fit: fit both with the same --eval-rows"
        )
    sequences_B = copied.mask(copy) & home.mask(cache)
    same = dataclasses.replace(home, shards=both, sequences_B=sequences_B)
    return dataclasses.replace(same, trained_on=copied.trained_on), same


def _moved(
    lenses: Lenses, home_frames: dict[int, Frame], on_copy: JudgedRows
) -> tuple[list[tuple[str, str]], list[TransferReading]]:
    """The ways to read, and for each of them the readings of all heads in order."""
    record = on_copy.cache.plan.model
    written = on_copy.site == ATTN_Z and record.no_fixed_write is None
    if on_copy.site == ATTN_Z and not written:
        log.warning("%s: heads are read by their z alone", record.no_fixed_write)
    ways = [(by, match) for by in (BY if written else BY[1:]) for match in MATCHES]
    copy_frames = on_copy.frames()
    readings = []
    for by, match in ways:
        for layer, heads in on_copy.heads.by_layer.items():
            maps = lenses.layer(layer).maps
            for place, head in enumerate(heads):
                source, target = home_frames[layer].select(place), copy_frames[layer].select(place)
                if by == "value":
                    source, target = source.without_outputs(), target.without_outputs()
                rebased = Rebased(source=source, target=target, head=0, match=match)
                readings.append(
                    TransferReading(
                        layer=layer,
                        values=_OneHead(place, rebased),
                        maps=maps.select([lenses.place(layer, head)]).to(on_copy.device).folded(),
                    )
                )
    return ways, readings


@dataclass(frozen=True)
class _OneHead:
    """Takes the values of one head of a layer, and moves them."""

    place: int
    rebased: Rebased

    def __call__(self, values_NHE: torch.Tensor) -> torch.Tensor:
        return self.rebased(values_NHE[:, self.place : self.place + 1])
