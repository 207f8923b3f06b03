"""What a fitted lens does to a value: the maps of one layer's heads, from the values of a site to logits.

In: tensors of a fit or of a lens directory. Out: logits of any head for any rows. `AffineMaps` are what most designs
become; `TranslatedMaps` are a map into the residual stream, a norm and the model's unembedding, as in the Tuned Lens
("Eliciting Latent Predictions", arXiv 2303.08112). `unembedded_maps.py` has a form without that norm.
Shapes: N rows, H heads, E width of the site's values (d_head for z), D d_model, V vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Protocol, Self

import torch

from alens.errors import RequestError
from alens.rows.final_norm import normed
from alens.store.model_record import LAYER_NORM, NormRecord

OLD_NORM = NormRecord(kind=LAYER_NORM, epsilon=1e-5)
"""The norm that is taken for lenses and caches from before the model's last norm was kept: that of GPT-2 and of the Tuned
Lens."""


COMMON = 1024
"""Tokens whose columns stand for all: those with the largest share of the mean output."""


MEAN_Z = "mean_z"
"""The tensor of a layer's file that holds E[z] of its heads."""


class LensMaps(Protocol):
    """The maps of one layer's heads."""

    form: ClassVar[str]
    """The name of the form in `lens.json`."""
    halves: ClassVar[frozenset[str]]
    """The tensors of its files that may be float16, where their numbers survive it; the others are float32."""

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

    def affine(self, head: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(E, V) weight and (V,) bias of logits = z weight + bias. Raises `RequestError` where there are none."""

    def folded(self) -> "LensMaps":
        """Maps that say the same, and take least work where there are many rows."""


class Moves:
    """Moving and choosing, for a dataclass whose tensors are named by their axes; it may hold others of the kind."""

    def to(self, device: torch.device) -> Self:
        return self._changed(lambda name, value: value.to(device), lambda part: part.to(device))

    def select(self, heads: Sequence[int]) -> Self:
        chosen = list(heads)
        return self._changed(lambda name, value: value[chosen] if "_H" in name else value)

    def columns(self, tokens: Sequence[int]) -> Self:
        chosen = list(tokens)
        return self._changed(
            lambda name, value: value[..., chosen] if name.endswith("V") else value,
            lambda part: part.columns(chosen),
        )

    def put(self, heads: Sequence[int], other: Self) -> None:
        for f in fields(self):  # type: ignore[arg-type]  # a dataclass, always
            if "_H" in f.name:
                getattr(self, f.name)[list(heads)] = getattr(other, f.name)

    def _changed(self, change: Any, change_part: Any = lambda part: part) -> Self:
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]  # a dataclass, always
        tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
        changed = {name: change(name, value) for name, value in tensors.items()}
        parts = {name: change_part(part) for name, part in values.items() if isinstance(part, Moves)}
        return replace(self, **changed, **parts)  # type: ignore[type-var]  # the same


@dataclass(frozen=True, kw_only=True)
class LensEnding(Moves):
    """What lenses of all layers end in: logits = moved W_U + log mean output."""

    W_U_DV: torch.Tensor
    log_mean_V: torch.Tensor
    centre_D: torch.Tensor
    """The mean column of `W_U` under the mean output: what all logits have in common makes no difference to a softmax."""
    common_DS: torch.Tensor
    """Columns of the most probable tokens around it, times the root of their share: `common common^T` is nearly the
    covariance of columns under the mean output."""
    copies: dict[torch.device, "LensEnding"] = field(default_factory=dict, compare=False, repr=False)
    """The same on other devices: one copy for the lenses of all layers."""

    @classmethod
    def with_mean_output(cls, W_U_DV: torch.Tensor, log_mean_V: torch.Tensor) -> Self:
        """The ending in this unembedding, (D, V), and log mean output, (V,)."""
        W_U_DV, log_mean_V = W_U_DV.float(), log_mean_V.float()
        probs_V = log_mean_V.softmax(-1)
        centre_D = W_U_DV @ probs_V
        probs_S, tokens_S = probs_V.topk(min(COMMON, len(probs_V)))
        common_DS = (W_U_DV[:, tokens_S] - centre_D[:, None]) * (probs_S / probs_S.sum()).sqrt()
        return cls(W_U_DV=W_U_DV, log_mean_V=log_mean_V, centre_D=centre_D, common_DS=common_DS)

    def to(self, device: torch.device) -> "LensEnding":
        if device == self.W_U_DV.device:
            return self
        if device not in self.copies:
            self.copies[device] = replace(super().to(device), copies={})
        return self.copies[device]

    def columns(self, tokens: Sequence[int]) -> "LensEnding":
        return replace(super().columns(tokens), copies={})


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What lenses of all layers share. It is large, so it is read only where a form asks for it."""

    unembedding: Callable[[], tuple[torch.Tensor, torch.Tensor]]
    """Gives `W_U` and `b_U`."""
    ending: Callable[[], LensEnding]
    norm: NormRecord | None = None
    """The model's last norm, where it is known."""


@dataclass(frozen=True, kw_only=True)
class AffineMaps(Moves):
    """logits = z weight + bias."""

    form: ClassVar[str] = "affine"
    halves: ClassVar[frozenset[str]] = frozenset()

    weight_HEV: torch.Tensor
    bias_HV: torch.Tensor

    @property
    def num_heads(self) -> int:
        return len(self.weight_HEV)

    def logits(self, head: int, z_NE: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.bias_HV[head], z_NE.float(), self.weight_HEV[head])

    def affine(self, head: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.weight_HEV[head], self.bias_HV[head]

    def folded(self) -> "AffineMaps":
        return self

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"weight": self.weight_HEV, "bias": self.bias_HV}

    def shared_tensors(self) -> dict[str, torch.Tensor]:
        return {}

    @staticmethod
    def shapes(heads: int, width: int, d_model: int, d_vocab: int) -> dict[str, tuple[int, ...]]:
        """The shapes of `tensors()`, for checking a file."""
        return {"weight": (heads, width, d_vocab), "bias": (heads, d_vocab)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor], shared: Shared) -> "AffineMaps":
        return cls(weight_HEV=tensors["weight"], bias_HV=tensors["bias"])


@dataclass(frozen=True, kw_only=True)
class TranslatedMaps(Moves):
    """logits = (norm(z translator + shift) * gain + offset) W_U + b_U. The norm is of the model's kind."""

    form: ClassVar[str] = "translated"
    halves: ClassVar[frozenset[str]] = frozenset()

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

    def affine(self, head: int) -> tuple[torch.Tensor, torch.Tensor]:
        raise _not_affine(self)

    def folded(self) -> "TranslatedMaps":
        return self

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
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor], shared: Shared) -> "TranslatedMaps":
        W_U_DV, b_U_V = shared.unembedding()
        return cls(
            translator_HED=tensors["translator"],
            shift_HD=tensors["shift"],
            gain_HD=tensors["gain"],
            offset_HD=tensors["offset"],
            W_U_DV=W_U_DV,
            b_U_V=b_U_V,
            norm=shared.norm or OLD_NORM,
        )


@dataclass(frozen=True, kw_only=True)
class LayerLenses:
    """The lenses of one layer's heads."""

    maps: LensMaps
    W_O_HED: torch.Tensor | None
    """The heads' output matrices, so that a lens can be written on head outputs: pinv(W_O) weight. None for a
    site of the residual stream."""
    mean_z_HE: torch.Tensor | None = None
    """E[z] of each head over the cache: what a head writes is counted from there. None for a site of the residual
    stream, for lenses that were made without a cache, and for those of an earlier alens."""

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
        of_heads = {"W_O": self.W_O_HED, MEAN_Z: self.mean_z_HE}
        return self.maps.tensors() | {name: value for name, value in of_heads.items() if value is not None}

    def _affine(self) -> AffineMaps:
        maps = self.maps.folded()
        if not isinstance(maps, AffineMaps):
            raise _not_affine(maps)
        return maps

    def logits(self, z_NHE: torch.Tensor) -> torch.Tensor:
        """(N, H, V) float32 logits of each head's lens."""
        return torch.stack([self.maps.logits(h, z_NHE[:, h]) for h in range(self.maps.num_heads)], dim=1)


def _not_affine(maps: Any) -> RequestError:
    return RequestError(f"lenses of the form {maps.form!r} have no weight and bias: use their logits")
