"""A model that was found, and one that was loaded: the bridge, and what alens takes from it.

In: what `models` found, read and measured. Out: `LoadedModel`, which gives the model's logits, and its weights as a cache
holds them.
Shapes: N rows, L layers, H heads, E d_head, D d_model, V vocabulary, C chosen tokens.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from alens.machine.products import soft_capped
from alens.model import bridge as bridges
from alens.model.beginning import Beginning
from alens.model.behind_attention import BehindAttention
from alens.rows.final_norm import FinalNorm
from alens.store.model_record import FOLDS, ModelRecord


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A model that was found, but not loaded."""

    folder: Path
    """The model's directory, or the GGUF file that holds it."""
    record: ModelRecord
    tokenizer_sha256: str
    known: ModelRecord | None = None
    """The record in a cache or in lenses, where the model was found for them; loading compares the two."""
    known_by: str | None = None
    """The name of this cache or of these lenses, for messages."""


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A loaded model, and the matrices that its heads and its logits are made with."""

    source: ModelSource
    bridge: Any
    """TransformerLens' TransformerBridge, unprocessed weights, in evaluation mode."""
    tokenizer: Any
    """The `tokenizers` tokenizer: `encode`, `decode`."""
    fast_tokenizer: Any
    """The same as transformers loads it, with its chat template."""
    end_of_text: int | None
    beginning: Beginning
    """What the tokenizer puts before a text."""
    W_O_LHED: torch.Tensor
    """What each head writes with: its output matrix, with the gain and the factor behind attention in it, float32 where there
    are such; zeros for a layer without attention."""
    b_O_LD: torch.Tensor
    """The bias that attention adds to the output of its heads, likewise; zeros for a layer without one."""
    behind: tuple[BehindAttention, ...]
    """What stands behind the attention of each layer."""
    W_U_DV: torch.Tensor
    b_U_V: torch.Tensor
    logit_scale: float
    """The factor that the model has on its logits (`output_logits`); W_U and b_U are multiplied by it."""
    logit_cap: float | None
    """The model's logits are `cap tanh(x / cap)`, with x = W_U final + b_U; None: they are x."""
    final_norm: FinalNorm | None
    """Float32, on the device; None where alens does not know the model's kind of last norm."""
    device: torch.device

    def logits(self, final_ND: torch.Tensor, tokens: slice | list[int] = slice(None)) -> torch.Tensor:
        """(N, V) float32 of final residuals; (N, C) of these tokens alone."""
        logits_NC = final_ND @ self.W_U_DV[:, tokens] + self.b_U_V[tokens]
        return soft_capped(logits_NC.float(), self.logit_cap)

    def unembedding(self, logits: Literal["float32"] | None) -> tuple[torch.Tensor, torch.Tensor]:
        """W_U and b_U in the dtype in which logits are to come out; None: the model's."""
        return (self.W_U_DV, self.b_U_V) if logits is None else self._float32_unembedding

    @cached_property
    def _float32_unembedding(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self.logit_scale == 1.0:
            return self.W_U_DV.float(), self.b_U_V.float()
        # From the parameters, so that only one product rounds.
        W_U_DV, b_U_V = bridges.unembedding(self.bridge, self.source.record)
        return W_U_DV.float() * self.logit_scale, b_U_V.float() * self.logit_scale

    def output_matrices(self, record: ModelRecord) -> torch.Tensor:
        """W_O as a cache or lenses with this record hold it: an earlier alens folded nothing into it."""
        if record.head_write in FOLDS or all(one.is_nothing for one in self.behind):
            return self.W_O_LHED
        return self.plain_W_O_LHED

    @cached_property
    def plain_W_O_LHED(self) -> torch.Tensor:
        """The output matrix of each head, as the parameters hold it."""
        return bridges.output_weights(self.bridge, self.source.record)

    def weights(self, names: Iterable[str], record: ModelRecord) -> dict[str, npt.NDArray[np.float32]]:
        """The arrays `model/...` of a cache with this record, float32, by name."""
        W_U_DV, b_U_V = self._float32_unembedding
        arrays = {"model/W_O": self.output_matrices(record), "model/W_U": W_U_DV, "model/b_U": b_U_V}
        if self.final_norm is not None:
            arrays |= {
                "model/norm_gain": self.final_norm.gain_D,
                "model/norm_offset": self.final_norm.offset_D,
            }
        return {name: arrays[name].float().cpu().numpy() for name in names}
