"""Run the model with some heads changed, to see what their output does.

In: tokens and `Edit`s. Out: the residual after the last layer norm, when z of some heads is changed, or the summed
output of a layer's heads, or the residual stream after a layer. The model sums the outputs of a layer's heads, so
something added to the output of one head is the same as something added to the sum.
Shapes: B sequences, T tokens, H heads, E d_head, D d_model.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from alens.errors import RequestError
from alens.model import activations
from alens.model.models import LoadedModel

Change = Callable[[torch.Tensor], torch.Tensor]
"""Old values -> new values of the same shape; must not write into its argument."""


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A change to one layer."""

    layer: int
    head: int | None = None
    """The head whose z is changed; with None, `z` takes the z of all heads, (B, T, H, E)."""
    z: Change | None = None
    """Changes z of the head, (B, T, E)."""
    output: Change | None = None
    """Changes the summed output of the layer's heads, (B, T, D)."""
    residual: Change | None = None
    """Changes the residual stream after the layer, (B, T, D)."""


def run_edited(model: LoadedModel, tokens_BT: torch.Tensor, edits: Sequence[Edit]) -> torch.Tensor:
    """(B, T, D) the residual after the last norm, with `edits` made in their order, in one forward pass.

    Raises `RequestError` when TransformerLens cannot edit the model there.
    """
    with edited(model), torch.inference_mode():
        return activations.run_hooked(model, tokens_BT, hooks_of(edits))[0]


def hooks_of(edits: Sequence[Edit]) -> list[tuple[str, Any]]:
    """The hooks that make these edits."""
    hooks: list[tuple[str, Any]] = []
    for edit in edits:
        if edit.z is not None:
            hooks.append((f"blocks.{edit.layer}.attn.hook_z", _on_z(edit.head, edit.z)))
        if edit.output is not None:
            hooks.append((f"blocks.{edit.layer}.hook_attn_out", _on_residual(edit.output)))
        if edit.residual is not None:
            hooks.append((f"blocks.{edit.layer}.hook_resid_post", _on_residual(edit.residual)))
    return hooks


@contextlib.contextmanager
def edited(model: LoadedModel) -> Iterator[None]:
    """Raises `RequestError` where a pass within the block has an edit that TransformerLens cannot make."""
    try:
        yield
    except KeyError as error:  # a hook name that the bridge does not know
        raise RequestError(
            f"{model.source.record.architecture} cannot be edited there in TransformerLens: {error}"
        ) from None


def _on_z(head: int | None, change: Change) -> Any:
    def hook(value_BTHE: torch.Tensor, hook: Any) -> torch.Tensor:
        if head is None:
            return change(value_BTHE)
        changed_BTHE = value_BTHE.clone()
        changed_BTHE[:, :, head] = change(value_BTHE[:, :, head])
        return changed_BTHE

    return hook


def _on_residual(change: Change) -> Any:
    def hook(value_BTD: torch.Tensor, hook: Any) -> torch.Tensor:
        return change(value_BTD)

    return hook
