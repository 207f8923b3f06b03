"""`alens eval`: lenses on held-out text, beside baselines.

In: a lens directory and a cache. Out: an `Evaluation`: the figures of every reading of the panel, with intervals, and
how each lens differs from each baseline. On the cache of their fit, lenses are judged on the shards that the fit set
aside; on another cache, on the text that they were not trained on, as far as that is known.
Shapes: V vocabulary.
"""

import logging
import typing
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from alens.errors import RequestError
from alens.evaluation import panel as panels
from alens.evaluation.choice import chosen_baselines
from alens.evaluation.effect_judge import EffectJudge, HeadSums
from alens.evaluation.judge import num_top_tokens
from alens.evaluation.judged_effects import JudgedEffects
from alens.evaluation.layers_in_turn import LayersInTurn
from alens.evaluation.panel import Beside, Key, PanelKeys
from alens.evaluation.reading_figures import Judged, ReadingFigures
from alens.evaluation.result import BaselineComparison, Evaluation
from alens.evaluation.settings import BaselineName, EvaluateSettings
from alens.evaluation.shards import (
    check_same_model,
    judged_text,
    text_held_out_by,
    without_training_rows,
)
from alens.evaluation.sums import check_kl
from alens.heads import Head, Heads
from alens.job.progress import Report, counted, silent
from alens.lens.directory import layer_file
from alens.lens.lenses import Lenses, opened_lenses
from alens.lens.maps import TranslatedMaps
from alens.lens.record import JACOBIAN
from alens.rows.final_norm import FinalNorm
from alens.statistics.bootstrap import RESAMPLES
from alens.store.cache_reader import Cache
from alens.store.opened_cache import opened_cache
from alens.store.schema import ATTN_Z, RESIDUAL_STREAM

log = logging.getLogger("alens")


def evaluate(
    lenses: Lenses | Path | str,
    cache: Cache | Path | str,
    *,
    settings: EvaluateSettings | None = None,
    held_out_by: Lenses | Path | str | None = None,
    tuned_lens: Lenses | Path | str | None = None,
    also: Sequence[Lenses | Path | str] = (),
    final_norm: FinalNorm | None = None,
    token_bytes_V: npt.NDArray[np.int64] | None = None,
    device: torch.device | None = None,
    all_shards: bool = False,
    report: Report = silent,
) -> Evaluation:
    """Judge lenses on a cache of the same model; both are open, or the directories to open.

    `held_out_by` are other lenses: the shards that their fit held out are judged on. `tuned_lens` are lenses of
    `resid_post`, a further baseline. `also` are further lenses of these heads; their readings are named by their design.
    `final_norm` is the model's last norm, for a cache that was written before alens
    kept it: without the norm, the Logit Lens is normed as in GPT-2, but without gain and offset. `token_bytes_V` (V,)
    are the bytes of each token: without them there are no bits per byte. With `all_shards`, rows are taken from each shard
    in equal numbers, so that few rows are of many documents, and not from the first shards.

    Raises `RequestError` when the cache is of another model, when it lacks a layer or what a baseline needs, or when
    `tuned_lens` holds no Tuned Lens.
    """
    settings = settings or EvaluateSettings()
    lenses, cache = opened_lenses(lenses), opened_cache(cache)
    held_out_by = None if held_out_by is None else opened_lenses(held_out_by)
    tuned_lens = None if tuned_lens is None else opened_lenses(tuned_lens)
    check_same_model(lenses, cache)
    _check_norm(lenses, cache)
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
    further = _named([opened_lenses(given) for given in also], lenses, cache, heads)
    for other in further.values():
        text = without_training_rows(text, other, cache)
    other_shards = tuple(sorted({*cache.shards} - {*text.shards}))
    effects = None if lenses.record.site != ATTN_Z else EffectJudge.of_cache(cache, heads, text)
    baselines = chosen_baselines(
        settings.baselines,
        lenses,
        cache,
        tuned_lens=tuned_lens,
        other_shards=other_shards,
        by_cause=effects is not None,
    )
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
        beside=lambda groups: Beside(
            baselines=baselines,
            groups=groups,
            shards=other_shards,
            seed=settings.seed,
            final_norm=final_norm,
            tuned_lens=tuned_lens,
            also=further,
        ),
        effects=effects,
        token_bytes_V=None
        if token_bytes_V is None
        else torch.from_numpy(np.asarray(token_bytes_V)).to(device),
        report=report,
        all_shards=all_shards,
    )
    groups = in_turn.groups
    figures: dict[Key, ReadingFigures] = {}
    comparisons: dict[str, dict[int, list[BaselineComparison]]] = {}
    by_cause: dict[Head, HeadSums] = {}
    for order, judged, sums in in_turn.judged():
        by_cause |= sums
        figures |= {key: judged.figures(place) for key, place in order.places.items()}
        for kind in order.baselines:
            for layer in order.judged.layers:
                compared = [
                    _compare(judged, order, lens, kind) for lens in order.of_layer(panels.LENS, layer)
                ]
                comparisons.setdefault(kind, {})[layer] = compared
    cache.check_unchanged()
    check_kl([reading.kl for reading in figures.values()])

    of_heads: dict[str, dict[int, list[ReadingFigures]]] = {}
    of_layers: dict[str, dict[int, ReadingFigures]] = {}
    for key, reading in figures.items():
        if key.head is not None and key.layer is not None:
            of_heads.setdefault(key.kind, {}).setdefault(key.layer, []).append(reading)
        elif key.layer is not None:
            of_layers.setdefault(key.kind, {})[key.layer] = reading

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
        of_heads=of_heads,
        of_layers=of_layers,
        mean_output=figures[Key(panels.MEAN_OUTPUT)],
        model=figures.get(Key(panels.MODEL)),
        norm_is_the_models=final_norm is not None or cache.plan.model.keeps_norm,
        comparisons=comparisons,
        effects=None
        if effects is None
        else JudgedEffects.of_sums(effects, by_cause, cache.plan.model.d_vocab, settings.seed, resamples),
    )


def _named(also: Sequence[Lenses], lenses: Lenses, cache: Cache, heads: Heads) -> dict[str, Lenses]:
    """Further lenses of the heads that are judged, by the names of their readings."""
    by_name: dict[str, Lenses] = {}
    for other in also:
        record = other.record
        name = record.design
        if name in by_name or (
            name in (panels.LENS, *typing.get_args(BaselineName)) and name != panels.REGRESSION
        ):
            raise RequestError(f"{other.name} would be a second reading {name}: give one of them")
        if record.site != lenses.record.site:
            raise RequestError(f"{other.name} reads {record.site}, and {lenses.name} {lenses.record.site}")
        check_same_model(other, cache)
        _check_norm(other, cache)
        other.choose(None, heads.names)
        by_name[name] = other
    return by_name


def _check_norm(lenses: Lenses, cache: Cache) -> None:
    """Raises `RequestError` for Jacobian lenses on a cache that does not say what the last norm divides each row by."""
    if lenses.record.form == JACOBIAN and not cache.plan.model.keeps_norm:
        raise RequestError(
            f"{lenses.name} holds Jacobian lenses, and {cache.root} was written before alens kept the last norm: cache again"
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
