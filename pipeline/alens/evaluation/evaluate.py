"""`alens eval`: lenses on held-out text, beside baselines.

In: a lens directory and a cache. Out: `Evaluation`: figures of every reading of the panel, with intervals, and how each
lens differs from each baseline. On the cache of their fit, lenses are judged on the shards that the fit set aside; on
any other, on what is not known to be trained on.
Shapes: N rows, G sequences, K top tokens, V vocabulary.
"""

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from alens.errors import RequestError
from alens.evaluation import panel as panels
from alens.evaluation.judge import judge, num_top_tokens
from alens.evaluation.panel import BASELINES, LENS, Key, Panel
from alens.evaluation.reading_figures import Judged
from alens.evaluation.result import BaselineComparison, Evaluation
from alens.evaluation.shards import (
    check_same_model,
    judged_text,
    text_held_out_by,
    without_training_rows,
)
from alens.evaluation.sums import ALL, ReadingSums, check_kl
from alens.job.progress import Progress, Report, silent
from alens.lens.lenses import Lenses
from alens.lens.maps import TranslatedMaps
from alens.rows.columns import RowReader
from alens.rows.final_norm import FinalNorm
from alens.rows.held_out_rows import HeldOutRows
from alens.statistics.bootstrap import RESAMPLES
from alens.statistics.groups import Groups
from alens.store.cache_reader import Cache
from alens.store.schema import RESIDUAL_STREAM

log = logging.getLogger("alens")


def evaluate(
    lenses: Lenses,
    cache: Cache,
    *,
    layers: Sequence[int] | None = None,
    num_rows: int | None = None,
    held_out_by: Lenses | None = None,
    tuned_lens: Lenses | None = None,
    final_norm: FinalNorm | None = None,
    token_bytes_V: npt.NDArray[np.int64] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    device: torch.device | None = None,
    report: Report = silent,
) -> Evaluation:
    """Judge lenses on a cache of the same model.

    `held_out_by` are lenses whose held-out shards are judged on. `tuned_lens` are lenses of `resid_post`, a further
    baseline. `final_norm` is the model's last norm, for caches of before it was kept: without it the Logit Lens is
    normed as GPT-2 does it, without gain and offset.
    `token_bytes_V` are the bytes of each token: without them there are no bits a byte.

    Raises `RequestError` when the cache is another model's or lacks a layer, or the Tuned Lens cannot be one.
    """
    check_same_model(lenses, cache)
    layers, _ = lenses.chosen(layers, None, report)
    if token_bytes_V is not None and len(token_bytes_V) != cache.plan.model.d_vocab:
        raise RequestError(
            f"token_bytes_V has {len(token_bytes_V)} entries: the model has {cache.plan.model.d_vocab} tokens"
        )
    text = judged_text(lenses, cache) if held_out_by is None else text_held_out_by(held_out_by, lenses, cache)
    if tuned_lens is not None:
        _check_tuned_lens(tuned_lens, cache, layers)
        text = without_training_rows(text, tuned_lens, cache)
    shards = text.shards
    where = device or torch.device("cpu")
    _say_what_lacks(lenses, cache)
    report(Progress(stage="preparing the readings"))
    panel = Panel(lenses, cache, layers, where, final_norm=final_norm, tuned_lens=tuned_lens)
    teacher, min_position = cache.plan.settings.best_teacher, int(lenses.record.fit["min_position"])
    reader = RowReader(
        cache,
        layers,
        lenses.record.heads,
        teacher,
        min_position,
        where,
        site=lenses.record.site,
        columns=panel.columns,
        sequences_B=text.sequences_B,
    )
    total = reader.num_rows(shards)
    total = total if num_rows is None else min(total, num_rows)
    groups = Groups.of_shards(cache, _first(reader, shards, total))
    sums = ReadingSums(len(panel.keys), where, num_groups=groups.count, figures=ALL)
    judge(
        HeldOutRows(reader=reader, shards=shards, num_rows=total),
        panel.readings,
        sums,
        groups=groups,
        token_bytes_V=None
        if token_bytes_V is None
        else torch.from_numpy(np.asarray(token_bytes_V)).to(where),
        report=report,
        stage="eval",
    )
    report(Progress(stage="intervals"))
    judged = Judged(sums, seed=seed, resamples=resamples)
    found = {key: judged.figures(place) for place, key in enumerate(panel.keys)}
    cache.check_unchanged()
    check_kl([figures.kl for figures in found.values()])
    return Evaluation(
        rows=judged.rows,
        sequences=groups.sequences,
        intervals_over=groups.over,
        groups=judged.groups,
        teacher=teacher,
        shards=shards,
        trained_on=text.trained_on,
        sequences_left_out=text.left_out,
        top_tokens=num_top_tokens(cache),
        seed=seed,
        resamples=resamples,
        heads=lenses.record.heads,
        says_nothing={
            layer: [lenses.record.says_nothing(layer, head) for head in lenses.record.heads]
            for layer in layers
        },
        lens={layer: [found[key] for key in panel.of_layer(LENS, layer)] for layer in layers},
        unembedding={
            layer: [found[key] for key in keys]
            for layer in layers
            if (keys := panel.of_layer(panels.UNEMBEDDING, layer))
        },
        mean_output=found[Key(panels.MEAN_OUTPUT)],
        logit_lens={
            key.layer: f
            for key, f in found.items()
            if key.kind == panels.LOGIT_LENS and key.layer is not None
        },
        tuned_lens={
            key.layer: f
            for key, f in found.items()
            if key.kind == panels.TUNED_LENS and key.layer is not None
        },
        model=found.get(Key(panels.MODEL)),
        norm_is_the_models=final_norm is not None or cache.plan.model.keeps_norm,
        comparisons={
            kind: {
                layer: [_compare(judged, panel, key, kind) for key in panel.of_layer(LENS, layer)]
                for layer in layers
            }
            for kind in BASELINES
            if panel.baseline(kind, Key(LENS, layers[0], 0)) is not None
        },
    )


def _first(reader: RowReader, shards: Sequence[int], num_rows: int) -> Sequence[int]:
    """The first of `shards`, as many as have so many rows."""
    count = 1
    while reader.num_rows(shards[:count]) < num_rows:
        count += 1
    return shards[:count]


def _say_what_lacks(lenses: Lenses, cache: Cache) -> None:
    """A line where what heads write cannot be unembedded, or only without the last norm."""
    model = cache.plan.model
    if lenses.record.site == RESIDUAL_STREAM:
        return
    if model.no_write is not None:
        log.warning("%s: the unembedding of heads is left out", model.no_write)
    elif not model.keeps_norm:
        log.warning(
            "%s is of before the last norm was kept: the unembedding of heads leaves the norm out; cache again to have it",
            cache.root,
        )


def _compare(judged: Judged, panel: Panel, lens: Key, kind: str) -> BaselineComparison:
    place, baseline = panel.places[lens], panel.baseline(kind, lens)
    assert baseline is not None  # asked of the first lens, and the same for all
    kl = judged.difference("kl", place, baseline)
    assert kl is not None  # every row has one
    return BaselineComparison(kl=kl, cross_entropy=judged.difference("cross_entropy", place, baseline))


def _check_tuned_lens(tuned_lens: Lenses, cache: Cache, layers: Sequence[int]) -> None:
    record = tuned_lens.record
    check_same_model(tuned_lens, cache)
    if record.site != RESIDUAL_STREAM or record.form != TranslatedMaps.form:
        raise RequestError(
            f"{tuned_lens.name} holds no Tuned Lens: its lenses read {record.site} and are {record.form}; "
            "fit one with `alens fit --lens tuned --site resid_post`"
        )
    cache.check_site(RESIDUAL_STREAM)
    for layer in layers:
        tuned_lens.layer(layer)
