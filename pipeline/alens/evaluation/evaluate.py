"""`alens eval`: lenses on held-out text, beside baselines.

In: a lens directory and a cache. Out: an `Evaluation`: the figures of every reading of the panel, with intervals, and
how each lens differs from each baseline. On the cache of their fit, lenses are judged on the shards that the fit set
aside; on another cache, on the text that they were not trained on, as far as that is known.
Shapes: V vocabulary.
"""

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from alens.errors import RequestError
from alens.evaluation import panel as panels
from alens.evaluation.judge import num_top_tokens
from alens.evaluation.layers_in_turn import LayersInTurn
from alens.evaluation.panel import Key, PanelKeys
from alens.evaluation.reading_figures import Judged, ReadingFigures
from alens.evaluation.result import BaselineComparison, Evaluation
from alens.evaluation.settings import EvaluateSettings
from alens.evaluation.shards import (
    check_same_model,
    judged_text,
    text_held_out_by,
    without_training_rows,
)
from alens.evaluation.sums import check_kl
from alens.job.progress import Report, counted, silent
from alens.lens.directory import layer_file
from alens.lens.lenses import Lenses
from alens.lens.maps import TranslatedMaps
from alens.rows.final_norm import FinalNorm
from alens.statistics.bootstrap import RESAMPLES
from alens.store.cache_reader import Cache
from alens.store.schema import RESIDUAL_STREAM

log = logging.getLogger("alens")


def evaluate(
    lenses: Lenses,
    cache: Cache,
    *,
    settings: EvaluateSettings | None = None,
    held_out_by: Lenses | None = None,
    tuned_lens: Lenses | None = None,
    final_norm: FinalNorm | None = None,
    token_bytes_V: npt.NDArray[np.int64] | None = None,
    device: torch.device | None = None,
    report: Report = silent,
) -> Evaluation:
    """Judge lenses on a cache of the same model.

    `held_out_by` are other lenses: the shards that their fit held out are judged on. `tuned_lens` are lenses of
    `resid_post`, a further baseline. `final_norm` is the model's last norm, for a cache that was written before alens
    kept it: without the norm, the Logit Lens is normed as in GPT-2, but without gain and offset. `token_bytes_V` (V,)
    are the bytes of each token: without them there are no bits per byte.

    Raises `RequestError` when the cache is of another model, when it lacks a layer, or when `tuned_lens` holds no Tuned
    Lens.
    """
    settings = settings or EvaluateSettings()
    check_same_model(lenses, cache)
    heads = lenses.choose(settings.layers, settings.heads)
    for layer in counted(heads.layers, report, "checking lenses", "layers"):
        lenses.check_file(layer_file(layer))  # now, not after hours of judging other layers
    layers = heads.layers
    if token_bytes_V is not None and len(token_bytes_V) != cache.plan.model.d_vocab:
        raise RequestError(
            f"token_bytes_V has {len(token_bytes_V)} entries: the model has {cache.plan.model.d_vocab} tokens"
        )
    text = judged_text(lenses, cache) if held_out_by is None else text_held_out_by(held_out_by, lenses, cache)
    if tuned_lens is not None:
        _check_tuned_lens(tuned_lens, cache, layers)
        text = without_training_rows(text, tuned_lens, cache)
    device = device or torch.device("cpu")
    _warn_of_missing_norm(lenses, cache)
    resamples = RESAMPLES if settings.resamples is None else settings.resamples
    in_turn = LayersInTurn(
        lenses=lenses,
        cache=cache,
        heads=heads,
        text=text,
        num_rows=settings.rows,
        seed=settings.seed,
        resamples=resamples,
        device=device,
        final_norm=final_norm,
        tuned_lens=tuned_lens,
        token_bytes_V=None
        if token_bytes_V is None
        else torch.from_numpy(np.asarray(token_bytes_V)).to(device),
        report=report,
    )
    groups = in_turn.groups
    figures: dict[Key, ReadingFigures] = {}
    comparisons: dict[str, dict[int, list[BaselineComparison]]] = {}
    for order, judged in in_turn.judged():
        figures |= {key: judged.figures(place) for key, place in order.places.items()}
        for kind in filter(order.has, panels.BASELINES):
            for layer in order.judged.layers:
                compared = [
                    _compare(judged, order, lens, kind) for lens in order.of_layer(panels.LENS, layer)
                ]
                comparisons.setdefault(kind, {})[layer] = compared
    cache.check_unchanged()
    check_kl([reading.kl for reading in figures.values()])

    def of_heads(kind: str) -> dict[int, list[ReadingFigures]]:
        by_layer: dict[int, list[ReadingFigures]] = {}
        for key, reading in figures.items():
            if key.kind == kind and key.layer is not None:
                by_layer.setdefault(key.layer, []).append(reading)
        return by_layer

    def of_layers(kind: str) -> dict[int, ReadingFigures]:
        return {layer: reading for layer, (reading,) in of_heads(kind).items()}

    record = lenses.record
    return Evaluation(
        rows=judged.rows,
        sequences=groups.sequences,
        intervals_over=groups.over,
        groups=judged.groups,
        teacher=cache.plan.settings.best_teacher,
        shards=text.shards,
        trained_on=text.trained_on,
        sequences_left_out=text.left_out,
        top_tokens=num_top_tokens(cache),
        seed=settings.seed,
        resamples=resamples,
        heads=heads,
        says_nothing={
            layer: [record.says_nothing(layer, head) for head in numbers]
            for layer, numbers in heads.by_layer.items()
        },
        lens=of_heads(panels.LENS),
        unembedding=of_heads(panels.UNEMBEDDING),
        mean_output=figures[Key(panels.MEAN_OUTPUT)],
        logit_lens=of_layers(panels.LOGIT_LENS),
        tuned_lens=of_layers(panels.TUNED_LENS),
        model=figures.get(Key(panels.MODEL)),
        norm_is_the_models=final_norm is not None or cache.plan.model.keeps_norm,
        comparisons=comparisons,
    )


def _warn_of_missing_norm(lenses: Lenses, cache: Cache) -> None:
    """Warns where what heads write cannot be unembedded, or only without the last norm."""
    model = cache.plan.model
    if lenses.record.site == RESIDUAL_STREAM:
        return
    if model.no_write is not None:
        log.warning("%s: the unembedding of heads is left out", model.no_write)
    elif not model.keeps_norm:
        log.warning(
            "%s was written before alens kept the last norm: the unembedding of heads leaves the norm out; cache again to have it",
            cache.root,
        )


def _compare(judged: Judged, order: PanelKeys, lens: Key, kind: str) -> BaselineComparison:
    place, baseline = order.places[lens], order.baseline(kind, lens)
    assert baseline is not None  # the panel has this kind
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
        tuned_lens.check_layer(layer)
        tuned_lens.check_file(layer_file(layer))
