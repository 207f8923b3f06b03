"""`alens transfer --to`: the lenses of a model on a fine-tuned copy of it.

In: lenses of a model, a cache of it, a cache of the copy, perhaps lenses fitted on that. Out: `CopyTransfer`: figures
of each lens on its own head of the copy, beside the same lens at home, the copy's own lens and its mean output.
A head of the copy has another W_O, and values that training moved. Two ways to read it: its output a = z W_O through
the pseudo-inverse of the old W_O (`rebased`), or z as it is, because fine-tuning starts from the same basis.
Shapes: N rows, H heads, E width of the site's values, V vocabulary.
"""

import dataclasses
import logging
from dataclasses import dataclass

import torch

from alens.errors import RequestError
from alens.evaluation.shards import JudgedText, check_same_model, judged_text, without_training_rows
from alens.job.progress import Report, silent
from alens.lens.lenses import Lenses
from alens.store import same_model
from alens.store.cache_reader import Cache
from alens.store.model_record import OTHER_WRITE
from alens.store.schema import ATTN_Z
from alens.studies.transfer.copy_figures import CopyBaselines, CopyTransfer, JudgedHeads
from alens.studies.transfer.judged_rows import JudgedRows, TransferReading, judge, judged_rows, mean_output
from alens.studies.transfer.rebased import MATCHES, Frame, Rebased
from alens.studies.transfer.settings import TransferSettings

log = logging.getLogger("alens")

BY = ("output", "value")
"""What of a head is taken as the same in both models: what it writes into the residual stream, or its z."""

SAME = ("architecture", "n_layers", "n_heads", "d_head", "d_model", "d_vocab")
"""What a fine-tuned copy has in common with its model."""


def transfer_to_copy(
    lenses: Lenses,
    cache: Cache,
    copy: Cache,
    *,
    native: Lenses | None = None,
    settings: TransferSettings | None = None,
    device: torch.device | None = None,
    report: Report = silent,
) -> CopyTransfer:
    """Each lens on its own head of the copy, read in every way; `native` are lenses of the copy.

    Raises `RequestError` when `copy` is of no copy of the model, or no row is left that no fit has seen.
    """
    settings = settings or TransferSettings()
    check_copy(lenses, cache, copy, native)
    same_rows = same_rows_in(cache, copy)
    if not same_rows:
        log.warning(
            f"{copy.root} and {cache.root} hold other rows of text: figures at home and on the copy differ by the text too"
        )
    text, home_text = _texts(lenses, cache, copy, native, same_rows)
    at_home = judged_rows(lenses, cache, home_text, settings, device)
    there = judged_rows(lenses, copy, text, settings, device)
    own, natively = _own(lenses, at_home), [] if native is None else _own(native, there)  # says what lacks
    *home, home_mean = judge(at_home, [*own, mean_output(at_home, lenses)], report=report, stage="at home")
    names, readings = _moved(lenses, at_home.frames(), there)
    all_readings = [*readings, *natively, mean_output(there, native)]
    *on_copy, mean = judge(there, all_readings, report=report, stage="on the copy")
    num_heads = len(readings) // len(names)
    compare = CopyBaselines(
        home=JudgedHeads.of(home),
        native=JudgedHeads.of(on_copy[len(readings) :]) if natively else None,
        mean=JudgedHeads.of([mean]),
        rows_G=mean.rows_G.cpu().numpy(),
        next_G=mean.next_G.cpu().numpy(),
        same_rows=same_rows,
        seed=settings.seed,
    )
    pairs = tuple((layer, head) for layer in there.layers for head in there.heads)
    return CopyTransfer(
        site=there.site,
        same_rows=same_rows,
        rows=there.rows,
        home_rows=at_home.rows,
        sequences=there.groups.sequences,
        intervals_over=there.groups.over,
        groups=int((mean.rows_G > 0).sum()),
        teacher=there.teacher,
        shards=there.shards,
        home_shards=at_home.shards,
        trained_on=there.text.trained_on,
        heads=pairs,
        says_nothing=tuple(lenses.record.says_nothing(*pair) for pair in pairs),
        home=compare.home.figures,
        home_mean_output=home_mean.means()[0],
        native=None if compare.native is None else compare.native.figures,
        native_says_nothing=None
        if native is None
        else tuple(native.record.says_nothing(*pair) for pair in pairs),
        mean_output=mean.means()[0],
        ways=tuple(
            compare.way(by, match, JudgedHeads.of(on_copy[n * num_heads : (n + 1) * num_heads]))
            for n, (by, match) in enumerate(names)
        ),
        seed=settings.seed,
    )


def check_copy(lenses: Lenses, cache: Cache, copy: Cache, native: Lenses | None) -> None:
    """Raises `RequestError` unless `copy` is of a model with the same shapes and tokens, and `native` of that."""
    check_same_model(lenses, cache)
    ours, theirs = cache.plan.model, copy.plan.model
    for name in SAME:
        if getattr(ours, name) != getattr(theirs, name):
            raise RequestError(
                f"{copy.root} is of no copy of the model of {cache.root}: {name} is {getattr(theirs, name)}, not {getattr(ours, name)}"
            )
    if cache.plan.tokens.tokenizer_sha256 != copy.plan.tokens.tokenizer_sha256:
        raise RequestError(
            f"{copy.root} was cached with another tokenizer than {cache.root}: its tokens mean something else"
        )
    if same_model.difference(ours, theirs) is None:
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
    """Whether a shard's number means the same rows of text in both."""
    ours, theirs = cache.plan, copy.plan
    return (ours.tokens.sha256, ours.settings.rows_per_shard, ours.settings.seed) == (
        theirs.tokens.sha256,
        theirs.settings.rows_per_shard,
        theirs.settings.seed,
    )


def _texts(
    lenses: Lenses, cache: Cache, copy: Cache, native: Lenses | None, same_rows: bool
) -> tuple[JudgedText, JudgedText]:
    """Of the copy's cache and of the model's own: rows that no fit has seen; the same ones where that can be."""
    home = judged_text(lenses, cache)
    there = judged_text(lenses if native is None else native, copy)
    if not same_rows:
        return there if native is None else without_training_rows(there, lenses, copy), home
    both = tuple(shard for shard in home.shards if shard in there.shards)
    if not both:
        raise RequestError(
            f"{copy.root} holds the text of {cache.root}, and no shard of it was held out of every fit: fit both with the same --eval-rows"
        )
    sequences_B = there.mask(copy) & home.mask(cache)
    same = dataclasses.replace(home, shards=both, sequences_B=sequences_B)
    return dataclasses.replace(same, trained_on=there.trained_on), same


def _own(lenses: Lenses, ground: JudgedRows) -> list[TransferReading]:
    """Each lens on the head it was fitted to."""
    indices = [lenses.head_index(head) for head in ground.heads]
    return [
        TransferReading(
            layer=layer,
            values=lambda values_NHE: values_NHE,
            maps=lenses.layer(layer).maps.select(indices).to(ground.device),
        )
        for layer in ground.layers
    ]


def _moved(
    lenses: Lenses, frames: dict[int, Frame], there: JudgedRows
) -> tuple[list[tuple[str, str]], list[TransferReading]]:
    """The ways, and for each of them the readings of all heads in order."""
    written = there.site == ATTN_Z and there.cache.plan.model.head_write != OTHER_WRITE
    if there.site == ATTN_Z and not written:
        log.warning("%s: heads are read by their z alone", there.cache.plan.model.no_write)
    ways = [(by, match) for by in (BY if written else BY[1:]) for match in MATCHES]
    theirs = there.frames()
    readings = []
    for by, match in ways:
        for layer in there.layers:
            maps = lenses.layer(layer).maps
            for place, head in enumerate(there.heads):
                source, target = frames[layer].select(place), theirs[layer].select(place)
                if by == "value":
                    source, target = source.without_outputs(), target.without_outputs()
                rebased = Rebased(source=source, target=target, head=0, match=match)
                readings.append(
                    TransferReading(
                        layer=layer,
                        values=_OneHead(place, rebased),
                        maps=maps.select([lenses.head_index(head)]).to(there.device),
                    )
                )
    return ways, readings


@dataclass(frozen=True)
class _OneHead:
    """Takes one head of a layer's values, and moves it."""

    place: int
    rebased: Rebased

    def __call__(self, values_NHE: torch.Tensor) -> torch.Tensor:
        return self.rebased(values_NHE[:, self.place : self.place + 1])
