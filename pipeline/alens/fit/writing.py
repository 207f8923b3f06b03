"""The end of a fit: figures on all held-out rows, and the lens directory.

In: a `Trainer` that has finished. Out: a safetensors file a layer, the mean output, and `lens.json`, written last.
"""

import logging
import platform
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any

import torch

from alens.evaluation.figures import HeadFigures
from alens.evaluation.training import text_of_fit
from alens.fit.trainer import Trainer
from alens.lens.maps import LensMaps, TranslatedMaps
from alens.lens.record import LensRecord, put_record
from alens.lens.saved import OUTPUT, UNEMBEDDING, Lenses, layer_file, put_layer, put_tensors
from alens.store.durable import write_errors
from alens.store.schema import ATTN_Z

log = logging.getLogger("alens")

NAMED = 5
"""Of the lenses that a warning is about."""


def put_lenses(trainer: Trainer) -> LensRecord:
    """Write what was fitted; `lens.json` last, then the checkpoints are no longer needed. Collective."""
    maps = trainer.maps()
    sums, mean_output_kl = trainer.figures(maps)
    figures = {layer: of.means() for layer, of in sums.items()}
    if trainer.processes.first:
        nothing = _says_nothing(trainer, figures, mean_output_kl)
        _warn(trainer, nothing, mean_output_kl)
        root = trainer.lenses
        with write_errors(root):
            record = _record(trainer, maps, _marked(figures, nothing), mean_output_kl)
            put_record(root, replace(record, files=put_maps(trainer, maps)))
        trainer.drop_checkpoints()
    trainer.processes.wait()
    return Lenses(trainer.lenses).record


Nothing = dict[int, list[bool]]
"""By layer, for each head: whether it does no better than the mean output."""


def _says_nothing(
    trainer: Trainer, figures: Mapping[int, list[HeadFigures]], mean_output_kl: float
) -> Nothing:
    """Of lenses that were fitted to this KL alone; of others it is not said."""
    to_this_kl = trainer.settings.objective == "forward-kl"
    return {
        layer: [
            to_this_kl and trainer.num_losses[layer] == len(of) and head.kl >= mean_output_kl for head in of
        ]
        for layer, of in figures.items()
    }


def _marked(figures: Mapping[int, list[HeadFigures]], nothing: Nothing) -> dict[str, list[dict[str, Any]]]:
    """As `LensRecord.held_out` has them."""
    return {
        str(layer): [
            {**asdict(head), **({"says_nothing": True} if marked else {})}
            for head, marked in zip(of, nothing[layer], strict=True)
        ]
        for layer, of in figures.items()
    }


def _warn(trainer: Trainer, nothing: Nothing, mean_output_kl: float) -> None:
    """Names the lenses that do no better than a reader that looks at nothing."""
    named = [
        f"{layer}.{head}"
        for layer, marked in nothing.items()
        for head, is_nothing in zip(trainer.plan.heads, marked, strict=True)
        if is_nothing
    ]
    if named:
        log.warning(
            "%s: %d of %d lenses have a held-out KL above that of the mean output, %.3f nats (%s): they say nothing; "
            "take a lower --lr, or more rows",
            trainer.lenses,
            len(named),
            sum(map(len, nothing.values())),
            mean_output_kl,
            ", ".join(named[:NAMED]) + (", ..." if len(named) > NAMED else ""),
        )


def put_maps(trainer: Trainer, maps: Mapping[int, LensMaps]) -> dict[str, dict[str, Any]]:
    """The safetensors files; size and hash of each."""
    root, recipe, files = trainer.lenses, trainer.recipe, {}
    W_O_LHED = torch.from_numpy(recipe.cache.weights("W_O"))
    for layer, of in maps.items():
        tensors = of.tensors()
        if recipe.settings.site == ATTN_Z:
            tensors = {**tensors, "W_O": W_O_LHED[layer, list(recipe.heads)]}
        files[layer_file(layer)] = put_layer(root, layer, trainer.plan.heads, tensors)
    if isinstance(of, TranslatedMaps):
        files[UNEMBEDDING] = put_tensors(root, UNEMBEDDING, {"W_U": of.W_U_DV, "b_U": of.b_U_V})
    log_mean_output_V = next(iter(trainer.grounds.values())).log_mean_output_V
    files[OUTPUT] = put_tensors(root, OUTPUT, {"log_mean_output": log_mean_output_V})
    return files


def _record(
    trainer: Trainer,
    maps: Mapping[int, LensMaps],
    held_out: dict[str, list[dict[str, Any]]],
    mean_output_kl: float,
) -> LensRecord:
    recipe, plan, cache = trainer.recipe, trainer.plan, trainer.recipe.cache
    packages = ("alens", "torch", "deepspeed")
    return LensRecord(
        design=recipe.settings.lens,
        form=next(iter(maps.values())).form,
        site=recipe.settings.site,
        objective=recipe.settings.objective,
        model=cache.plan.model,
        cache={
            "plan": plan.cache_plan,
            "fingerprint": cache.fingerprint,
            "corpus": {name: getattr(cache.plan.corpus, name) for name in ("id", "revision", "split")},
            "text": text_of_fit(cache, plan.train_shards),
            "train_shards": list(plan.train_shards),
            "held_out_shards": list(plan.held_out_shards),
        },
        layers=plan.layers,
        heads=plan.heads,
        fit={
            **plan.settings,
            "min_position": recipe.min_position,
            "teacher": recipe.teacher,
            "steps": trainer.step_number,
            "most_steps": plan.steps,
            "rows_seen": trainer.step_number * recipe.settings.batch_rows,
            "converged": trainer.converged,
        },
        held_out=held_out,
        mean_output_kl=mean_output_kl,
        files={},
        software={"host": platform.node(), **{name: version(name) for name in packages}},
    )
