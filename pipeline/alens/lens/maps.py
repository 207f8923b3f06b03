"""What a fitted lens does to a value: the maps of one layer's heads, from the values of a site to logits.

In: tensors of a fit or of a lens directory. Out: logits of any head for any rows. `AffineMaps` are what most designs
become; `TranslatedMaps` are a map into the residual stream, a norm and the model's unembedding, as in the Tuned Lens
("Eliciting Latent Predictions", arXiv 2303.08112).
Shapes: N rows, H heads, E width of the site's values (d_head for z), D d_model, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Protocol, Self

import torch

from alens.errors import RequestError
from alens.rows.final_norm import normed
from alens.store.model_record import LAYER_NORM, NormRecord

OLD_NORM = NormRecord(kind=LAYER_NORM, epsilon=1e-5)
"""The norm that is taken for lenses and caches from before the model's last norm was kept: that of GPT-2 and of the Tuned
Lens."""


class LensMaps(Protocol):
    """The maps of one layer's heads."""

    form: ClassVar[str]
    """The name of the form in `lens.json`."""

    @property
    def num_heads(self) -> int: ...

    def logits(self, head: int, z_NE: torch.Tensor) -> torch.Tensor:
        """(N, V) float32 logits of the lens at place `head`, for values of any float dtype."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """What is saved for this layer, by name."""

    def shared_tensors(self) -> dict[str, torch.Tensor]:
        """What is saved once for all layers, by name: the unembedding, where the maps end in it."""

    def to(self, device: torch.device) -> Self: ...

    def select(self, heads: Sequence[int]) -> Self:
        """Only these lenses, in this order; `heads` are places on the first axis."""

    def columns(self, tokens: Sequence[int]) -> Self:
        """The same maps to the logits of these tokens alone, in this order."""

    def put(self, heads: Sequence[int], other: Self) -> None:
        """Replace the lenses at these places by those of `other`, in place."""


class _Moves:
    """Moving and choosing, for a dataclass whose tensors are named by their axes."""

    def to(self, device: torch.device) -> Self:
        return self._changed(lambda name, value: value.to(device))

    def select(self, heads: Sequence[int]) -> Self:
        chosen = list(heads)
        return self._changed(lambda name, value: value[chosen] if "_H" in name else value)

    def columns(self, tokens: Sequence[int]) -> Self:
        chosen = list(tokens)
        return self._changed(lambda name, value: value[..., chosen] if name.endswith("V") else value)

    def put(self, heads: Sequence[int], other: Self) -> None:
        for f in fields(self):  # type: ignore[arg-type]  # a dataclass, always
            if "_H" in f.name:
                getattr(self, f.name)[list(heads)] = getattr(other, f.name)

    def _changed(self, change: Any) -> Self:
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]  # a dataclass, always
        tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
        return replace(self, **{name: change(name, value) for name, value in tensors.items()})  # type: ignore[type-var]  # the same


@dataclass(frozen=True, kw_only=True)
class AffineMaps(_Moves):
    """logits = z weight + bias."""

    form: ClassVar[str] = "affine"

    weight_HEV: torch.Tensor
    bias_HV: torch.Tensor

    @property
    def num_heads(self) -> int:
        return len(self.weight_HEV)

    def logits(self, head: int, z_NE: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.bias_HV[head], z_NE.float(), self.weight_HEV[head])

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"weight": self.weight_HEV, "bias": self.bias_HV}

    def shared_tensors(self) -> dict[str, torch.Tensor]:
        return {}

    @staticmethod
    def shapes(heads: int, width: int, d_model: int, d_vocab: int) -> dict[str, tuple[int, ...]]:
        """The shapes of `tensors()`, for checking a file."""
        return {"weight": (heads, width, d_vocab), "bias": (heads, d_vocab)}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, torch.Tensor], unembedding: Any, norm: NormRecord | None = None
    ) -> "AffineMaps":
        return cls(weight_HEV=tensors["weight"], bias_HV=tensors["bias"])


@dataclass(frozen=True, kw_only=True)
class TranslatedMaps(_Moves):
    """logits = (norm(z translator + shift) * gain + offset) W_U + b_U. The norm is of the model's kind."""

    form: ClassVar[str] = "translated"

    translator_HED: torch.Tensor
    shift_HD: torch.Tensor
    gain_HD: torch.Tensor
    offset_HD: torch.Tensor
    W_U_DV: torch.Tensor
    b_U_V: torch.Tensor
    norm: NormRecord = OLD_NORM

    @property
    def num_heads(self) -> int:
        return len(self.translator_HED)

    def logits(self, head: int, z_NE: torch.Tensor) -> torch.Tensor:
        moved_ND = torch.addmm(self.shift_HD[head], z_NE.float(), self.translator_HED[head])
        normed_ND = normed(moved_ND, self.norm) * self.gain_HD[head] + self.offset_HD[head]
        return torch.addmm(self.b_U_V, normed_ND, self.W_U_DV)

    def tensors(self) -> dict[str, torch.Tensor]:
        return {
            "translator": self.translator_HED,
            "shift": self.shift_HD,
            "gain": self.gain_HD,
            "offset": self.offset_HD,
        }

    def shared_tensors(self) -> dict[str, torch.Tensor]:
        return {"W_U": self.W_U_DV, "b_U": self.b_U_V}

    @staticmethod
    def shapes(heads: int, width: int, d_model: int, d_vocab: int) -> dict[str, tuple[int, ...]]:
        """The shapes of `tensors()`, for checking a file."""
        vectors = dict.fromkeys(("shift", "gain", "offset"), (heads, d_model))
        return {"translator": (heads, width, d_model), **vectors}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, torch.Tensor], unembedding: Any, norm: NormRecord | None = None
    ) -> "TranslatedMaps":
        W_U_DV, b_U_V = unembedding()
        return cls(
            translator_HED=tensors["translator"],
            shift_HD=tensors["shift"],
            gain_HD=tensors["gain"],
            offset_HD=tensors["offset"],
            W_U_DV=W_U_DV,
            b_U_V=b_U_V,
            norm=norm or OLD_NORM,
        )


FORMS: dict[str, type[AffineMaps] | type[TranslatedMaps]] = {
    maps.form: maps for maps in (AffineMaps, TranslatedMaps)
}


@dataclass(frozen=True, kw_only=True)
class LayerLenses:
    """The lenses of one layer's heads."""

    maps: LensMaps
    W_O_HED: torch.Tensor | None
    """The heads' output matrices, so that a lens can be written on head outputs: pinv(W_O) weight. None for a
    site of the residual stream."""

    @property
    def weight_HEV(self) -> torch.Tensor:
        """The weight of logits = z weight + bias. Raises `RequestError` for lenses that are not affine."""
        return self._affine().weight_HEV

    @property
    def bias_HV(self) -> torch.Tensor:
        """The bias of logits = z weight + bias. Raises `RequestError` for lenses that are not affine."""
        return self._affine().bias_HV

    def tensors(self) -> dict[str, torch.Tensor]:
        """What the file of the layer holds, by name."""
        return {**self.maps.tensors(), **({} if self.W_O_HED is None else {"W_O": self.W_O_HED})}

    def _affine(self) -> AffineMaps:
        if not isinstance(self.maps, AffineMaps):
            raise RequestError(
                f"lenses of the form {self.maps.form!r} have no weight and bias: use their logits"
            )
        return self.maps

    def logits(self, z_NHE: torch.Tensor) -> torch.Tensor:
        """(N, H, V) float32 logits of each head's lens."""
        return torch.stack([self.maps.logits(h, z_NHE[:, h]) for h in range(self.maps.num_heads)], dim=1)
