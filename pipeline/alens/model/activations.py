"""Token rows -> z of every head and the final residual, through TransformerLens hooks.

In: (B, T) tokens and the loaded model. Out: z (B, T, H, E) for each layer, from `blocks.{i}.attn.hook_z`; further
sites (B, T, D) on request; and the residual after the last layer norm, (B, T, D). The model itself unembeds one
position only: `cache.target_compression` makes the logits of all positions, block by block.
Shapes: B sequences, T tokens, H heads, E d_head, D d_model.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from alens.errors import RequestError, RunError
from alens.machine.device import send
from alens.model.libraries import rows_not_packed
from alens.model.models import LoadedModel
from alens.rows.final_norm import FinalNorm
from alens.store.model_record import NO_NORM

NORM_BEHIND = "blocks.{}.ln1_post.hook_in"
"""The hook on what the norm behind the attention of a layer takes."""

LOGIT_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.5, torch.float16: 0.1}
"""How far rounding may take `final W_U + b_U` from the model's own logits."""


@dataclass(frozen=True, kw_only=True)
class Activations:
    """The values that one forward pass gives."""

    z_BTHE: dict[int, torch.Tensor]
    """z by layer."""
    sites_BTD: dict[tuple[str, int], torch.Tensor]
    """Values of further sites, by site and layer."""
    final_BTD: torch.Tensor
    """The residual after the last norm."""
    scale_BT: torch.Tensor | None
    """Float32: what the last norm divides by at each position; None where alens does not know the norm."""
    write_scale_BT: dict[int, torch.Tensor]
    """Float32, by layer: what the norm behind its attention divides by, where there is one."""
    last_logits_BV: torch.Tensor
    """The model's own logits at the last position."""


def run(
    model: LoadedModel,
    tokens_BT: torch.Tensor,
    layers: Sequence[int],
    sites: Sequence[str] = (),
    *,
    checked: bool = True,
) -> Activations:
    """One forward pass. `sites` are further (B, T, D) values of each layer, by TransformerLens' names: `resid_post`,
    `mlp_out`. Without `checked` the caller looks whether the final residual is finite: a look waits for a GPU.

    Raises `RequestError` when the model gives no z or site for a layer, or a z of other heads than its record says;
    `RunError` when the final residual is not finite.
    """
    norm = model.final_norm
    z_BTHE: dict[int, torch.Tensor] = {}
    scales: dict[int, torch.Tensor] = {}
    write_scales: dict[int, torch.Tensor] = {}
    sites_BTD: dict[tuple[str, int], torch.Tensor] = {}
    hooks: list[tuple[str, Any]] = [(f"blocks.{layer}.attn.hook_z", _keep(z_BTHE, layer)) for layer in layers]
    hooks += [
        (f"blocks.{layer}.hook_{site}", _keep(sites_BTD, (site, layer))) for layer in layers for site in sites
    ]
    if norm is not None and norm.record.kind != NO_NORM:
        hooks.append(("ln_final.hook_in", _keep_scale(scales, 0, norm)))
    for layer in layers:
        if layer < len(model.behind) and (behind := model.behind[layer].norm) is not None:
            hooks.append((NORM_BEHIND.format(layer), _keep_scale(write_scales, layer, behind)))
    try:
        final_BTD, logits = run_hooked(model, tokens_BT, hooks)
    except KeyError as error:  # a hook name that the bridge does not know
        raise RequestError(
            f"{model.source.record.architecture} lacks what alens needs in TransformerLens: {error}"
        ) from None
    missing = [f"hook_z of layer {layer}" for layer in layers if layer not in z_BTHE]
    missing += [f"{s} of layer {layer}" for s in sites for layer in layers if (s, layer) not in sites_BTD]
    if missing:
        raise RequestError(
            f"{model.source.record.architecture} gives no {missing[0]} in TransformerLens: alens needs it"
        )
    _check_heads(model, z_BTHE)
    if checked:
        check_finite(model, torch.isfinite(final_BTD).all())
    return Activations(
        z_BTHE=z_BTHE,
        sites_BTD=sites_BTD,
        final_BTD=final_BTD,
        scale_BT=scales.get(0) if scales or norm is None else norm.scale(final_BTD),
        write_scale_BT=write_scales,
        last_logits_BV=logits[:, -1],
    )


def check_finite(model: LoadedModel, is_finite: torch.Tensor) -> None:
    """Raises `RunError` where the final residual is not finite."""
    if not bool(is_finite):
        raise RunError(
            f"the final residual of {model.source.record.architecture} is not finite: check the model's weights and dtype"
        )


def _check_heads(model: LoadedModel, z_BTHE: dict[int, torch.Tensor]) -> None:
    """Raises `RequestError` where z is divided into other heads than W_O."""
    record = model.source.record
    for layer, value_BTHE in z_BTHE.items():
        if value_BTHE.shape[2:] != (record.n_heads, record.d_head):
            raise RequestError(
                f"z of layer {layer} of {record.architecture} is {' x '.join(map(str, value_BTHE.shape[2:]))}, and W_O is of "
                f"{record.n_heads} heads of {record.d_head} numbers: alens does not know such heads"
            )


def run_hooked(
    model: LoadedModel, tokens_BT: torch.Tensor, hooks: Sequence[tuple[str, Any]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """One forward pass with hooks: the residual after the last norm (B, T, D), and the logits of the last position.

    Raises `KeyError` for a hook that the model does not have, `RequestError` where it has no such residual.
    """
    final: list[torch.Tensor] = []

    def keep_final(value_BTD: torch.Tensor, hook: Any) -> torch.Tensor:
        final.append(value_BTD)
        return value_BTD[:, -1:]  # so that the model unembeds one position, not all

    with rows_not_packed():
        logits: torch.Tensor = model.bridge.run_with_hooks(
            send(tokens_BT, model.device),
            return_type="logits",
            fwd_hooks=[*hooks, ("unembed.hook_in", keep_final)],
        )
    if not final:
        raise RequestError(
            f"{model.source.record.architecture} gives no unembed.hook_in in TransformerLens: alens needs it"
        )
    return final[0], logits


@contextlib.contextmanager
def before_blocks(model: LoadedModel, call: Callable[[], None]) -> Iterator[None]:
    """Within the block, `call` is called before each block of the model; an error of it ends the forward pass."""
    handles = [
        block.register_forward_pre_hook(lambda *_: call()) for block in getattr(model.bridge, "blocks", ())
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _keep(values: dict[Any, torch.Tensor], key: Any) -> Any:
    """A hook that keeps a value."""

    def hook(value: torch.Tensor, hook: Any) -> None:
        values[key] = value

    return hook


def _keep_scale(scales: dict[int, torch.Tensor], place: int, norm: FinalNorm) -> Any:
    """A hook that keeps the scale of a norm, not its input: the stream of a batch is large."""

    def hook(stream_BTD: torch.Tensor, hook: Any) -> None:
        scales[place] = norm.scale(stream_BTD)

    return hook


def check_unembedding(model: LoadedModel, activations: Activations) -> None:
    """Raises `RequestError` unless `final W_U + b_U`, with the model's factor and cap, are its logits.

    Every target and the exact teacher rest on this equation, so it is checked on real numbers.
    """
    ours_BV = model.logits(activations.final_BTD[:, -1])
    error = float((ours_BV - activations.last_logits_BV).abs().max())
    scale = max(1.0, float(activations.last_logits_BV.abs().max()))
    if not error <= LOGIT_TOLERANCE[activations.final_BTD.dtype] * scale:
        raise RequestError(
            f"the logits of {model.source.record.architecture} are not W_U of the final residual, times a factor or under a "
            f"cap c tanh(x / c) (they differ by {error:.3g}): models that do something else to their logits are not supported"
        )
