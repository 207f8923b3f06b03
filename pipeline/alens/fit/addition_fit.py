"""What fits of effect and Jacobian lenses share: what they take, their plan, and the lens directory that they write.

In: a `FitRequest`, a cache, and what makes the tensors of a layer. Out: a `FitPlan` without steps, and a lens directory.
"""

import dataclasses
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Protocol

import torch

from alens.errors import RequestError, StoppedError
from alens.fit.distributed import alone
from alens.fit.fit_plan import FitPlan, begun, check_same, fitted_on, put_plan
from alens.fit.hold import held
from alens.fit.launch import this_launch
from alens.fit.settings import FitRequest, FitSettings
from alens.heads import Heads
from alens.job.progress import Report, ShouldStop, counted
from alens.lens.directory import LensDirectory, layer_file
from alens.lens.effect_lenses import EffectLenses
from alens.lens.record import LensRecord
from alens.rows.final_norm import FinalNorm
from alens.store.cache_reader import Cache
from alens.store.durable import write_errors

TAKEN = "lens", "layers", "heads", "seed"
"""The settings that a fit without training, teacher and objective takes."""


class AdditionFit(Protocol):
    """Makes the lenses of one form. Attributes: `form`; `stage`, what is done, in a few words."""

    form: str
    stage: str

    def layer(self, layer: int) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
        """The tensors of a layer's file, and the figures of its heads."""

    def note(self, figures: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
        """What `fit` of the record says beside the settings, from the figures by layer."""


def check_additions(request: FitRequest, cache: Cache, instead: str, taken: tuple[str, ...] = TAKEN) -> None:
    """Raises `RequestError` for settings of other designs, and for a cache without the last norm. `instead` says what these
    lenses are fitted to."""
    for one in dataclasses.fields(FitSettings):
        default = one.default if one.default is not dataclasses.MISSING else {}
        if one.name not in taken and getattr(request.settings, one.name) != default:
            raise RequestError(
                f"{one.name} is for lenses that are fitted to the model's output, and {instead}: leave it out"
            )
    if FinalNorm.of_cache(cache) is None:
        raise RequestError(
            f"{cache.root} does not hold the model's last norm, which a direct write needs: an earlier alens made it, or the "
            "norm is of another kind; cache the text again"
        )


def addition_plan(
    request: FitRequest, cache: Cache, heads: Heads, train: Sequence[int], held_out: Sequence[int]
) -> FitPlan:
    """The plan of the requested fit. Raises `RequestError` where another fit was begun in LENSES."""
    plan = FitPlan(
        cache_plan=cache.plan.identity,
        settings=request.settings.to_json(),
        steps=0,
        layers=heads.layers,
        heads=heads.as_json,
        train_shards=tuple(train),
        held_out_shards=tuple(held_out),
    )
    earlier = begun(LensDirectory(request.lenses))
    if earlier is not None:
        check_same(request, request.settings, cache, earlier)
    return plan


def put_additions(
    request: FitRequest,
    plan: FitPlan,
    cache: Cache,
    fit: AdditionFit,
    *,
    report: Report,
    should_stop: ShouldStop,
) -> LensRecord:
    """Write the lenses that `request` asks for. Raises what `fit_lenses` raises; when stopped, nothing is kept."""
    if this_launch().world_size > 1:
        raise RequestError(f"{fit.form} takes no steps, which processes could share: run it as one process")
    directory, processes = LensDirectory(request.lenses), alone(request.device)
    with held(request.lenses, processes, should_stop) as hold:
        put_plan(directory, plan)
        directory.clear_stopped()
        files, figures = {}, {}
        for layer in counted(plan.layers, report, fit.stage, "layers"):
            if should_stop():
                directory.mark_stopped(0, 0)
                raise StoppedError("stopped, and nothing was written: run the same command again")
            tensors, figures[str(layer)] = fit.layer(layer)
            hold.check()
            with write_errors(directory.root):
                files[layer_file(layer)] = directory.put_layer(
                    layer, plan.lenses.by_layer[layer], tensors, halves=(fit.form, "W_O")
                )
        cache.check_unchanged()
        with write_errors(directory.root):
            directory.put_record(_record(cache, plan, fit.form, fit.note(figures), files))
    return EffectLenses(directory.root).record


def _record(
    cache: Cache, plan: FitPlan, form: str, note: dict[str, Any], files: dict[str, dict[str, Any]]
) -> LensRecord:
    return LensRecord(
        design=form,
        form=form,
        site="attn.z",
        objective=None,
        **fitted_on(plan, cache),
        layers=plan.layers,
        heads=plan.heads,
        fit={**plan.settings, "steps": 0, "most_steps": 0, **note},
        held_out={},
        files=files,
        software={
            "python": platform.python_version(),
            **{name: version(name) for name in ("alens", "torch")},
        },
    )
