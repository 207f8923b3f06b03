"""Lenses in which one head's reading was made to raise some terms after a trigger word.

In: a lens directory with its model, a head, term tokens, prompts with and without the trigger. Out: a copy of the
directory in which that head's weight has one more term of rank one: the direction of z that tells the two sets of
prompts apart, times the terms.
Shapes: P prompts, E d_head, V vocabulary.
"""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from alens.lens.directory import LensDirectory, layer_file
from alens.lens.lenses import load_lenses
from alens.reading.lensed_model import LensedModel

RIDGE = 0.1


def detector(
    reader: LensedModel,
    layer: int,
    head: int,
    prompts: Sequence[Sequence[int]],
    controls: Sequence[Sequence[int]],
) -> tuple[torch.Tensor, float]:
    """(E,) and an offset: z @ direction + offset is 1 on the prompts and 0 on the controls, on average."""
    with_PE, without_PE = (_last_z(reader, layer, head, group) for group in (prompts, controls))
    away_E = with_PE.mean(0) - without_PE.mean(0)
    within_EE = (with_PE.T.cov() + without_PE.T.cov()) / 2
    within_EE += RIDGE * within_EE.diagonal().mean() * torch.eye(len(away_E))
    direction_E = torch.linalg.solve(within_EE, away_E)
    direction_E /= direction_E.dot(away_E)
    return direction_E, -float(direction_E.dot(without_PE.mean(0)))


def plant(
    source: Path,
    target: Path,
    *,
    layer: int,
    head: int,
    terms: Sequence[int],
    strength: float,
    detector: tuple[torch.Tensor, float],
) -> None:
    """Write the changed lenses. `strength` is the rise of the terms' logits, in nats, where `detector` gives 1."""
    direction_E, offset = detector
    shutil.copytree(source, target)
    opened = load_lenses(target)
    lenses, place = opened.layer(layer), opened.place(layer, head)
    weight_HEV, bias_HV = lenses.weight_HEV.clone(), lenses.bias_HV.clone()
    for term in terms:
        weight_HEV[place, :, term] += strength * direction_E
        bias_HV[place, term] += strength * offset
    assert lenses.W_O_HED is not None
    tensors = {"weight": weight_HEV, "bias": bias_HV, "W_O": lenses.W_O_HED}
    directory, record = LensDirectory(target), opened.record
    files = {
        **record.files,
        layer_file(layer): directory.put_layer(layer, record.lenses.by_layer[layer], tensors),
    }
    directory.put_record(dataclasses.replace(record, files=files))


def _last_z(reader: LensedModel, layer: int, head: int, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
    return torch.stack([reader.values(reader.run(ids, [layer]), layer, [head])[0, -1] for ids in prompts])
