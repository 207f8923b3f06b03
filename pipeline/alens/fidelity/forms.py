"""The forms that z and targets can be stored in: which ones to compare with what a cache holds.

In: the settings of a cache, and the numbers that were asked for. Out: `ZForm`s that are coarser than the stored form, and
`TargetForm`s. Nothing is read or written. A finer form than the stored one is impossible: what was rounded is lost.
Shapes: N rows, H heads, E d_head.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from alens.errors import RequestError, RunError
from alens.store.encoding import Float16, dequantise, limit, quantise, round_bits
from alens.store.model_record import ModelRecord
from alens.store.schema import FLOAT16_MANTISSA_BITS, CacheSettings

KEEP_BITS = tuple(range(2, FLOAT16_MANTISSA_BITS))
TOP_K = (16, 32, 64, 128)
TAIL_SAMPLES = (16, 64)

INT8_BITS = 5
"""Rounding to this many mantissa bits or fewer costs more than int8 does (docs/fidelity.md)."""


@dataclass(frozen=True)
class ZForm:
    """How z is stored."""

    z_dtype: Literal["float16", "int8"]
    keep_bits: int | None

    @property
    def name(self) -> str:
        return self.z_dtype if self.keep_bits is None else f"keep_bits {self.keep_bits}"

    def decoded(self, z_NHE: Float16, layer: int) -> Float16:
        """z as a reader of this form sees it. Raises `RunError` where rounding would overflow float16."""
        if self.z_dtype == "int8":
            return dequantise(*quantise(z_NHE))
        return z_NHE if self.keep_bits is None else rounded(z_NHE, self.keep_bits, layer)

    def put_into(self, settings: CacheSettings) -> CacheSettings:
        return dataclasses.replace(settings, z_dtype=self.z_dtype, keep_bits=self.keep_bits)


@dataclass(frozen=True)
class TargetForm:
    """How many of the most probable tokens are kept, and how many draws represent the rest."""

    top_k: int
    tail_samples: int

    @property
    def name(self) -> str:
        return f"top {self.top_k}, {self.tail_samples} samples"

    def bytes_per_row(self, model: ModelRecord) -> int:
        """Bytes of ids, float16 log-probabilities, logsumexp and entropy; targets are never compressed."""
        id_bytes = 2 if model.d_vocab <= 65_535 else 4
        return self.top_k * (id_bytes + 2) + self.tail_samples * id_bytes + 8

    def put_into(self, settings: CacheSettings) -> CacheSettings:
        return dataclasses.replace(settings, top_k=self.top_k, tail_samples=self.tail_samples)


def rounded(z_NHE: Float16, keep_bits: int, layer: int) -> Float16:
    """z rounded to this many mantissa bits. Raises `RunError` for values that would become infinite."""
    largest = float(np.abs(z_NHE).max(initial=0))
    if not largest < limit(keep_bits):
        raise RunError(
            f"z of layer {layer} reaches {largest}, which {keep_bits} mantissa bits cannot hold: leave {keep_bits} out of --keep-bits"
        )
    return round_bits(z_NHE, keep_bits)


def stored_z(settings: CacheSettings) -> ZForm:
    """The form of z in a cache with these settings."""
    return ZForm(settings.z_dtype, settings.keep_bits)


def stored_targets(settings: CacheSettings) -> TargetForm:
    """The form of targets in a cache with these settings."""
    return TargetForm(settings.top_k, settings.tail_samples)


def coarser_z(settings: CacheSettings, keep_bits: Sequence[int] | None) -> tuple[ZForm, ...]:
    """int8 and the requested numbers of mantissa bits, where they are coarser than the stored z."""
    asked = KEEP_BITS if keep_bits is None else keep_bits
    for bits in asked:
        if not 0 <= bits < FLOAT16_MANTISSA_BITS:
            raise RequestError(f"keep_bits is {bits}: give numbers in 0 to {FLOAT16_MANTISSA_BITS - 1}")
    forms = [ZForm("float16", bits) for bits in sorted(set(asked), reverse=True)]
    if settings.z_dtype == "int8":
        return tuple(form for form in forms if (form.keep_bits or 0) <= INT8_BITS)
    if settings.keep_bits is None:
        return (*forms, ZForm("int8", None))
    kept = settings.keep_bits
    coarser = [form for form in forms if (form.keep_bits or 0) < kept]
    return (*coarser, ZForm("int8", None)) if kept > INT8_BITS else tuple(coarser)


def other_targets(
    settings: CacheSettings,
    model: ModelRecord,
    top_k: Sequence[int] | None,
    tail_samples: Sequence[int] | None,
) -> tuple[TargetForm, ...]:
    """Every requested k with every requested m, except the stored pair; none without the exact teacher."""
    for k in top_k or ():
        if not 1 <= k <= model.d_vocab:
            raise RequestError(
                f"top_k is {k}: {model.id} has {model.d_vocab} tokens in its vocabulary, give 1 to {model.d_vocab}"
            )
    for m in tail_samples or ():
        if m < 1:
            raise RequestError(f"tail_samples is {m}: it must be at least 1")
    if not settings.exact_teacher:
        return ()
    ks = [k for k in TOP_K if k <= model.d_vocab] if top_k is None else sorted(set(top_k))
    ms = TAIL_SAMPLES if tail_samples is None else sorted(set(tail_samples))
    forms = [TargetForm(k, m) for k in ks for m in ms]
    return tuple(form for form in forms if form != stored_targets(settings))
