"""Layers one after the other: a fit that does not fit into memory whole takes groups of layers in turn.

In: a request, a recipe, and the memory that is free. Out: the groups, which `fit.json` holds, so that a resumed fit is the
same fit on another machine; and the record of the whole fit, joined from those of its groups. Layers share rows, seed and
nothing else, so a group's lenses are those of a fit of all layers, bit for bit. `training_loop` fits group after group.
"""

import dataclasses
import gc
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from alens.errors import DamageError
from alens.fit.distributed import Processes
from alens.fit.fit_plan import FitPlan, divided
from alens.fit.recipe import Recipe
from alens.lens.directory import GroupDirectory, LensDirectory, layer_file
from alens.lens.record import LensRecord
from alens.machine.allotment import free_bytes
from alens.store import document, typed

log = logging.getLogger("alens")

T = TypeVar("T")

WEIGHT_BYTES = 24
"""Bytes a weight in float32: the weight, its gradient, two moments and the average; the average again in an evaluation."""

SAVED_BYTES = 16
"""Further bytes a weight while the partitions of ZeRO are gathered for a checkpoint."""

SHARE = 0.8
"""The share of the free memory that a fit takes."""

ROWS_BYTES = 2**30
"""What rows, teachers and tiles take beside the weights."""


def with_groups(
    plan: FitPlan, recipe: Recipe, processes: Processes, asked: int | None, *, zero: int
) -> FitPlan:
    """The plan with groups of as many layers as asked for, or as fit into the memory of every process. Collective."""
    most = 1 if asked is None and len(plan.layers) == 1 else asked
    if most is None:
        most_W = torch.zeros(processes.world_size, dtype=torch.float64, device=processes.device)
        most_W[processes.rank] = _most_layers(plan, recipe, processes, zero)
        most = int(processes.sum(most_W).min())
    return dataclasses.replace(plan, groups=divided(plan.layers, most))


def _most_layers(plan: FitPlan, recipe: Recipe, processes: Processes, zero: int) -> int:
    """How many layers fit into the memory of this process if all have as many heads as the largest, at least one."""
    free = free_bytes(processes.device)
    if processes.device.type == "cpu":  # its memory may be that of all processes
        free //= processes.world_size
    largest = max(plan.layers, key=lambda layer: len(plan.lenses.by_layer[layer]))
    (ground,) = recipe.of_layers((largest,)).grounds(plan.train_shards).values()
    design = recipe.design(ground)
    weights = sum(parameter.numel() for parameter in design.parameters())
    maps_bytes = sum(tensor.nbytes for tensor in design.maps().tensors().values())
    layer_bytes = (
        weights * (WEIGHT_BYTES + (SAVED_BYTES if zero else 0)) + 2 * maps_bytes
    )  # now, and the best
    return max(1, int((SHARE * free - ROWS_BYTES) // max(1, layer_bytes)))


def fit_groups(
    plan: FitPlan,
    recipe: Recipe,
    processes: Processes,
    lenses: Path,
    fit: Callable[[Recipe, FitPlan, LensDirectory, int, int], T],
    check: Callable[[], None],
) -> list[T]:
    """`fit` each group that is not finished, by its number among all; then write `lens.json`. Collective.

    `check` is called before that, as before all that the next holder of the directory would read.
    """
    assert plan.groups is not None, "a fit of one group needs no others"
    results = []
    for number, layers in enumerate(plan.groups):
        directory = GroupDirectory(lenses, layers)
        if processes.any(processes.first and group_record(directory) is not None):
            continue
        log.info("layers %s, group %d of %d", ", ".join(map(str, layers)), number + 1, len(plan.groups))
        some = recipe.of_layers(layers), plan.of_group(layers)
        results.append(fit(*some, directory, number, len(plan.groups)))
        gc.collect()  # DeepSpeed's engine refers to itself, and the next group needs its memory
    check()
    processes.first_does(lambda: put_joined(LensDirectory(lenses), plan))
    return results


def group_record(directory: LensDirectory) -> LensRecord | None:
    """What a group's lenses are, where it is finished; None where it is not. Raises `DamageError` when it was altered."""
    path, mend = directory.lens_json, f"delete {directory.lens_json} to fit these layers again"
    try:
        body = document.decode(document.content(path, mend), str(path), mend)
    except FileNotFoundError:
        return None
    del body["format"]
    record = typed.parse(LensRecord, body, str(path), mend)
    missing = [name for name in record.files if not (directory.root / name).is_file()]
    if missing:
        raise DamageError(f"{directory.root / missing[0]} is missing: {mend}")
    return record


def put_joined(directory: LensDirectory, plan: FitPlan) -> None:
    """Write `lens.json` of all groups, when each is finished; then their own records are no longer needed."""
    assert plan.groups is not None, "a fit of one group writes its own"
    records = [group_record(GroupDirectory(directory.root, layers)) for layers in plan.groups]
    directory.put_record(joined(plan, [record for record in records if record is not None]))
    shutil.rmtree(directory.groups, ignore_errors=True)


def joined(plan: FitPlan, records: Sequence[LensRecord]) -> LensRecord:
    """The record of all lenses, as a fit of all layers at once would have written it."""
    fit: dict[str, Any] = {}
    for record in records:
        for name, value in record.fit.items():
            if isinstance(value, dict):  # by name of a lens, or the same in each group
                fit[name] = {**fit.get(name, {}), **value}
            else:
                fit[name] = max(fit[name], value) if name in ("steps", "rows_seen") and name in fit else value
    files = {name: file for record in records for name, file in record.files.items()}
    of_layers = [layer_file(layer) for layer in plan.layers]
    return dataclasses.replace(
        records[-1],
        layers=plan.layers,
        heads=plan.heads,
        fit=fit,
        held_out={layer: heads for record in records for layer, heads in record.held_out.items()},
        files={
            name: files[name] for name in [*of_layers, *(name for name in files if name not in of_layers)]
        },
    )
