"""What heads say of the next token, by any of their readings: the one place where readings become distributions.

In: lenses with their model, values of the heads on a prompt. Out: log-probabilities over the vocabulary. `lens` is what can
be predicted from a head, `unembedding` its whole output read as the last residual, and `written` the model's mean output
with what the head writes added: a head that writes nothing says the mean output, and the log-odds of two tokens move by
the difference of their logits.
Shapes: H heads, T rows, E width of the site's values (d_head for z), V vocabulary.
"""

from collections.abc import Sequence

import torch

from alens.errors import RequestError
from alens.heads import Heads
from alens.reading.lensed_model import LensedModel

LENS, WRITTEN, UNEMBEDDING = "lens", "written", "unembedding"


def says(
    reader: LensedModel,
    reading: str,
    layer: int,
    heads: Sequence[int],
    values_HTE: torch.Tensor,
    scale_T: torch.Tensor,
) -> torch.Tensor:
    """(H, T, V) log-probabilities by this reading. `scale_T` is what the last norm divides each row by.

    Raises `RequestError` for a reading that `check` refuses.
    """
    if reading == LENS:
        return reader.lens(layer, heads, values_HTE)
    if reading == UNEMBEDDING:
        return reader.unembedding(layer, heads, values_HTE, scale_T)
    written_HTV = reader.writes.logits(layer, heads, values_HTE, scale_T)
    assert reader.log_mean_V is not None  # else `check` refuses
    with torch.inference_mode():
        return (reader.log_mean_V + written_HTV).log_softmax(-1)


def check(reader: LensedModel, reading: str, heads: Heads) -> None:
    """Raises `RequestError` where these lenses and their model do not have that reading of these heads."""
    if reading == UNEMBEDDING and reader.no_unembedding is not None:
        raise RequestError(f"{reader.no_unembedding}: it cannot be unembedded")
    if reading != WRITTEN:
        return
    if (why := reader.writes.lacking(heads)) is not None:
        raise RequestError(f"what heads write is not known: {why}")
    if reader.log_mean_V is None:
        raise RequestError(
            f"{reader.lenses.name} lacks the model's mean output, to which what heads write is added: take --by lens"
        )
