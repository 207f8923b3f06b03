"""Token rows -> z of every head and the final residual, through TransformerLens hooks.

In: (B, T) tokens and the loaded model. Out: z (B, T, H, E) a layer, as `blocks.{i}.attn.hook_z`, further
sites (B, T, D) where they are asked for, and the residual after the last layer norm, (B, T, D). The model itself unembeds one position only: the others'
logits are made block by block in `targets.py`.
Shapes: B sequences, T tokens, H heads, E d_head, D d_model.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from alens.errors import RequestError, RunError
from alens.model.models import LoadedModel
from alens.rows.final_norm import FinalNorm
from alens.store.model_record import NO_NORM

LOGIT_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.5, torch.float16: 0.1}
"""How far `final W_U + b_U` may be from the model's own logits: rounding, not another function."""


@dataclass(frozen=True, kw_only=True)
class Activations:
    """What one forward pass leaves."""

    z_BTHE: dict[int, torch.Tensor]
    """By layer."""
    sites_BTD: dict[tuple[str, int], torch.Tensor]
    """Further sites, by site and layer."""
    final_BTD: torch.Tensor
    """The residual after the last norm."""
    scale_BT: torch.Tensor | None
    """Float32: what the last norm divides by at each position; None where alens does not know the norm."""
    last_logits_BV: torch.Tensor
    """The model's own logits at the last position."""


def run(
    model: LoadedModel, tokens_BT: torch.Tensor, layers: Sequence[int], sites: Sequence[str] = ()
) -> Activations:
    """One forward pass. `sites` are TransformerLens' names of what a block writes or leaves, (B, T, D):
    `resid_post`, `mlp_out`.

    Raises `RequestError` when the model gives no z or site for a layer, or a z of other heads, `RunError` when it ends in numbers
    that are not finite.
    """
    norm = model.final_norm
    found: dict[int, torch.Tensor] = {}
    scales: dict[int, torch.Tensor] = {}
    further: dict[tuple[str, int], torch.Tensor] = {}
    hooks: list[tuple[str, Any]] = [(f"blocks.{layer}.attn.hook_z", _keep(found, layer)) for layer in layers]
    hooks += [
        (f"blocks.{layer}.hook_{site}", _keep(further, (site, layer))) for layer in layers for site in sites
    ]
    if norm is not None and norm.record.kind != NO_NORM:
        hooks.append(("ln_final.hook_in", _keep_scale(scales, norm)))
    try:
        final_BTD, logits = run_hooked(model, tokens_BT, hooks)
    except KeyError as error:  # a hook name that the bridge does not know
        raise RequestError(
            f"{model.source.record.architecture} lacks what alens needs in TransformerLens: {error}"
        ) from None
    missing = [f"hook_z of layer {layer}" for layer in layers if layer not in found]
    missing += [f"{s} of layer {layer}" for s in sites for layer in layers if (s, layer) not in further]
    if missing or final_BTD is None:
        raise RequestError(
            f"{model.source.record.architecture} gives no {missing[0] if missing else 'unembed.hook_in'} in TransformerLens: alens needs it"
        )
    _check_heads(model, found)
    if not bool(torch.isfinite(final_BTD).all()):
        raise RunError(
            f"the final residual of {model.source.record.architecture} is not finite: check the model's weights and dtype"
        )
    return Activations(
        z_BTHE=found,
        sites_BTD=further,
        final_BTD=final_BTD,
        scale_BT=scales.get(0) if scales or norm is None else norm.scale(final_BTD),
        last_logits_BV=logits[:, -1],
    )


def _check_heads(model: LoadedModel, found: dict[int, torch.Tensor]) -> None:
    """Raises `RequestError` where z is cut into other heads than W_O."""
    record = model.source.record
    for layer, z_BTHE in found.items():
        if z_BTHE.shape[2:] != (record.n_heads, record.d_head):
            raise RequestError(
                f"z of layer {layer} of {record.architecture} is {' x '.join(map(str, z_BTHE.shape[2:]))}, and W_O is of "
                f"{record.n_heads} heads of {record.d_head} numbers: alens does not know such heads"
            )


def run_hooked(
    model: LoadedModel, tokens_BT: torch.Tensor, hooks: Sequence[tuple[str, Any]]
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """One forward pass with hooks: the residual after the last norm (B, T, D), and logits of the last position.

    None where the model has no such residual. Raises `KeyError` for a hook that the model does not know.
    """
    final: list[torch.Tensor] = []

    def keep_final(value_BTD: torch.Tensor, hook: Any) -> torch.Tensor:
        final.append(value_BTD)
        return value_BTD[:, -1:]  # so that the model unembeds one position, not all

    logits: torch.Tensor = model.bridge.run_with_hooks(
        tokens_BT.to(model.device),
        return_type="logits",
        fwd_hooks=[*hooks, ("unembed.hook_in", keep_final)],
    )
    return (final[0] if final else None), logits


@contextlib.contextmanager
def before_blocks(model: LoadedModel, call: Callable[[], None]) -> Iterator[None]:
    """Inside, `call` is called before each block of the model; what it raises ends the forward pass."""
    handles = [
        block.register_forward_pre_hook(lambda *_: call()) for block in getattr(model.bridge, "blocks", ())
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _keep(found: dict[Any, torch.Tensor], key: Any) -> Any:
    def hook(value: torch.Tensor, hook: Any) -> None:
        found[key] = value

    return hook


def _keep_scale(scales: dict[int, torch.Tensor], norm: FinalNorm) -> Any:
    """The scale alone is kept: a stream of a batch is large."""

    def hook(stream_BTD: torch.Tensor, hook: Any) -> None:
        scales[0] = norm.scale(stream_BTD)

    return hook


def check_unembedding(model: LoadedModel, activations: Activations) -> None:
    """Raises `RequestError` when `final W_U + b_U` are not the model's logits (a cap or scale follows).

    Every target and the exact teacher rest on that equation, so it is checked on real numbers.
    """
    ours_BV = activations.final_BTD[:, -1] @ model.W_U_DV + model.b_U_V
    error = float((ours_BV - activations.last_logits_BV).abs().max())
    scale = max(1.0, float(activations.last_logits_BV.abs().max()))
    if not error <= LOGIT_TOLERANCE[ours_BV.dtype] * scale:
        raise RequestError(
            f"the logits of {model.source.record.architecture} are not W_U of the final residual (they differ by {error:.3g}): "
            "models that cap or scale their logits are not supported"
        )
