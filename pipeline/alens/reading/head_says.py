"""What heads say of the next token, by any of their readings: the one place where readings become distributions.

In: lenses with their model, values of the heads on a prompt. Out: log-probabilities over the vocabulary. `lens` is what can
be predicted from a head, `unembedding` its whole output read as the last residual, and `written` the model's mean output
with what the head writes added: a head that writes nothing says the mean output, and the log-odds of two tokens move by
the difference of their logits. `effect` is the same with what its effect lens says that it adds, later layers included.
Shapes: H heads, T rows, E width of the site's values (d_head for z), V vocabulary.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from alens.errors import RequestError
from alens.heads import Heads
from alens.lens.effect_lenses import EffectLenses, load_effect_lenses
from alens.reading.lensed_model import LensedModel
from alens.rows.direct_write import centred_logits
from alens.rows.row_scales import RowScales

LENS, WRITTEN, EFFECT, UNEMBEDDING = "lens", "written", "effect", "unembedding"

NO_EFFECT_LENSES = (
    "by effect needs effect lenses of the same model (`alens fit --lens effect`): name them with --effect"
)


def says(
    reader: LensedModel,
    reading: str,
    layer: int,
    heads: Sequence[int],
    values_HTE: torch.Tensor,
    scale_T: RowScales,
) -> torch.Tensor:
    """(H, T, V) log-probabilities by this reading. `scale_T` is what norms divide each row by.

    Heads and reading are those that `known` lets through.
    """
    if reading == LENS:
        return reader.lens(layer, heads, values_HTE)
    if reading == UNEMBEDDING:
        return reader.unembedding(layer, heads, values_HTE, scale_T)
    assert reader.log_mean_V is not None  # else `known` refuses
    with torch.inference_mode():
        if reading == WRITTEN:
            added_HTV = reader.writes.logits(layer, heads, values_HTE, scale_T)
        else:
            assert reader.effect is not None  # else `known` refuses
            final_HTD = reader.effect.final(layer, heads, values_HTE, scale_T.final_N)
            added_HTV = centred_logits(final_HTD, reader.model.W_U_DV)
        return (reader.log_mean_V + added_HTV).log_softmax(-1)


def known(reader: LensedModel, reading: str, heads: Heads) -> tuple[Heads, list[str]]:
    """Those of these heads that have the reading, and a note where some lack it.

    Raises `RequestError` where these lenses and their model do not have that reading of any.
    """
    if reading == UNEMBEDDING and reader.no_unembedding is not None:
        raise RequestError(f"{reader.no_unembedding}: it cannot be unembedded")
    if reading in (LENS, UNEMBEDDING):
        return heads, []
    if reading == WRITTEN and (why := reader.writes.lacking(heads)) is not None:
        raise RequestError(f"what heads write is not known: {why}")
    if reading == EFFECT and reader.effect is None:
        raise RequestError(NO_EFFECT_LENSES)
    if reader.log_mean_V is None:
        raise RequestError(
            f"{reader.lenses.name} lacks the model's mean output, to which what heads write is added: take --by lens"
        )
    return (heads, []) if reader.effect is None or reading != EFFECT else with_effect(reader.effect, heads)


def with_effect(effect: EffectLenses, heads: Heads) -> tuple[Heads, list[str]]:
    """The heads that have effect lenses, and a note where some have none. Raises `RequestError` where none has."""
    having = [head for head in heads if effect.has(*head)]
    if not having:
        raise RequestError(
            f"{effect.name} holds an effect lens of none of the heads {heads}: it has {effect.record.lenses}"
        )
    missing = len(heads) - len(having)
    note = f"heads without an effect lens in {effect.name}, which are left out: {missing} of {len(heads)}"
    return Heads(tuple(having)), [note] if missing else []


def open_effect_lenses(path: Path | None, *, wanted: bool) -> EffectLenses | None:
    """The effect lenses of a study, which it needs where it reads heads by them.

    Raises `RequestError` where they are wanted and not named, or named and not wanted.
    """
    if wanted and path is None:
        raise RequestError(NO_EFFECT_LENSES)
    if path is None:
        return None
    if not wanted:
        raise RequestError(
            "--effect names effect lenses, and nothing is read by them: say --by effect, or leave it out"
        )
    return load_effect_lenses(path)
