"""`alens transfer` within a model: the lens of each head on every other head.

In: lenses, and a cache of their model. Out: `TransferMatrix`: forward KL and cross-entropy of each lens on the values
of each head, brought to its coordinates (`rebased`), beside the lens of that head and the mean output.
Shapes: S source heads, T target heads, G groups (documents or sequences).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from alens.evaluation.shards import check_same_model, judged_text
from alens.evaluation.sums import KL, SURPRISE, ReadingSums
from alens.job.progress import Report, silent
from alens.lens.lenses import Lenses, opened_lenses
from alens.store.cache_reader import Cache
from alens.store.opened_cache import opened_cache
from alens.studies.transfer.judged_rows import (
    TransferReading,
    as_fitted,
    check_written,
    judge_readings,
    judged_rows,
    mean_output,
)
from alens.studies.transfer.rebased import Frame, Rebased, shares_seen
from alens.studies.transfer.result import GroupSums, TransferMatrix
from alens.studies.transfer.settings import TransferSettings


def transfer(
    lenses: Lenses | Path | str,
    cache: Cache | Path | str,
    *,
    settings: TransferSettings | None = None,
    device: torch.device | None = None,
    report: Report = silent,
) -> TransferMatrix:
    """Judge each chosen lens on each chosen head, on rows that the fit held out; on another cache than that of the fit,
    on rows that it did not train on.

    Raises `RequestError` when the cache is another model's, or lenses or cache lack a layer or a head.
    """
    settings = settings or TransferSettings()
    lenses, cache = opened_lenses(lenses), opened_cache(cache)
    check_same_model(lenses, cache)
    check_written(cache, lenses.record.site)
    judged = judged_rows(lenses, cache, judged_text(lenses, cache), settings, device)
    frames, fitted = judged.frames(), as_fitted(lenses, judged)
    targets = [(layer, judged.heads.place(layer, head)) for layer, head in judged.heads]
    readings = [_moved(frames, own, target, settings.match) for target in targets for own in fitted]
    *sums, mean = judge_readings(judged, [*readings, *fitted, mean_output(judged, lenses)], report=report)
    moved, native = sums[: len(readings)], sums[len(readings) :]
    figures, shape = [figures for part in moved for figures in part.means()], (len(targets), len(targets))
    heads = judged.heads.pairs
    return TransferMatrix(
        site=judged.site,
        match=settings.match,
        rows=judged.rows,
        sequences=judged.groups.sequences,
        intervals_over=judged.groups.over,
        groups=int((mean.rows_G > 0).sum()),
        teacher=judged.teacher,
        shards=judged.shards,
        trained_on=judged.text.trained_on,
        heads=heads,
        says_nothing=tuple(lenses.record.says_nothing(*head) for head in heads),
        kl_ST=np.array([one.kl for one in figures]).reshape(shape).T,
        cross_entropy_ST=np.array([one.cross_entropy for one in figures]).reshape(shape).T,
        seen_ST=shares_seen(frames, targets),
        native=tuple(figures for part in native for figures in part.means()),
        mean_output=mean.means()[0],
        kl_sums=_group_sums(KL, moved, native, mean, mean.rows_G),
        cross_entropy_sums=_group_sums(SURPRISE, moved, native, mean, mean.next_G),
        seed=settings.seed,
    )


def _moved(
    frames: dict[int, Frame], own: TransferReading, target: tuple[int, int], match: str
) -> TransferReading:
    """The lenses of a layer on another head, which `target` names by its layer and its place there."""
    layer, place = target
    values = Rebased(source=frames[own.layer], target=frames[layer], head=place, match=match)
    return TransferReading(layer=layer, values=values, maps=own.maps)


def _group_sums(
    figure: int,
    moved: Sequence[ReadingSums],
    native: Sequence[ReadingSums],
    mean: ReadingSums,
    rows_G: torch.Tensor,
) -> GroupSums:
    """The sums of one figure by document or sequence; `rows_G` counts the rows of each."""
    moved_GS, native_GT = (
        np.concatenate([part.sums_GQC[..., figure].cpu().numpy() for part in parts], axis=1)
        for parts in (moved, native)
    )
    num_heads = native_GT.shape[1]
    return GroupSums(
        moved_GST=moved_GS.reshape(-1, num_heads, num_heads).swapaxes(1, 2),
        native_GT=native_GT,
        mean_output_G=mean.sums_GQC[:, 0, figure].cpu().numpy(),
        rows_G=rows_G.cpu().numpy(),
    )
