"""Forward passes that begin at a layer: the blocks below it are left out, and its input is given.

In: tokens, the residual stream before a layer, and z of some of its heads to replace, or edits. Out: the residual after the last
norm. What a head does to a model is the same whether the layers below it run again or not, and on average they are half
of the work.
Shapes: B sequences, T tokens, L layers, H heads, E d_head, D d_model, C copies of sequences, each with one head changed.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from alens.errors import RequestError
from alens.model import activations
from alens.model.edits import Edit, edited, hooks_of
from alens.model.models import LoadedModel

APART = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.01}
"""How far a pass that begins at a layer may be from a whole one, as a share of the residual's norm: another batch size
rounds otherwise."""


@dataclass(frozen=True, kw_only=True)
class CleanPass:
    """A forward pass of some sequences, with nothing changed."""

    tokens_BT: torch.Tensor
    before_BTD: dict[int, torch.Tensor]
    """The residual stream before each layer that was asked for."""
    final_BTD: torch.Tensor
    """The residual after the last norm."""


def clean_pass(model: LoadedModel, tokens_BT: torch.Tensor, layers: Sequence[int]) -> CleanPass:
    """Run the model, and keep the residual stream before each of `layers`.

    Raises `RequestError` where TransformerLens does not give it.
    """
    before_BTD: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Any:
        def hook(value_BTD: torch.Tensor, hook: Any) -> None:
            before_BTD[layer] = value_BTD

        return hook

    tokens_BT = tokens_BT.to(model.device)
    try:
        with torch.inference_mode():
            final_BTD, _ = activations.run_hooked(
                model, tokens_BT, [(f"blocks.{layer}.hook_resid_pre", keep(layer)) for layer in layers]
            )
    except KeyError as error:  # a hook name that the bridge does not know
        raise RequestError(
            f"{model.source.record.architecture} does not give the input of its layers in TransformerLens: {error}"
        ) from None
    return CleanPass(tokens_BT=tokens_BT, before_BTD=before_BTD, final_BTD=final_BTD)


def without_heads(
    model: LoadedModel,
    clean: CleanPass,
    layer: int,
    copies: Sequence[tuple[int, int]],
    mean_HE: torch.Tensor,
    *,
    whole: bool = False,
) -> torch.Tensor:
    """(C, T, D) the residual after the last norm, where z of one head of `layer` is `mean_HE` of it at every position.

    `copies` are (head, sequence) pairs, one for each of C. With `whole` the layers below run too, which gives the same.
    """
    head_C = torch.tensor([head for head, _ in copies], device=model.device)
    sequence_C = torch.tensor([sequence for _, sequence in copies], device=model.device)
    copy_C = torch.arange(len(copies), device=model.device)

    def replace_z(value_CTHE: torch.Tensor, hook: Any) -> torch.Tensor:
        changed_CTHE = value_CTHE.clone()
        changed_CTHE[copy_C, :, head_C] = mean_HE[head_C, None].to(value_CTHE.dtype)
        return changed_CTHE

    with torch.inference_mode():
        return _run(
            model, clean, layer, sequence_C, [(f"blocks.{layer}.attn.hook_z", replace_z)], whole=whole
        )


def edited_pass(model: LoadedModel, clean: CleanPass, layer: int, edits: Sequence[Edit]) -> torch.Tensor:
    """(B, T, D) the residual after the last norm, with `edits` made in their order, none of them below `layer`.

    Raises `RequestError` when TransformerLens cannot edit the model there.
    """
    everything_C = torch.arange(len(clean.tokens_BT), device=model.device)
    with edited(model), torch.inference_mode():
        return _run(model, clean, layer, everything_C, hooks_of(edits), whole=False)


def begins_at(model: LoadedModel, clean: CleanPass, layer: int) -> bool:
    """Whether a pass that begins at `layer` gives what the whole one gave: some models hand more than the residual stream
    from layer to layer."""
    everything_C = torch.arange(len(clean.tokens_BT), device=model.device)
    try:
        with torch.inference_mode():
            final_BTD = _run(model, clean, layer, everything_C, [], whole=False)
    except Exception:  # whatever such a model says when it lacks what its lower layers give
        return False
    apart = (final_BTD - clean.final_BTD).float().norm() / clean.final_BTD.float().norm()
    return bool(apart <= APART[final_BTD.dtype])


def _run(
    model: LoadedModel,
    clean: CleanPass,
    layer: int,
    sequence_C: torch.Tensor,
    hooks: Sequence[tuple[str, Any]],
    *,
    whole: bool,
) -> torch.Tensor:
    if whole:
        return activations.run_hooked(model, clean.tokens_BT[sequence_C], hooks)[0]

    def enter(value_CTD: torch.Tensor, hook: Any) -> torch.Tensor:
        return clean.before_BTD[layer][sequence_C]

    entering = (f"blocks.{layer}.hook_resid_pre", enter)
    with _left_out(model, layer):
        return activations.run_hooked(model, clean.tokens_BT[sequence_C], [entering, *hooks])[0]


@contextlib.contextmanager
def _left_out(model: LoadedModel, layer: int) -> Iterator[None]:
    """Within the block, the blocks below `layer` give their input back."""
    blocks = list(model.bridge.blocks)[:layer]
    for block in blocks:
        object.__setattr__(block, "forward", _give_back)
    try:
        yield
    finally:
        for block in blocks:
            object.__delattr__(block, "forward")


def _give_back(hidden_BTD: torch.Tensor | None = None, *_: Any, hidden_states: Any = None, **__: Any) -> Any:
    """In the place of a block. transformers' models take a tensor from it, or the first of a tuple."""
    return hidden_states if hidden_BTD is None else hidden_BTD
