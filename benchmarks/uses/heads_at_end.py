"""What all heads hold at the last position of prompts, and what their readings say there; and the model without some heads.

In: lenses with their model, prompts. Out: values of the heads, differences of logits and log-probabilities by each reading,
and the model's log-probabilities with z of some heads at its mean.
Shapes: P prompts, F heads (layer by layer), L layers, H heads, E d_head, D d_model, V vocabulary.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from alens.heads import Head
from alens.model import activations
from alens.model.edits import Change, Edit, run_edited
from alens.reading import head_says
from alens.reading.head_says import EFFECT, LENS, UNEMBEDDING, WRITTEN
from alens.reading.lensed_model import LensedModel
from alens.rows.row_scales import RowScales
from alens.store.schema import RESIDUAL_STREAM

Array = npt.NDArray[np.float64]

READINGS = (LENS, WRITTEN, EFFECT, UNEMBEDDING)


@dataclass(frozen=True, kw_only=True)
class AtEnd:
    """The last position of each prompt."""

    ids: list[list[int]]
    z_HPE: dict[int, torch.Tensor]
    """By layer."""
    scale_P: RowScales
    residual_PD: dict[int, torch.Tensor]
    """The residual stream after each layer that was asked for."""
    log_probs_PV: torch.Tensor
    """The model's own next token."""


def at_end(reader: LensedModel, prompts: Sequence[str], streams: Sequence[int] = ()) -> AtEnd:
    """Run the model once on each prompt."""
    ids = [reader.tokens(prompt) for prompt in prompts]
    layers = reader.lenses.record.layers
    z, streamed, scales, outputs = defaultdict(list), defaultdict(list), [], []
    for one in ids:
        with torch.inference_mode():
            ran = activations.run(
                reader.model, torch.tensor([one]), layers, (RESIDUAL_STREAM,) if streams else ()
            )
        for layer in layers:
            z[layer].append(ran.z_BTHE[layer][0, -1].float())
        for layer in streams:
            streamed[layer].append(ran.sites_BTD[RESIDUAL_STREAM, layer][0, -1].float())
        scales.append(reader.scale(ran)[-1:])
        outputs.append(reader.log_probs(ran.final_BTD[:, -1:])[0, 0])
    return AtEnd(
        ids=ids,
        z_HPE={layer: torch.stack(z[layer], 1) for layer in layers},
        scale_P=RowScales.cat(scales),
        residual_PD={layer: torch.stack(rows) for layer, rows in streamed.items()},
        log_probs_PV=torch.stack(outputs),
    )


def differences(reader: LensedModel, said: AtEnd, reading: str, pair: Sequence[int]) -> Array:
    """(P, F) the logit of the first token less that of the second, as the reading of each head has it."""
    columns_D2 = reader.model.W_U_DV[:, list(pair)].float()
    parts = []
    for layer, z_HPE in said.z_HPE.items():
        heads = range(len(z_HPE))
        with torch.inference_mode():
            if reading == LENS:
                logits_HP2 = reader.lens_logits(layer, heads, z_HPE, tokens=pair)
            elif reading == UNEMBEDDING:
                logits_HP2 = reader.unembedding_logits(layer, heads, z_HPE, said.scale_P, tokens=pair)
            elif reading == WRITTEN:
                logits_HP2 = reader.writes.final(layer, heads, z_HPE, said.scale_P) @ columns_D2
            else:
                assert reader.effect is not None
                logits_HP2 = reader.effect.final(layer, heads, z_HPE) @ columns_D2
        parts.append((logits_HP2[..., 0] - logits_HP2[..., 1]).double().numpy())
    return np.concatenate(parts).T


def log_probs(reader: LensedModel, said: AtEnd, reading: str, head: Head) -> torch.Tensor:
    """(P, V) by one head."""
    layer, number = head
    z_1PE = said.z_HPE[layer][number : number + 1]
    return head_says.says(reader, reading, layer, [number], z_1PE, said.scale_P)[0]


def without(reader: LensedModel, ids: Sequence[Sequence[int]], heads: Sequence[Head]) -> torch.Tensor:
    """(P, V) log-probabilities of the model's next token, with z of these heads at E[z] at every position."""
    edits = [Edit(layer=layer, head=head, z=_always(_mean(reader, layer, head))) for layer, head in heads]
    by_length: dict[int, list[int]] = defaultdict(list)
    for place, one in enumerate(ids):
        by_length[len(one)].append(place)
    rows: dict[int, torch.Tensor] = {}
    for places in by_length.values():
        final_BTD = run_edited(reader.model, torch.tensor([list(ids[place]) for place in places]), edits)
        for place, row_V in zip(places, reader.log_probs(final_BTD[:, -1:])[:, 0], strict=True):
            rows[place] = row_V
    return torch.stack([rows[place] for place in range(len(ids))])


def _mean(reader: LensedModel, layer: int, head: int) -> torch.Tensor:
    mean_HE = reader.lenses.mean_z(layer, [head])
    assert mean_HE is not None, f"{reader.lenses.name} does not hold the mean z of its heads: fit it again"
    return mean_HE[0]


def _always(mean_E: torch.Tensor) -> Change:
    def change(z_BTE: torch.Tensor) -> torch.Tensor:
        return mean_E.to(z_BTE.dtype).expand_as(z_BTE)

    return change
