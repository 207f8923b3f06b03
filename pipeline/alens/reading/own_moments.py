"""What the lens of a head says on average: the base of lists by own lift and by z-score.

In: lenses with their model, and heads of a layer. Out: for each head the lens's reading of the mean z, and the spread of
its logits over rows. Both are exact for an affine lens, without a pass over rows: the mean of `w z + b` is that of the mean
z, its variance is `w' C w` with the covariance C of z.
Shapes: H heads, E d_head, V vocabulary.
"""

from collections.abc import Sequence

import torch

from alens.errors import RequestError
from alens.heads import Heads
from alens.lens.lenses import Lenses
from alens.lens.unembedded_maps import UnembeddedMaps
from alens.reading.lensed_model import LensedModel
from alens.reading.ranking import Own
from alens.reading.settings import OWN_LIFT, Z_SCORE
from alens.store.schema import ATTN_Z


def check(lenses: Lenses, heads: Heads, rank: str) -> None:
    """Raises `RequestError` where lists of these heads cannot be by own lift or z-score, and that is asked for."""
    if rank not in (OWN_LIFT, Z_SCORE):
        return
    if lenses.record.site != ATTN_Z:
        raise RequestError(
            f"these are lenses of {lenses.record.site}, and alens keeps no mean of it: rank by lift"
        )
    for layer, numbers in heads.by_layer.items():
        if isinstance(lenses.layer(layer).maps, UnembeddedMaps):
            continue
        if rank == Z_SCORE:
            raise RequestError(
                f"lenses of the design {lenses.record.design!r} do not hold how z spreads, as `regression` and `translator` do: "
                "rank by lift or own-lift"
            )
        if lenses.mean_z(layer, numbers) is None:
            raise RequestError(
                f"{lenses.name} does not hold the mean z of its heads (an earlier alens made it, or it was imported): rank by "
                "lift, or fit again"
            )


def own_moments(reader: LensedModel, layer: int, heads: Sequence[int], rank: str) -> list[Own | None]:
    """For each head, what its lens says on average, where `rank` needs it and `check` allows it."""
    if rank not in (OWN_LIFT, Z_SCORE):
        return [None] * len(heads)
    device, places = reader.model.device, [reader.lenses.place(layer, head) for head in heads]
    maps = reader.lenses.layer(layer).maps.to(device)
    mean_HE = maps.mean_HE[places] if isinstance(maps, UnembeddedMaps) else reader.lenses.mean_z(layer, heads)
    assert mean_HE is not None  # else `check` refuses
    with torch.inference_mode():
        log_probs_HV = torch.stack(
            [
                maps.logits(place, mean_E[None])[0]
                for place, mean_E in zip(places, mean_HE.to(device), strict=True)
            ]
        ).log_softmax(-1)
        if rank == Z_SCORE and isinstance(maps, UnembeddedMaps):
            return [
                (log_probs_V, maps.spread(place).sqrt())
                for log_probs_V, place in zip(log_probs_HV, places, strict=True)
            ]
    return [(log_probs_V, None) for log_probs_V in log_probs_HV]
