"""What a cache or lenses must know of the frozen model.

In: the model's files, and what `model/examine.py` and `model/last_norm.py` measured on the loaded model.
Out: `ModelRecord`, a part of plans and of `lens.json`.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

from alens.store.typed import STRICT, Count, Layers, Vocabulary, Width

MARGIN = {"float32": 8.0, "bfloat16": 2.0, "float16": 2.0}
"""Rounding of 16-bit results is the same in most places whatever the order of summing, so it needs less."""

FLOAT32_UNIT = 2.0**-24

LAYER_NORM, RMS_NORM, NO_NORM, OTHER_NORM = "layer", "rms", "none", "other"
"""Kinds of a model's last norm."""

EXACT_WRITE, FOLDED_WRITE, NORMED_WRITE, OTHER_WRITE = "exact", "folded", "normed", "other"
"""Whether z W_O of all heads, with the output bias, is what a layer's attention adds to the residual stream: as the
parameters hold W_O, with a factor of the block folded into it, or, folded with the gain of a norm behind attention, divided
by the scale of that norm at the row."""
FOLDS = (FOLDED_WRITE, NORMED_WRITE)
"""Where W_O of a cache or of lenses has a factor or a gain in it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NormRecord:
    """A norm, without its gain and offset."""

    __pydantic_config__ = STRICT

    kind: str
    """`layer`, `rms`, `none`, or `other`: a norm that alens does not know."""
    epsilon: float
    """Added to the variance, or to the mean square, before the root is taken."""

    @property
    def is_known(self) -> bool:
        return self.kind != OTHER_NORM


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """The frozen model, as far as a store or a lens must know it."""

    __pydantic_config__ = STRICT

    id: str
    """As the user named it: a hub id, a directory, or `demo`."""
    revision: str | None
    """The commit that a hub id resolved to."""
    weights_sha256: str
    """A hash over names, dtypes, shapes and bytes of all tensors that are loaded, in the order of their names."""
    architecture: str
    """The name of the Hugging Face class."""
    n_layers: Layers
    n_heads: Width
    d_head: Width
    d_model: Width
    d_vocab: Vocabulary
    n_ctx: Count
    weight_processing: str = "none"
    """TransformerLens can fold and centre weights; a cache holds the model as it is."""
    head_write: str | None = None
    """Measured: `exact` where z W_O of all heads, with the bias, is what attention adds to the residual stream of every
    cached layer; `folded` where it is with a factor in W_O; `normed` where it is with a gain in W_O too, divided by the scale
    of the norm behind attention; `other` where it is none of these, and in caches of an alens that did not know them. None: it
    was not measured."""
    final_norm: NormRecord | None = None
    """The model's last norm, as measured. None: it was not measured."""
    logit_cap: float | None = None
    """Measured: the model's logits are cap tanh(x / cap), with x = W_U final + b_U. None: they are not capped. A factor on
    the logits needs no field: `W_U` and `b_U` of a cache are multiplied by it."""
    attention_layers: tuple[int, ...] | None = None
    """The layers that have attention heads, of a model where some have none. None: all have, or it was not examined."""
    config: dict[str, Any] | None = None
    """The configuration, without defaults and without fields that do not change what is computed. None: the record is
    older than this field."""
    probe: dict[str, Any] | None = None
    """`tokens`, the model's `logits` of these tokens after the last of them, and the `dtype` it computed in. They are
    compared, but never part of an identity. None: the model was not loaded."""

    def __post_init__(self) -> None:
        """Raises `TypeError`: a record that is read may come from anywhere."""
        if not isinstance(self.config, dict | None):
            raise TypeError("config is not an object")
        if any(not 0 <= layer < self.n_layers for layer in self.attention_layers or ()):
            raise TypeError("attention_layers names a layer that the model does not have")
        if self.probe is not None and not _is_probe(self.probe):
            raise TypeError("probe is not tokens, logits and a dtype")
        if self.logit_cap is not None and not self.logit_cap > 0:
            raise TypeError("logit_cap is not above 0")

    @property
    def name(self) -> str:
        """The model's name in pages and exports. Of a directory it is the last part: the rest may name users and projects."""
        return Path(self.id).name if Path(self.id).is_absolute() else self.id

    @property
    def layers_with_heads(self) -> tuple[int, ...]:
        """The layers that can be cached, as far as is known."""
        return tuple(range(self.n_layers)) if self.attention_layers is None else self.attention_layers

    @property
    def keeps_norm(self) -> bool:
        """Whether a cache of this model holds gain, offset and scales of the last norm."""
        return self.final_norm is not None and self.final_norm.is_known

    @property
    def keeps_write_scale(self) -> bool:
        """Whether a cache of this model holds the scales of norms behind attention."""
        return self.head_write == NORMED_WRITE

    def rounding(self, dtype: str) -> float:
        """How far summing in another order may move any value of a row, as a share of the row's largest value, where
        the model computes in `dtype`. `alens.cache.tolerance` derives the formula."""
        unit = {"bfloat16": 2.0**-8, "float16": 2.0**-11}.get(
            dtype, FLOAT32_UNIT * math.sqrt(4 * self.d_model)
        )
        return MARGIN[dtype] * math.sqrt(8 * self.n_layers) * unit

    @property
    def no_fixed_write(self) -> str | None:
        """Why what a head writes is not a linear map of its z, the same at every row, for a message; None where it is."""
        if self.head_write == NORMED_WRITE:
            return (
                f"{self.architecture} has a norm behind its attention, so what a head writes is z W_O divided by another number "
                "at each row"
            )
        return self.no_write if self.head_write == OTHER_WRITE else None

    @property
    def no_write(self) -> str | None:
        """Why the output of a head cannot be unembedded, for a message. None: it can, as far as was measured."""
        if self.head_write == OTHER_WRITE:
            return f"{self.architecture} has a norm or a factor behind its attention, so z W_O is not what a head writes"
        if self.final_norm is not None and not self.final_norm.is_known:
            return f"the last norm of {self.architecture} is neither a layer norm nor an RMS norm"
        return None


def _is_probe(value: Any) -> bool:
    """Whether `value` has the form of `ModelRecord.probe`."""
    if not isinstance(value, dict) or value.get("dtype") not in MARGIN:
        return False
    tokens, logits = value.get("tokens"), value.get("logits")
    return (
        isinstance(tokens, list)
        and isinstance(logits, list)
        and len(tokens) == len(logits) > 0
        and all(isinstance(number, int | float) and math.isfinite(number) for number in [*tokens, *logits])
    )
