"""What the loaded model really computes, by numbers, on the first sequences of the cache's own tokens.

In: the loaded model and some token rows. Out: its record with what was seen, or a `RequestError` for a model that
alens would misread. The model's name decides nothing, and a configuration can say anything. The first job examines the
model before it writes the plan, and each later job before its first shard.

Is the model causal? The last token of a sequence is changed: a position before it that moves has looked ahead.
Do heads write z W_O? Summed over heads, with the output bias, this is compared with what the residual stream gains. Gain and
factor behind attention (OLMo 2, Gemma 2; Granite) are in W_O already, the scale of the norm is taken at each row.
Shapes: B sequences, T tokens, L layers, H heads, E d_head, D d_model, V vocabulary.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from alens.errors import RequestError, RunError
from alens.heads import listed
from alens.model import activations, logit_fingerprint
from alens.model.bridge import attention_layers
from alens.model.models import LoadedModel
from alens.store.model_record import (
    EXACT_WRITE,
    FOLDED_WRITE,
    NORMED_WRITE,
    OTHER_NORM,
    OTHER_WRITE,
    ModelRecord,
    NormRecord,
)
from alens.store.schema import Plan

log = logging.getLogger("alens")

SEQUENCES = 2
"""How many sequences of the first batch are run: enough for these questions, and quick on a large model."""

MOVED = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""How far rounding may move a final residual when a later token changes, as a share of its length."""

APART = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""How far z W_O + b_O may be from what the stream gains, as a share of its length. In models whose heads write
something else the two are 0.2 to 3.5 apart."""

READABLE = 0.02
"""The gain can be read from the stream where the stream's rounding is at most this share of what heads write."""


def examine(model: LoadedModel, tokens_BT: npt.NDArray[Any], layers: Sequence[int] | None) -> ModelRecord:
    """The model's record, with what the heads of `layers` (None: all that have heads) write, and its last norm.

    Raises `RequestError` where one of `layers` has no heads, the model is not causal, or its logits are not W_U of the
    final residual.
    """
    tokens = torch.from_numpy(tokens_BT[:SEQUENCES].astype("int64"))
    with_heads = attention_layers(model.bridge)
    layers = with_heads if layers is None else layers
    _check_heads(model, layers)
    with torch.inference_mode():
        clean = activations.run(model, tokens, ())
        activations.check_unembedding(model, clean)
        _check_causal(model, tokens, clean.final_BTD)
        write = head_write(model, tokens, layers)
    norm = model.final_norm
    return dataclasses.replace(
        model.source.record,
        head_write=write,
        attention_layers=None if len(with_heads) == len(model.W_O_LHED) else with_heads,
        logit_cap=model.logit_cap,
        final_norm=NormRecord(kind=OTHER_NORM, epsilon=0.0) if norm is None else norm.record,
    )


def examine_again(model: LoadedModel, tokens_BT: npt.NDArray[Any], plan: Plan, where: Path | str) -> None:
    """Like `examine`, for a cache that was begun. Raises `RequestError` also where its plan records another result."""
    seen, stored = examine(model, tokens_BT, plan.layers), plan.model
    for name in ("head_write", "final_norm", "logit_cap"):
        recorded = getattr(stored, name)
        if recorded == OTHER_WRITE and name == "head_write":  # an earlier alens knew fewer kinds
            continue
        if recorded is not None and recorded != getattr(seen, name):  # None: an earlier alens did not examine
            raise RequestError(
                f"{where} was begun with another model: its {name.replace('_', ' ')} is {recorded}, here {getattr(seen, name)}; "
                "give that model, or name a new STORE"
            )


def tell(record: ModelRecord, layers: Sequence[int] | None) -> None:
    """Say which layers have no heads where none of `layers` were named, and warn where writes cannot be unembedded."""
    if layers is None and (with_heads := record.attention_layers) is not None:
        without = [layer for layer in range(record.n_layers) if layer not in with_heads]
        log.info(
            f"layers {listed(without)} of {record.architecture} have no attention heads: taking layers {listed(with_heads)}"
        )
    if record.no_write is not None:
        log.warning(
            "%s: lenses on z are right; what rests on the write is left out or refused", record.no_write
        )


def examine_early(model: LoadedModel, layers: Sequence[int] | None) -> None:
    """Examine the model on tokens spread over the vocabulary, so that it is refused before a long text is tokenised."""
    tokens_BT = np.array([logit_fingerprint.tokens(model.source.record)])
    with contextlib.suppress(RunError):  # rare tokens may overflow float16 where the text does not
        examine(model, tokens_BT, layers)
        with torch.inference_mode():
            activations.run(model, torch.from_numpy(tokens_BT), layers or attention_layers(model.bridge))


def _check_heads(model: LoadedModel, layers: Sequence[int]) -> None:
    """Raises `RequestError` where one of `layers` has no attention heads."""
    with_heads = attention_layers(model.bridge)
    lacking = [layer for layer in layers if layer not in with_heads]
    if lacking:
        raise RequestError(
            f"layer {lacking[0]} of {model.source.record.architecture} has no attention heads, layers "
            f"{listed(with_heads)} have: name these with --layers"
        )


def _check_causal(model: LoadedModel, tokens_BT: torch.Tensor, final_BTD: torch.Tensor) -> None:
    """Raises `RequestError` where another last token changes `final_BTD` at earlier positions."""
    changed_BT = tokens_BT.clone()
    changed_BT[:, -1] = (changed_BT[:, -1] + 1) % model.source.record.d_vocab
    before_BTD = final_BTD[:, :-1].float()
    moved_BT = (activations.run(model, changed_BT, ()).final_BTD[:, :-1].float() - before_BTD).norm(dim=-1)
    share_BT = moved_BT / before_BTD.norm(dim=-1).clamp_min(torch.finfo(torch.float32).tiny)
    worst = float(share_BT.max())
    if not worst <= MOVED[final_BTD.dtype]:
        position = int(share_BT.max(dim=0).values.argmax())
        raise RequestError(
            f"{model.source.record.architecture} is not causal: another last token moves the final residual at "
            f"position {position} by {worst:.2g} of its length; lenses are of models that predict the next token from "
            "the tokens before it: give a causal language model"
        )


def head_write(model: LoadedModel, tokens_BT: torch.Tensor, layers: Sequence[int]) -> str:
    """`exact`, `folded` or `normed` where z W_O, summed over heads, plus b_O is what attention adds to the stream in each of
    `layers`, as the parameters hold it, with a factor, or with a norm; else `other`."""
    for gains in (
        _StreamGains(model, "hook_resid_mid"),
        _StreamGains(model, "hook_resid_post", less="hook_mlp_out"),
    ):
        hooks = [hook for layer in layers for hook in gains.hooks(layer)]
        try:
            with model.bridge.hooks(fwd_hooks=hooks):
                activations.run(model, tokens_BT, ())
        except KeyError:  # a model whose attention and MLP read the same stream has no `hook_resid_mid`
            continue
        if len(gains.apart) == len(layers):
            worst = max(gains.apart.values())
            return _named(model, layers) if worst <= APART[model.W_U_DV.dtype] else OTHER_WRITE
    return OTHER_WRITE


def _named(model: LoadedModel, layers: Sequence[int]) -> str:
    """The kind of write of these layers, where it is known."""
    behind = [model.behind[layer] for layer in layers]
    if any(one.norm is not None for one in behind):
        return NORMED_WRITE
    return EXACT_WRITE if all(one.is_nothing for one in behind) else FOLDED_WRITE


class _StreamGains:
    """Compares z W_O + b_O with what the stream gains from the start of a block to `end`, without what `less` adds.

    Attributes: `apart`, for each layer how far the two are apart, as a share of the gain.
    """

    def __init__(self, model: LoadedModel, end: str, *, less: str | None = None) -> None:
        self._model, self._end = model, end
        self._places = ["hook_resid_pre", "attn.hook_z", *([less] if less else [])]
        self._kept: list[torch.Tensor] = []
        self.apart: dict[int, float] = {}

    def hooks(self, layer: int) -> list[tuple[str, Any]]:
        """The hooks of a layer for a forward pass; the values of one layer are kept at a time."""

        def keep(value: torch.Tensor, hook: Any) -> None:
            self._kept.append(value.float())

        def end(value_BTD: torch.Tensor, hook: Any) -> None:
            start_BTD, z_BTHE, *rest_BTD = self._kept
            self._kept.clear()
            output_BTD = rest_BTD.pop(0) if normed else None
            self.apart[layer] = self._apart(layer, z_BTHE, output_BTD, start_BTD + sum(rest_BTD), value_BTD)

        normed = self._model.behind[layer].norm is not None
        return [
            *((f"blocks.{layer}.{place}", keep) for place in self._places[:2]),
            *([(activations.NORM_BEHIND.format(layer), keep)] if normed else []),
            *((f"blocks.{layer}.{place}", keep) for place in self._places[2:]),
            (f"blocks.{layer}.{self._end}", end),
        ]

    def _apart(
        self,
        layer: int,
        z_BTHE: torch.Tensor,
        output_BTD: torch.Tensor | None,
        before_BTD: torch.Tensor,
        after_BTD: torch.Tensor,
    ) -> float:
        """`output_BTD` is what the norm behind attention takes, where there is one."""
        W_O_FD = self._model.W_O_LHED[layer].flatten(0, 1).float()
        ours_BTD = z_BTHE.flatten(2) @ W_O_FD + self._model.b_O_LD[layer].float()
        if output_BTD is not None:
            scale_BT = self._model.behind[layer].scale(output_BTD)
            assert scale_BT is not None  # there is a norm
            ours_BTD = ours_BTD / scale_BT[..., None]
        ours_BTD = ours_BTD + self._model.behind[layer].offset_D
        gained_BTD = after_BTD.float() - before_BTD
        # In huge entries of a stream, the rounding alone is more than what a head writes there.
        rounding_BTD = torch.finfo(after_BTD.dtype).eps * torch.maximum(
            before_BTD.abs(), after_BTD.float().abs()
        )
        readable_BTD = rounding_BTD <= READABLE * ours_BTD.abs()
        apart_BTD = torch.where(readable_BTD, ours_BTD - gained_BTD, 0.0)
        gained_BTD = torch.where(readable_BTD, gained_BTD, 0.0)
        return float(apart_BTD.norm() / gained_BTD.norm().clamp_min(torch.finfo(torch.float32).tiny))
