"""What a fit ends with: the figures of its lenses on all held-out rows, and the lens directory.

In: a `Trainer` that has finished. Out: a safetensors file a layer, the mean output, and `lens.json`, written last. Lenses
that do no better than the mean output are replaced by it, and marked; those that do no better than their start, by that.
"""

import logging
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any, Protocol

import torch

from alens.evaluation.sums import HeadFigures
from alens.fit.convergence import CONVERGED, ENDINGS
from alens.fit.curves import Curves
from alens.fit.distributed import Processes
from alens.fit.fit_plan import FitPlan, fitted_on
from alens.fit.judging import Judging
from alens.fit.recipe import Recipe
from alens.fit.trainer import Trainer
from alens.job.progress import Report, counted
from alens.lens.designs.design import Ground
from alens.lens.directory import LensDirectory
from alens.lens.lenses import Lenses
from alens.lens.maps import LayerLenses, LensMaps
from alens.lens.record import LensRecord
from alens.rows import moments
from alens.store.durable import write_errors
from alens.store.schema import ATTN_Z

log = logging.getLogger("alens")

CLOSE = 0.02
"""A lens that was better than its start by more than so many nats, on the rows of the evaluations, is better on all held-out
rows: the difference of two readings of a row has a spread of some tenths of a nat, and these are thousands of rows."""

NAMED = 5
"""How many lenses a warning names."""

Nothing = Mapping[int, list[int]]
"""By layer, the places of the heads whose lenses do no better than the mean output."""


class Finished(Protocol):
    """Lenses that are made, with what they were made from: a `Trainer`, or a design that is whole at its start."""

    @property
    def recipe(self) -> Recipe: ...
    @property
    def plan(self) -> FitPlan: ...
    @property
    def processes(self) -> Processes: ...
    @property
    def directory(self) -> LensDirectory: ...
    @property
    def grounds(self) -> Mapping[int, Ground]: ...
    @property
    def judging(self) -> Judging: ...
    @property
    def curves(self) -> Curves: ...
    @property
    def report(self) -> Report: ...
    @property
    def step_number(self) -> int: ...
    @property
    def rows_seen(self) -> int: ...
    @property
    def advice(self) -> str:
        """What may help lenses that say nothing."""

    def maps(self) -> dict[int, LensMaps]: ...
    def drop_checkpoints(self) -> None: ...


def put_lenses(
    trainer: Finished, read: Callable[[LensDirectory], LensRecord | None] | None = None
) -> LensRecord:
    """Write what was fitted, `lens.json` last; then the checkpoints are no longer needed. Collective.

    `read` reads the record that was put where it is not `lens.json`.

    Raises `DamageError`, and writes nothing, where another cache has replaced the one that was fitted on.
    """
    maps = trainer.maps()
    if trainer.recipe.cache.plan.settings.moments_only:
        return _put_unjudged(trainer, maps)
    judged_by_kl = {
        layer: trainer.curves.one_loss_a_head(layer) and trainer.recipe.objective.is_forward_kl
        for layer in maps
    }
    nothing = {layer: [] if judged_by_kl[layer] else _above_by_loss(trainer, layer) for layer in maps}
    replaced = {layer: _silence(trainer, layer, maps, places) for layer, places in nothing.items()}
    figures, mean_output = trainer.judging.figures(maps, trainer.report)
    started = {}
    if isinstance(trainer, Trainer) and all(judged_by_kl.values()):
        started = _no_worse_than_start(trainer, maps, figures)
    for layer in (layer for layer, by_kl in judged_by_kl.items() if by_kl):
        nothing[layer] = [place for place, head in enumerate(figures[layer]) if not head.kl < mean_output.kl]
        replaced[layer] = _silence(trainer, layer, maps, nothing[layer])
        if replaced[layer]:
            figures[layer] = [
                mean_output if place in nothing[layer] else head for place, head in enumerate(figures[layer])
            ]

    def put() -> None:
        trainer.recipe.cache.check_unchanged()
        all_replaced = all(replaced[layer] for layer, places in nothing.items() if places)
        _warn(trainer, nothing, all_replaced, mean_output.kl)
        record = _record(trainer, maps, _held_out(figures, nothing), mean_output.kl)
        best_steps = record.fit["best_step"] | dict.fromkeys(_names(trainer, started), 0)
        fit = _without_converged(record.fit, trainer, nothing)
        record = replace(record, fit={**fit, "best_step": best_steps})
        with write_errors(trainer.directory.root):
            files = trainer.directory.put_lenses(
                record.lenses, _layers(trainer, maps), trainer.judging.log_mean_output_V
            )
            trainer.directory.put_record(replace(record, files=files))
        trainer.drop_checkpoints()

    trainer.processes.first_does(put)
    record = Lenses(trainer.directory.root).record if read is None else read(trainer.directory)
    assert record is not None, "it was written"
    return record


def _put_unjudged(lenses: Finished, maps: Mapping[int, LensMaps]) -> LensRecord:
    """Write lenses of a cache that holds no rows to judge them on: they have no figures."""
    lenses.recipe.cache.check_unchanged()
    record = _record(lenses, maps, {}, None)
    log_mean_V = lenses.judging.log_mean_output_V
    with write_errors(lenses.directory.root):
        files = lenses.directory.put_lenses(record.lenses, _layers(lenses, maps), log_mean_V)
        lenses.directory.put_record(replace(record, files=files))
    return Lenses(lenses.directory.root).record


def _above_by_loss(trainer: Finished, layer: int) -> list[int]:
    """The heads whose loss is not below the mean output's, for losses that are not the KL of the figures.

    These are compared with themselves, on the rows of the evaluations.
    """
    curves = trainer.curves
    assert curves.mean_output is not None, "a fit ends with an evaluation"
    above: list[int] = []
    for unit in range(curves.num_losses[layer]):
        best = curves.best((layer, unit))
        if best is None or best.loss >= curves.mean_output:
            above += curves.places(layer, [unit])
    return above


def _no_worse_than_start(
    trainer: Trainer, maps: Mapping[int, LensMaps], figures: Mapping[int, list[HeadFigures]]
) -> dict[int, list[int]]:
    """Put lenses back to their start where all held-out rows say that this is better; gives their places, by layer.

    The evaluations chose between the two by some of these rows. Only lenses that were close there are judged again.
    """
    close = {layer: _close_to_start(trainer, layer) for layer in maps if trainer.closed_forms}
    close = {layer: places for layer, places in close.items() if places}
    if not close or trainer.judging.evaluates_on_all_rows:
        return {}
    starts = {layer: trainer.start(layer).maps().select(places) for layer, places in close.items()}
    start_figures, _ = trainer.judging.figures(starts, trainer.report, close)
    put_back: dict[int, list[int]] = {layer: [] for layer in close}
    for layer, places in close.items():
        for at, (place, start) in enumerate(zip(places, start_figures[layer], strict=True)):
            if start.kl < figures[layer][place].kl:
                maps[layer].put([place], starts[layer].select([at]))
                figures[layer][place] = start
                put_back[layer].append(place)
    return put_back


def _close_to_start(trainer: Trainer, layer: int) -> list[int]:
    """The places of heads whose best evaluation is not far below that of their start."""
    places = []
    for unit in range(trainer.curves.num_losses[layer]):
        best, first = trainer.curves.best((layer, unit)), trainer.curves.history[layer, unit][0]
        if best is not None and best.step > 0 and first.step == 0 and not first.loss - best.loss > CLOSE:
            places += trainer.curves.places(layer, [unit])
    return places


def _silence(trainer: Finished, layer: int, maps: Mapping[int, LensMaps], places: list[int]) -> bool:
    """Replace these lenses by the mean output. False where the form cannot say it: then they stay as they are."""
    nothing = trainer.recipe.design(trainer.grounds[layer]).nothing() if places else None
    if nothing is not None:
        maps[layer].put(places, nothing.select(places))
    return nothing is not None


def _held_out(figures: Mapping[int, list[HeadFigures]], nothing: Nothing) -> dict[str, list[dict[str, Any]]]:
    """What `LensRecord.held_out` holds: the figures, with the mark of lenses that say nothing."""
    return {
        str(layer): [
            {**asdict(head), **({"says_nothing": True} if place in nothing[layer] else {})}
            for place, head in enumerate(heads)
        ]
        for layer, heads in figures.items()
    }


def _names(trainer: Finished, nothing: Nothing) -> list[str]:
    heads = trainer.plan.lenses.by_layer
    return [f"{layer}.{heads[layer][place]}" for layer, places in nothing.items() for place in places]


def _without_converged(fit: dict[str, Any], trainer: Finished, nothing: Nothing) -> dict[str, Any]:
    """A lens that says nothing does not count as converged, even if it had on the fewer rows of the evaluations, and nobody
    can say what it would gain."""
    silent = _names(trainer, nothing)
    speaking = {
        what: {name: value for name, value in fit[what].items() if name not in silent}
        for what in (CONVERGED, "rows_wanted")
    }
    return {**fit, **speaking}


def _warn(trainer: Finished, nothing: Nothing, replaced: bool, mean_output_kl: float) -> None:
    """Name the lenses that do no better than a reading that ignores its input, and the step at which each was best."""
    names, best = _names(trainer, nothing), trainer.curves.best_steps
    if not names:
        return
    named = [f"{name}, best at step {best[name]}" if name in best else name for name in names[:NAMED]]
    log.warning(
        "%s: %d of %d lenses say nothing: at their best they do no better than the mean output, %.3f nats (%s%s); %s. "
        "%s",
        trainer.directory,
        len(names),
        len(trainer.plan.lenses),
        mean_output_kl,
        "; ".join(named),
        "; ..." if len(names) > NAMED else "",
        "the mean output stands in their place" if replaced else "lens.json marks them",
        trainer.advice,
    )


def _layers(trainer: Finished, maps: Mapping[int, LensMaps]) -> Iterator[tuple[int, LayerLenses]]:
    """The lenses of each layer as they are saved; reports how many layers are written."""
    cache, heads = trainer.recipe.cache, trainer.recipe.heads
    W_O_LHED, mean_z = None, {}
    if trainer.recipe.settings.site == ATTN_Z:
        W_O_LHED = torch.from_numpy(cache.weights("W_O"))
        mean_z = moments.mean_z(cache, heads, (*trainer.plan.train_shards, *trainer.plan.held_out_shards))
    for layer in counted(list(maps), trainer.report, "writing lenses", "layers"):
        W_O_HED = None if W_O_LHED is None else W_O_LHED[layer, list(heads.by_layer[layer])]
        yield layer, LayerLenses(maps=maps[layer], W_O_HED=W_O_HED, mean_z_HE=mean_z.get(layer))


def _record(
    trainer: Finished,
    maps: Mapping[int, LensMaps],
    held_out: dict[str, list[dict[str, Any]]],
    mean_output_kl: float | None,
) -> LensRecord:
    recipe, plan, cache = trainer.recipe, trainer.plan, trainer.recipe.cache
    packages = ("alens", "torch", "deepspeed")
    return LensRecord(
        design=recipe.settings.lens,
        form=next(iter(maps.values())).form,
        site=recipe.settings.site,
        objective=recipe.settings.objective,
        **fitted_on(plan, cache),
        layers=plan.layers,
        heads=plan.heads,
        fit={
            **plan.settings,
            "min_position": recipe.min_position,
            "teacher": recipe.teacher,
            "steps": trainer.step_number,
            "most_steps": plan.steps,
            "rows_seen": trainer.rows_seen,
            "best_step": trainer.curves.best_steps,
            "rows_wanted": trainer.curves.rows_wanted(
                min(trainer.rows_seen, len(plan.train_shards) * cache.plan.settings.rows_per_shard),
                recipe.settings.tolerance,
            ),
            **{why: trainer.curves.ended_steps(why) for why in ENDINGS},
        },
        held_out=held_out,
        mean_output_kl=mean_output_kl,
        files={},
        software={"host": platform.node(), **{name: version(name) for name in packages}},
    )
